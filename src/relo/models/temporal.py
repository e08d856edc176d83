"""Temporal tokens: how the target's context travels from one frame to the next (paper, section 3 and figure 3).

K learned tokens join the sequence behind the search and template tokens (the "current" slot). What they have become on
one frame is the memory of the next, where it stands in a second slot (the "previous" one).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from relo.errors import UserError
from relo.models.checkpoints.plugin import PluginModule
from relo.settings import LARGEST_DEPTH, LARGEST_WIDTH, check_whole


class TemporalPropagator(PluginModule):
    """What the temporal tokens do before, between and after an encoder's layers; it holds no state of a target.

    `static` is the number of tokens in front of the temporal ones.
    """

    def __init__(self, width: int, tokens: int) -> None:
        """Args: `width`, channels of a token; `tokens`, K."""
        super().__init__()
        check_whole("The propagator", 1, LARGEST_WIDTH, width=width)
        check_whole("The propagator", 0, 4096, tokens=tokens)
        self.learned_tokens = nn.Parameter(torch.zeros(1, tokens, width))
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        trunc_normal_(self.learned_tokens, std=0.02)
        trunc_normal_(self.position, std=0.02)

    def current(self, batch: int) -> Tensor:
        """The learned tokens with their position [B, K, width], as they enter the first layer."""
        return (self.learned_tokens + self.position).expand(batch, -1, -1)

    @abstractmethod
    def start(self, batch: int, memory: Tensor | None) -> Tensor:
        """The temporal tokens [B, slots * K, width] that enter the first layer.

        `memory` is None on a target's first frame.
        """

    def before_layer(
        self, index: int, tokens: Tensor, static: int, memory: Tensor | None, record: list[Tensor]
    ) -> Tensor:
        """The tokens [B, static + slots * K, width] as layer `index` shall see them.

        May append to `record` what to remember.
        """
        return tokens

    @abstractmethod
    def tokens_read(self, next_layer: int | None, has_memory: bool) -> int:
        """How many of the temporal tokens that leave a layer are read again; an encoder may leave out the others.

        `next_layer` is the layer that they would enter, None behind the last.
        """

    @abstractmethod
    def after_layers(self, tokens: Tensor, static: int, record: list[Tensor]) -> Tensor | None:
        """The memory [layers, B, K, width] for the next frame, from the last layer's output and the record."""


class LayerAligned(TemporalPropagator):
    """Frame t at layer i sees what frame t-1 recorded at layer i (the paper's propagation, figure 3b).

    On a target's first frame the previous slot holds a second copy of the learned tokens.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        depth: int,
        projection: bool | Literal["released"] = False,
        detach: bool = True,
        layers: Sequence[int] | None = None,
    ) -> None:
        """Build the learned tokens and, if asked, the projections.

        Args:
            width: channels of a token.
            tokens: K.
            depth: layers of the encoder.
            projection: put a linear layer of its own between frame t-1 and frame t at each layer (identity at first);
                it is trained by clips of two search frames or more. "released" is the public release's option, which
                starts them at random and has one more, which the learned tokens pass on their way in.
            detach: cut the gradient between frames, as the release does.
            layers: which layers propagate, counted from 0; all if not given.

        Raises:
            UserError: the encoder has no such layer, one is named twice, or none is named.
        """
        super().__init__(width, tokens)
        check_whole("The propagator", 1, LARGEST_DEPTH, depth=depth)
        if layers is not None and not (len(layers) == len(set(layers)) > 0 and set(layers) <= set(range(depth))):
            raise UserError(
                f"The propagator's layers must be different numbers from 0 to {depth - 1}, not {list(layers)}: name at "
                "least one, or leave them out for all."
            )
        self.layers = None if layers is None else tuple(sorted(layers))
        self._places = {layer: place for place, layer in enumerate(self.layers or range(depth))}  # in the memory
        self.detach = detach
        is_released = projection == "released"
        self.projections = nn.ModuleList(_linear(width, is_released) for _ in self._places) if projection else None
        self.entrance = _linear(width, is_released) if is_released else nn.Identity()

    def current(self, batch: int) -> Tensor:
        """The learned tokens with their position [B, K, width], as they enter the first layer."""
        return self.entrance(super().current(1)).expand(batch, -1, -1)

    def start(self, batch: int, memory: Tensor | None) -> Tensor:
        """Current and previous slot [B, 2K, width]."""
        return self.current(batch).repeat(1, 2, 1)

    def before_layer(
        self, index: int, tokens: Tensor, static: int, memory: Tensor | None, record: list[Tensor]
    ) -> Tensor:
        """Record the current slot, and put the memory of this layer into the previous one, if the layer propagates."""
        if index not in self._places:
            return tokens
        place = self._places[index]
        count = self.learned_tokens.shape[1]
        current = tokens[:, static : static + count]
        record.append(current.detach() if self.detach else current)
        if memory is None:
            return tokens
        previous = memory[place].to(tokens.dtype)
        if self.projections is not None:
            previous = self.projections[place](previous)
        return torch.cat([tokens[:, : static + count], previous], dim=1)

    def tokens_read(self, next_layer: int | None, has_memory: bool) -> int:
        """Where the next layer propagates, the memory takes the place of the previous slot, but on the first frame."""
        if next_layer is None:
            return 0
        count = self.learned_tokens.shape[1]
        return count if has_memory and next_layer in self._places else 2 * count

    def after_layers(self, tokens: Tensor, static: int, record: list[Tensor]) -> Tensor | None:
        """The current slot as recorded at each layer that propagates [layers, B, K, width]."""
        return torch.stack(record)


class DeepToShallow(TemporalPropagator):
    """What left the last layer of frame t-1 enters the first layer of frame t (the baseline, figure 3a)."""

    def __init__(self, width: int, tokens: int, detach: bool = True) -> None:
        """Args: `width`, channels of a token; `tokens`, K; `detach`, cut the gradient between frames."""
        super().__init__(width, tokens)
        self.detach = detach

    def start(self, batch: int, memory: Tensor | None) -> Tensor:
        """Current slot and, behind it, what frame t-1 ended with (a copy of the learned tokens on the first frame)."""
        current = self.current(batch)
        return torch.cat([current, current if memory is None else memory[0].to(current.dtype)], dim=1)

    def tokens_read(self, next_layer: int | None, has_memory: bool) -> int:
        """Both slots; after the last layer, the current one becomes the memory."""
        count = self.learned_tokens.shape[1]
        return count if next_layer is None else 2 * count

    def after_layers(self, tokens: Tensor, static: int, record: list[Tensor]) -> Tensor | None:
        """The current slot after the last layer [1, B, K, width]."""
        last = tokens[None, :, static : static + self.learned_tokens.shape[1]]
        return last.detach() if self.detach else last


class NoPropagation(TemporalPropagator):
    """Learned tokens without a previous slot: every frame stands alone."""

    def start(self, batch: int, memory: Tensor | None) -> Tensor:
        """The current slot only [B, K, width]."""
        return self.current(batch)

    def tokens_read(self, next_layer: int | None, has_memory: bool) -> int:
        """The one slot, by every layer."""
        return 0 if next_layer is None else self.learned_tokens.shape[1]

    def after_layers(self, tokens: Tensor, static: int, record: list[Tensor]) -> Tensor | None:
        """Nothing to remember."""
        return None


def _linear(width: int, at_random: bool) -> nn.Linear:
    """A linear layer that starts at the identity, or at random as in the public release."""
    layer = nn.Linear(width, width)
    if at_random:
        trunc_normal_(layer.weight, std=0.02)
    else:
        nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

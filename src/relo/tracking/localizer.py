"""From normalised crops to each target's box: the network, the window, and the cell with the greatest value."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relo.errors import UserError
from relo.models.encoders.base import Templates
from relo.models.exported import TrackableNetwork
from relo.models.heads import Localization, at_cells
from relo.models.inference import Precision, computing
from relo.models.network import Head
from relo.tracking.cuda_graphs import Recorder, replayed
from relo.tracking.engine import EngineChoice, ONNXNetwork, start_engine
from relo.tracking.fixed_batches import in_batches
from relo.tracking.presence_filter import filtered_presence
from relo.tracking.rule import TrackingRule, has_presence
from relo.tracking.state import TargetState, batched


@dataclass(frozen=True)
class Located:
    """What was found of one target."""

    box_cxcywh: Tensor  # [4] float64 on the CPU, shares of the search side
    score: float  # of the chosen cell, see `TargetState`
    peak: float  # the windowed map's greatest value
    presence: float | None  # by this frame alone, where the network has a head for it
    response: Tensor  # [S, S], the windowed map
    memory: Tensor | None  # [layers, 1, K, C], for the next frame

    def after(
        self,
        rule: TrackingRule,
        state: TargetState,
        box_xywh: Tensor,
        image_shape: tuple[int, ...],
        keep_response: bool,
    ) -> TargetState:
        """The state after the frame [H, W, 3] in which this box [4], image pixels, was found."""
        return replace(
            state,
            memory=self.memory,
            box_xywh=box_xywh,
            score=self.score,
            frame_index=state.frame_index + 1,
            presence=filtered_presence(rule, state.presence, self.presence),
            frame_presence=self.presence,
            response=self.response.cpu() if keep_response else None,
            image_size=(image_shape[1], image_shape[0]),
        )


def tracking_heads(network: TrackableNetwork, localization: Localization) -> tuple[Head, ...]:
    """The heads that a tracker that localizes so needs."""
    presence: tuple[Head, ...] = ("presence",) if has_presence(network, localization) else ()
    return (localization, "box", *presence)


class Localizer:
    """The network, and the rule's choice of a cell; it keeps nothing of a target."""

    def __init__(
        self,
        network: TrackableNetwork,
        rule: TrackingRule,
        device: torch.device,
        precision: Precision,
        engine: EngineChoice = "torch",
        record: Recorder | None = None,
    ) -> None:
        """Args: `network`, on the device and in evaluation mode; `record`, to replay what the device does.

        Raises:
            UserError: this engine cannot compute this network here.
        """
        self.rows: int | None = None  # of a forward, see `relo.tracking.fixed_batches`
        self._rule = rule
        self._device = device
        self._precision: Precision = precision
        self._window = rule.window_map(network.encoder.map_size).to(device)
        self._heads = tracking_heads(network, rule.localization)
        self.engine, self._forward = start_engine(engine, network, device, precision, rule.templates, self._heads)
        self.runs_targets_alone = isinstance(self._forward, ONNXNetwork)  # so that no rows need be fixed
        self._compute = replayed(self._on_device, record)

    def __call__(self, crops: Tensor, states: Sequence[TargetState]) -> list[Located]:
        """Locate B targets, which all have a memory, or all have none, in normalised crops [B, 3, Hx, Hx].

        Raises:
            UserError: the network's output is not a number.
        """
        templates, memory = batched(states)
        # A lost target may be anywhere in its search region: no window.
        windows = [torch.ones_like(self._window) if state.status == "lost" else self._window for state in states]
        inputs = (crops, torch.stack(windows), templates.tokens, templates.kernel, memory)
        return self.read(*in_batches(self._compute, self.rows, inputs, (0, 0, 0, 0, 1), (0, 0, 1)))

    def read(self, chosen: Tensor, response: Tensor, memory: Tensor | None) -> list[Located]:
        """What was found of B targets, from the device: it waits for it.

        Args:
            chosen: [B, 6 or 7] box cx, cy, w, h, score, peak and, where the network has a head for it, presence.
            response: [B, S, S].
            memory: [layers, B, K, C].

        Raises:
            UserError: one of `chosen` is not a number.
        """
        chosen = chosen.cpu().double()
        if not torch.isfinite(chosen).all():
            raise UserError(
                f"The network's output is not a number: its weights are broken, or too large for {self._precision}."
            )
        return [
            Located(
                box_cxcywh=chosen[i, :4],
                score=score,
                peak=peak,
                presence=presence[0] if presence else None,
                response=response[i],
                memory=None if memory is None else memory[:, i : i + 1],
            )
            for i, (score, peak, *presence) in enumerate(chosen[:, 4:].tolist())
        ]

    def _on_device(
        self, crops: Tensor, windows: Tensor, tokens: Tensor, kernel: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """A function of tensors that never waits: all numbers of the chosen cells, the windowed map and the memory."""
        with computing(self._device, self._precision):
            maps, memory = self._forward(crops, Templates(tokens, kernel), memory, self._heads)
        cells_cxcywh, scores, response = self._rule.windowed(maps, windows)
        value, cell = response.flatten(1).max(1)
        columns = [
            at_cells(cells_cxcywh, cell),
            at_cells(scores, cell)[:, None],
            value[:, None],
        ]
        if maps.presence is not None:
            columns.append(at_cells(maps.presence, cell)[:, None])
        return torch.cat(columns, dim=1), response, memory

"""The network: encoder, temporal propagator and heads, assembled. It keeps no state of a target."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from relo.errors import UserError
from relo.models.checkpoints.plugin import PluginModule
from relo.models.encoders.base import Encoder, Templates
from relo.models.heads import BoxHead, Critic, Localization, PolicyHead, PriorHead
from relo.models.presence import PresenceHead
from relo.models.temporal import LayerAligned, TemporalPropagator

Head = Literal["policy", "box", "critic", "prior", "presence"]
HEADS: tuple[Head, ...] = get_args(Head)


@dataclass(frozen=True)
class LocalizationMaps:
    """What the heads say of one frame of B targets, cell by cell; None where a head was not run."""

    policy_logits: Tensor | None = None  # [B, S, S]
    boxes_cxcywh: Tensor | None = None  # [B, S, S, 4], shares of the search side
    value: Tensor | None = None  # [B]
    prior_scores: Tensor | None = None  # [B, S, S], in (0, 1)
    prior_boxes_cxcywh: Tensor | None = None  # [B, S, S, 4], where the prior's head brings its own; else boxes_cxcywh
    presence: Tensor | None = None  # [B, S, S], probability that the cell's box is right

    def candidates(self, localization: Localization) -> tuple[Tensor, Tensor]:
        """What a localization chooses by and among: scores [B, S, S] as logarithms, and boxes_cxcywh [B, S, S, 4]."""
        if localization == "policy":
            assert self.policy_logits is not None
            return self.policy_logits, self.cells_cxcywh(localization)
        assert self.prior_scores is not None
        return self.prior_scores.logit(), self.cells_cxcywh(localization)

    def cells_cxcywh(self, localization: Localization) -> Tensor:
        """The cells' boxes [B, S, S, 4] among which a localization chooses."""
        is_own = localization == "prior" and self.prior_boxes_cxcywh is not None
        boxes_cxcywh = self.prior_boxes_cxcywh if is_own else self.boxes_cxcywh
        assert boxes_cxcywh is not None
        return boxes_cxcywh

    def __getitem__(self, index: slice) -> "LocalizationMaps":
        """The maps of some of the targets."""
        return replace(self, **{name: value[index] for name, value in vars(self).items() if value is not None})


class LocalizationNetwork(PluginModule):
    """Encoder, temporal propagator and heads.

    templates = network.encode_templates(template_images, template_boxes_xywh)  # once per target, then kept
    maps, memory = network(search_images, templates, memory=None)               # one frame of B targets
    """

    engine: Literal["torch"] = "torch"

    def __init__(
        self,
        encoder: Encoder,
        propagator: TemporalPropagator,
        policy: PolicyHead,
        box: BoxHead,
        critic: Critic | None = None,
        prior: PriorHead | None = None,
        presence: PresenceHead | None = None,
    ) -> None:
        """Assemble a network.

        Args:
            encoder: images to the map.
            propagator: what the temporal tokens do.
            policy: the localization policy.
            box: the box of every cell.
            critic: the value of a state; needed to train with actor-critic or PPO only.
            prior: what is trained against a handcrafted prior; the baseline's localization.
            presence: whether a cell's box is right; a tracker needs it to notice that its target is gone.

        Raises:
            UserError: parts whose widths do not fit together, or a presence head that reads a prior which is not there.
        """
        super().__init__()
        self.encoder = encoder
        self.propagator = propagator
        self.policy = policy
        self.box = box
        self.critic = critic
        self.prior = prior
        self.presence = presence
        self._check_widths()
        if presence is not None and presence.localization == "prior" and prior is None:
            raise UserError(
                "The presence head reads the prior, and the network has none: set its localization to policy."
            )

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz] with boxes [B, N, 4] (shares of the crop) -> what every frame needs."""
        return self.encoder.encode_templates(images, boxes_xywh)

    def encode(
        self, search_images: Tensor, templates: Templates, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> the map [B, C, S, S] that the heads read, and the next frame's memory."""
        return self.encoder(search_images, templates, self.propagator, memory)

    def localize(self, features: Tensor, heads: Collection[Head] = HEADS) -> LocalizationMaps:
        """Run the heads that are asked for on the map [B, C, S, S], as far as the network has them.

        The presence head brings those that it reads.
        """
        presence = self.presence if "presence" in heads else None
        if presence is not None:
            heads = {*heads, presence.localization, "box"}
        prior_scores, prior_boxes_cxcywh = None, None
        if self.prior is not None and "prior" in heads:
            prior_scores, prior_boxes_cxcywh = self.prior(features)
        maps = LocalizationMaps(
            policy_logits=self.policy(features).float() if "policy" in heads else None,
            boxes_cxcywh=self.box(features).float() if "box" in heads else None,
            value=self.critic(features).float() if self.critic is not None and "critic" in heads else None,
            prior_scores=None if prior_scores is None else prior_scores.float(),
            prior_boxes_cxcywh=None if prior_boxes_cxcywh is None else prior_boxes_cxcywh.float(),
        )
        if presence is None:
            return maps
        return replace(maps, presence=presence(features, *maps.candidates(presence.localization)).sigmoid())

    def forward(
        self,
        search_images: Tensor,
        templates: Templates,
        memory: Tensor | None = None,
        heads: Collection[Head] = HEADS,
    ) -> tuple[LocalizationMaps, Tensor | None]:
        """One frame of B targets.

        Args:
            search_images: [B, 3, Hx, Hx], normalised RGB.
            templates: of the same B targets.
            memory: [layers, B, K, width] from the previous frame; None on a target's first frame.
            heads: what to run, as in `localize`; all that the network has if not given.

        Returns:
            The maps, and the memory to hand to the next frame.
        """
        features, memory = self.encode(search_images, templates, memory)
        return self.localize(features, heads), memory

    def _check_widths(self) -> None:
        token_width = self.propagator.learned_tokens.shape[-1]
        if token_width != self.encoder.width:
            raise UserError(
                f"The propagator's tokens have {token_width} channels, the encoder's {self.encoder.width}: "
                "set the propagator's width to the encoder's."
            )
        layers = self.propagator.layers if isinstance(self.propagator, LayerAligned) else None
        if layers is not None and layers[-1] >= self.encoder.depth:
            raise UserError(
                f"The propagator names layer {layers[-1]}, the encoder's are 0 to {self.encoder.depth - 1}: set the "
                "propagator's depth and layers to the encoder's."
            )
        channels = self.encoder.channels
        for name, part in self.named_children():
            kernel = next((p for p in part.parameters() if p.dim() == 4), None)
            if name in HEADS and kernel is not None and kernel.shape[1] != channels:
                raise UserError(
                    f"The {name} head reads {kernel.shape[1]} channels, the encoder's map has {channels}: set the "
                    f"{name} head's channels to {channels}."
                )

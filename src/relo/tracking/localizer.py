"""One frame of B targets, all of it on the device: from pixels to the numbers that decide each target's box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from relo.geometry import cut_squares
from relo.images import normalise_crops
from relo.models.encoders.base import Templates
from relo.models.heads import Localization, at_cells
from relo.models.inference import Precision, computing
from relo.models.network import Head, LocalizationMaps, LocalizationNetwork
from relo.tracking.engine import EngineChoice, start_engine
from relo.tracking.rule import TrackingRule


@dataclass(frozen=True)
class Located:
    """The cell with the greatest windowed value, for each of B targets."""

    chosen: Tensor  # [B, 6 or 7]: box cx, cy, w, h (shares of the search side), probability, windowed value, presence
    response: Tensor  # [B, S, S], the windowed map
    memory: Tensor | None  # [layers, B, K, C], for the next frame


def tracking_heads(network: LocalizationNetwork, localization: Localization) -> tuple[Head, ...]:
    """The heads that a tracker that localizes so needs."""
    presence = network.presence
    is_read = presence is not None and presence.localization == localization
    return (localization, "box", "presence") if is_read else (localization, "box")


class Localizer:
    """The network and the rule's choice of a cell; it never waits for the device, and keeps nothing of a target."""

    def __init__(
        self,
        network: LocalizationNetwork,
        rule: TrackingRule,
        device: torch.device,
        precision: Precision,
        engine: EngineChoice = "torch",
    ) -> None:
        """Prepare to locate targets.

        Args:
            network: on `device` and in evaluation mode.
            rule: how maps become boxes.
            device: where to compute.
            precision: of the network's layers.
            engine: what computes the network (see `relo.tracking.engine`).

        Raises:
            UserError: this engine cannot compute this network here.
        """
        self._search_size = network.encoder.search_size
        self._rule = rule
        self._device = device
        self._precision: Precision = precision
        self._window = rule.window_map(network.encoder.map_size).to(device)
        self._heads = tracking_heads(network, rule.localization)
        self.engine, self._forward = start_engine(engine, network, device, precision, rule.templates, self._heads)

    def __call__(self, search_images: Tensor, templates: Templates, memory: Tensor | None) -> Located:
        """Locate B targets in search images [B, 3, Hx, Hx], normalised."""
        with computing(self._device, self._precision):
            maps, memory = self._forward(search_images, templates, memory, self._heads)
        cells_cxcywh, probabilities, response = self._candidates(maps)
        value, cell = response.flatten(1).max(1)
        columns = [
            at_cells(cells_cxcywh, cell),
            at_cells(probabilities, cell)[:, None],
            value[:, None],
        ]
        if maps.presence is not None:
            columns.append(at_cells(maps.presence, cell)[:, None])
        return Located(torch.cat(columns, dim=1), response, memory)

    def in_frames(
        self, pixels: Tensor, squares: Tensor, tokens: Tensor, kernel: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Locate B targets in frames on the device: a function of tensors alone, the fields of `Located`.

        Args:
            pixels: [P, 3] uint8, and
            squares: [B, 6], what `relo.geometry.cut_squares` reads.
            tokens: of the templates, and
            kernel: likewise (see `Templates`).
            memory: [layers, B, K, C]; None on first frames.
        """
        crops = cut_squares(pixels, squares, self._search_size)
        located = self(normalise_crops(crops), Templates(tokens, kernel), memory)
        return located.chosen, located.response, located.memory

    def _candidates(self, maps: LocalizationMaps) -> tuple[Tensor, Tensor, Tensor]:
        """The cells' boxes_cxcywh [B, S, S, 4], probabilities [B, S, S], and the windowed map to choose from."""
        if self._rule.localization == "prior":
            assert maps.prior_scores is not None  # checked when the tracker was made
            if maps.prior_boxes_cxcywh is not None:  # such a head has chosen by itself: nothing is left to a window
                return maps.prior_boxes_cxcywh, maps.prior_scores, maps.prior_scores
            assert maps.boxes_cxcywh is not None
            return maps.boxes_cxcywh, maps.prior_scores, maps.prior_scores * self._window
        logits, boxes_cxcywh = maps.candidates("policy")
        probabilities = logits.flatten(1).softmax(1).view_as(logits)
        response = (logits if self._rule.window == "logits" else probabilities) * self._window
        return boxes_cxcywh, probabilities, response

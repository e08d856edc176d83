"""Follow targets from frame to frame with a trained network."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.errors import UserError
from relo.geometry import CropRule, clip_to_image
from relo.images import normalise_images
from relo.models.checkpoints.weights import SHIPPED
from relo.models.devices import find_device
from relo.models.encoders.base import Templates
from relo.models.heads import Localization
from relo.models.inference import Precision, PrecisionChoice, computing, fastest_precision, optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.tracking.cuda_graphs import CUDARecorder, Function, ReplayedFunction
from relo.tracking.engine import EngineChoice
from relo.tracking.localizer import Localizer, Located
from relo.tracking.lost_and_found import judge, lost_region
from relo.tracking.rule import RuleFile, TrackingRule, read_rule_file, rule_from_settings
from relo.tracking.state import TargetState
from relo.tracking.upload import FrameUploader, upload
from relo.tracking.view import SearchView

RGBImage = NDArray[np.uint8]  # [H, W, 3]

LARGEST_BOX = 2
"""A first box is at most so many times as wide and high as its image: a target that fills it may stick out."""


class Tracker:
    """One-pass tracking: a box on the first frame, then one step a frame.

        tracker = Tracker.from_pretrained()
        states = tracker.initialize([image], [[x, y, w, h]])
        states = tracker.step([next_image], states)  # states[0].box_xywh, states[0].score

    A tracker holds the network and the rule, and nothing of a target: what it knows of one is in its `TargetState`.
    On a GPU it keeps buffers of its own, so only one thread may use it at a time.
    Several targets are one batched forward, and a target's boxes do not depend on its neighbours in the batch, beyond
    the rounding of floating-point sums.

    `TargetState.score` is the network's probability of the chosen cell among all cells. It is not calibrated: a network
    trained by reward gives values near 1 on hits and misses alike, and they sum to 1 even when the target is gone.
    `TargetState.presence`, of a network with a presence head, is the probability that the found box is right. With
    `lost_after` in the rule it decides `TargetState.status`; the box of a lost target stays where it was last believed.
    """

    def __init__(
        self,
        network: LocalizationNetwork,
        rule: TrackingRule | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
        *,
        crop_on_device: bool | None = None,
        cuda_graphs: bool | None = None,
        engine: EngineChoice = "torch",
    ) -> None:
        """Set the network to evaluation.

        Args:
            network: a trained network; it is put into evaluation mode (and on the device), not copied.
            rule: how maps become boxes; the default setting where None.
            device: where to compute; None is where the network is.
            precision: of the network's layers; geometry is float64 throughout.
            crop_on_device: send frames to the device and cut them there, which is faster on a GPU; None is on a GPU
                only. Crops are those that OpenCV cuts on the CPU.
            cuda_graphs: run a step as one CUDA graph, recorded when a number of targets is met for the second time;
                None is where the device is a GPU that crops. A network that cannot be recorded runs without.
            engine: what computes the network's steps: "torch"; "onnxruntime", for weights that do not change any more;
                or "auto" (see `relo.tracking.engine`).

        Raises:
            UserError: there is no such device, or the rule asks for a head that the network does not have, or for
                crops of another size; or the engine cannot compute this network here.
            ValueError: CUDA graphs are asked for where they cannot be.
        """
        self.rule = rule or TrackingRule()
        self.device = find_device(device) if device is not None else next(network.parameters()).device
        self.network = network.to(self.device).eval()
        self.precision = precision
        if self.rule.localization == "prior" and network.prior is None:
            raise UserError("The network has no prior head to localize by; use localization 'policy'.")
        self._require_presence()
        self._template_crop = self.rule.template_crop(network.encoder.template_size)
        self._search_crop = self.rule.search_crop(network.encoder.search_size)
        self._localizer = Localizer(self.network, self.rule, self.device, precision, engine)
        self.engine = self._localizer.engine
        on_gpu = self.device.type == "cuda"
        crop_on_device = on_gpu if crop_on_device is None else crop_on_device
        cuda_graphs = on_gpu and crop_on_device if cuda_graphs is None else cuda_graphs
        if cuda_graphs and not (on_gpu and crop_on_device):
            raise ValueError(f"CUDA graphs need a CUDA device that crops; this one is {self.device.type}.")
        self._upload_frames = FrameUploader(self.device) if crop_on_device else None
        self._in_frames: Function = self._localizer.in_frames
        if cuda_graphs:
            self._in_frames = ReplayedFunction(self._in_frames, CUDARecorder(self.device))
        self._searcher = self
        if self.rule.lost_after is not None:  # a lost target may be anywhere in its search region: no window
            windowless = replace(self.rule, window_exponent=0.0, lost_after=None)
            self._searcher = type(self)(
                network, windowless, device, precision, crop_on_device=crop_on_device, cuda_graphs=cuda_graphs
            )

    @property
    def tells_presence(self) -> bool:
        """Whether its states have a presence: the network has a presence head for the rule's localization."""
        head = self.network.presence
        return head is not None and head.localization == self.rule.localization

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = SHIPPED,
        rule: TrackingRule | None = None,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "float32",
        localization: Localization | None = None,
        *,
        cuda_graphs: bool | None = None,
        engine: EngineChoice = "auto",
    ) -> "Tracker":
        """A tracker with the weights of a name, a folder or a checkpoint, made to run fast (and not to be trained).

        Args:
            model: what `relo.weights.load_network` takes; the network that comes with the package if not given.
            rule: how maps become boxes; None is the model's own (the `tracking.yaml` in its folder, or what its
                checkpoint was validated with), else the default setting.
            device: where to compute; None is the GPU where there is one.
            precision: of the network's layers; "auto" is bfloat16 where a short trial shows the device to be clearly
                faster in it. In reduced precision a cell that was nearly as good may win, and the target be lost or
                kept where it is not in float32.
            localization: the map that picks the cell; None is the rule's.
            cuda_graphs: run a step as one CUDA graph; None is on a GPU.
            engine: what computes the network's steps; "auto" is onnxruntime for a small network in float32 on a CPU,
                else torch. Results are the same but for rounding.

        Raises:
            UserError: there is no such device, the weights or the rule cannot be read, or the engine cannot compute
                this network here.
        """
        from relo.models.checkpoints.weights import load_network, resolve  # brings the hub's client, needed here only

        device = find_device(device)
        path = resolve(model)
        if rule is None:
            rule = own_rules(path).rule
        if localization is not None:
            rule = replace(rule, localization=localization)
        if precision == "auto":
            precision = fastest_precision(device)
        network = optimize_for_inference(load_network(path), precision)
        return cls(network, rule, device, precision, cuda_graphs=cuda_graphs, engine=engine)

    @torch.inference_mode()
    def initialize(
        self, images: Sequence[RGBImage], boxes_xywh: Sequence[Sequence[float]] | NDArray[np.float64] | Tensor
    ) -> list[TargetState]:
        """Take up B targets, one in each image.

        Args:
            images: B RGB images, uint8 [H, W, 3]; sizes may differ.
            boxes_xywh: the targets' boxes [B, 4] in image pixels.

        Raises:
            UserError: a box is not finite, has no area, lies outside its image, or is far larger.
            ValueError: an image of another type or shape, or other than one box an image.
        """
        boxes = torch.as_tensor(boxes_xywh, dtype=torch.float64).reshape(-1, 4)
        _check_images(images, len(boxes))
        for image, box_xywh in zip(images, boxes, strict=True):
            check_box(box_xywh.tolist(), image.shape[1], image.shape[0])
        if not len(boxes):
            return []
        crops, crop_boxes = self._cut_templates(images, boxes)
        crops = crops[:, None].repeat(1, self.rule.templates, 1, 1, 1)
        crop_boxes = crop_boxes[:, None].repeat(1, self.rule.templates, 1)
        templates = self._encode_templates(crops, crop_boxes)
        return [
            TargetState(
                templates[i : i + 1],
                crops[i],
                crop_boxes[i],
                None,
                boxes[i].clone(),
                1.0,
                0,
                image_size=(image.shape[1], image.shape[0]),
            )
            for i, image in enumerate(images)
        ]

    @torch.inference_mode()
    def step(
        self, images: Sequence[RGBImage], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """Find each of B targets in its next frame.

        Args:
            images: B RGB images, uint8 [H, W, 3]; targets in one video share one image object.
            states: what is known of the B targets; left as they are.
            keep_response: hand out the maps that the cells were chosen from.

        Returns:
            The B states after this frame, in the same order.

        Raises:
            ValueError: an image of another type or shape, or other than one state an image.
            UserError: the network's output is not a number.
        """
        _check_images(images, len(states))
        views = [
            SearchView(region, image.shape, crop=None, image=image)
            for image, region in zip(images, self.search_regions(states), strict=True)
        ]
        return self.step_views(views, states, keep_response)

    @torch.inference_mode()
    def search_regions(self, states: Sequence[TargetState]) -> Tensor:
        """Where B targets are looked for in their next frames: regions [B, 3] float64, see `CropRule`."""
        boxes_xywh = [state.box_xywh for state in states]
        regions = self._search_crop.region(torch.stack(boxes_xywh) if boxes_xywh else torch.empty(0, 4))
        for i, state in enumerate(states):
            if state.status == "lost":
                regions[i] = lost_region(self.rule, state, regions[i])
        return regions

    def view(self, image: RGBImage, state: TargetState, region: Tensor) -> SearchView:
        """Cut from a target's next frame what `step_views` needs of it.

        It may run in any thread, also while a step is under way: many frames can be cut side by side, each where it was
        decoded, and need not be kept.

        Args:
            image: RGB image, uint8 [H, W, 3].
            state: what is known of the target.
            region: its entry of `search_regions`.

        Raises:
            ValueError: an image of another type or shape.
        """
        _check_images([image], 1)
        kept = image if self._is_update_due(state.frame_index + 1) else None
        return SearchView(region, image.shape, crop=self._search_crop.cut(image, region), image=kept)

    @torch.inference_mode()
    def step_views(
        self, views: Sequence[SearchView], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """`step`, given the views [B] of the targets' next frames in place of the frames."""
        found: list[TargetState | None] = [None] * len(states)

        def kind(i: int) -> tuple[bool, bool]:
            # Without memory the propagator starts anew, so new targets cannot share a forward with those under way.
            return states[i].memory is None, states[i].status == "lost"

        for _, group in groupby(sorted(range(len(states)), key=kind), key=kind):
            members = list(group)
            stepped = self._step([views[i] for i in members], [states[i] for i in members], keep_response)
            for i, state in zip(members, stepped, strict=True):
                found[i] = state
        return [state for state in found if state is not None]

    def _step(
        self, views: Sequence[SearchView], states: Sequence[TargetState], keep_response: bool
    ) -> list[TargetState]:
        """Step targets that all have a memory, or all have none, and are all lost, or none."""
        finder = self._searcher if states[0].status == "lost" else self
        regions = torch.stack([view.region for view in views])
        templates = Templates.cat([state.templates for state in states])
        memories = [state.memory for state in states if state.memory is not None]
        memory = torch.cat(memories, dim=1) if memories else None
        crops = [view.crop for view in views if view.crop is not None]
        if len(crops) == len(views):
            located = finder._locate_in_crops(crops, templates, memory)
        else:
            images = [view.image for view in views if view.image is not None]
            located = finder._locate(images, regions, templates, memory)
        chosen = located.chosen.cpu().double()  # the one wait for the device, but where a response is asked for
        if not torch.isfinite(chosen).all():
            raise UserError(
                f"The network's output is not a number: its weights are broken, or too large for {self.precision}."
            )
        boxes_xywh = self._clip(self._search_crop.to_image(chosen[:, :4], regions), views)
        responses = located.response.cpu() if keep_response else None
        stepped = [
            replace(
                state,
                memory=None if located.memory is None else located.memory[:, i : i + 1],
                box_xywh=boxes_xywh[i],
                score=score,
                frame_index=state.frame_index + 1,
                presence=presence[0] if presence else None,
                response=None if responses is None else responses[i],
                image_size=(views[i].image_shape[1], views[i].image_shape[0]),
            )
            for i, (state, (score, _, *presence)) in enumerate(zip(states, chosen[:, 4:].tolist(), strict=True))
        ]
        if self.rule.lost_after is not None:
            stepped = [self._believed(before, after) for before, after in zip(states, stepped, strict=True)]
        return self._update_templates(views, stepped, chosen[:, 5].tolist())

    def _locate(
        self, images: Sequence[RGBImage], regions: Tensor, templates: Templates, memory: Tensor | None
    ) -> Located:
        """Find B targets in their search regions [B, 3]."""
        if self._upload_frames is None:
            crops = [self._search_crop.cut(image, region) for image, region in zip(images, regions, strict=True)]
            return self._locate_in_crops(crops, templates, memory)
        # Targets in one video go on sharing one object.
        extents = {id(image): self._search_crop.extent(image) for image in images}
        return self._locate_on_device([extents[id(image)] for image in images], regions, templates, memory)

    def _locate_in_crops(self, crops: Sequence[RGBImage], templates: Templates, memory: Tensor | None) -> Located:
        """Find B targets in crops [Hx, Hx, 3] of their search regions."""
        if self._upload_frames is None:
            images = normalise_images(upload(torch.from_numpy(np.stack(crops)), self.device))
            return self._localizer(images, templates, memory)
        size = self._search_crop.size
        # A crop is a frame that is search region from edge to edge.
        whole = torch.tensor([size / 2, size / 2, size], dtype=torch.float64).expand(len(crops), 3)
        return self._locate_on_device(crops, whole, templates, memory)

    def _locate_on_device(
        self, images: Sequence[RGBImage], regions: Tensor, templates: Templates, memory: Tensor | None
    ) -> Located:
        """Find B targets in regions [B, 3] of images that are sent to the device."""
        assert self._upload_frames is not None
        pixels, squares = self._upload_frames(images, regions)
        return Located(*self._in_frames(pixels, squares, templates.tokens, templates.kernel, memory))

    def _clip(self, boxes_xywh: Tensor, views: Sequence[SearchView]) -> Tensor:
        """Boxes [B, 4] that keep the rule's margin inside their images."""
        heights, widths = torch.tensor([view.image_shape[:2] for view in views]).unbind(1)
        return clip_to_image(boxes_xywh, widths, heights, self.rule.margin_px)

    def _believed(self, before: TargetState, after: TargetState) -> TargetState:
        """The state after a frame, with what is made of it by presence; the memory of a frame in doubt is not kept."""
        assert after.presence is not None
        assert after.image_size is not None
        verdict = judge(self.rule, before, after.box_xywh, after.presence, after.image_size)
        memory = after.memory if verdict.status == "tracking" else before.memory
        return replace(after, memory=memory, **vars(verdict))

    def _require_presence(self) -> None:
        """Refuse a rule that goes by presence where the network has none of the map that picks the cell."""
        settings = [n for n in ("lost_after", "template_update_presence") if getattr(self.rule, n) is not None]
        head, localization = self.network.presence, self.rule.localization
        if settings and not self.tells_presence:
            has = "no presence head" if head is None else f"a presence head for localization {head.localization!r}"
            raise UserError(
                f"The tracking rule sets {settings[0]} and localization {localization!r}, but the network has {has}: "
                f"leave {settings[0]} out, or take a network with a presence head for this localization."
            )

    def _is_update_due(self, frame_index: int) -> bool:
        interval = self.rule.template_update_interval
        return interval is not None and frame_index % interval == 0

    def _update_templates(
        self, views: Sequence[SearchView], states: list[TargetState], peaks: Sequence[float]
    ) -> list[TargetState]:
        """Where it is due, put the newest crop in the place of the oldest template but the first."""
        least = self.rule.template_update_presence
        images = {
            i: view.image
            for i, (view, state, peak) in enumerate(zip(views, states, peaks, strict=True))
            if view.image is not None
            and self._is_update_due(state.frame_index)
            and peak > self.rule.template_update_threshold
            and state.status == "tracking"
            and (least is None or (state.presence is not None and state.presence > least))
        }
        due = list(images)
        if not due:
            return states
        boxes_xywh = torch.stack([states[i].box_xywh for i in due])
        crop, crop_box = self._cut_templates(list(images.values()), boxes_xywh)
        crops = _newest_in(torch.stack([states[i].template_crops for i in due]), crop)
        crop_boxes = _newest_in(torch.stack([states[i].template_boxes_xywh for i in due]), crop_box)
        templates = self._encode_templates(crops, crop_boxes)
        updated = list(states)
        for row, i in enumerate(due):
            updated[i] = replace(
                states[i],
                templates=templates[row : row + 1],
                template_crops=crops[row],
                template_boxes_xywh=crop_boxes[row],
            )
        return updated

    def _cut_templates(self, images: Sequence[RGBImage], boxes_xywh: Tensor) -> tuple[Tensor, Tensor]:
        """Crops [B, Hz, Hz, 3] uint8 around boxes [B, 4], and the boxes in them [B, 4] as shares of the side."""
        regions = self._template_crop.region(boxes_xywh)
        return _cut(self._template_crop, images, regions), self._template_crop.to_crop(boxes_xywh, regions)

    def _encode_templates(self, crops: Tensor, boxes_xywh: Tensor) -> Templates:
        """Crops [B, N, Hz, Hz, 3] uint8 with boxes [B, N, 4] -> what every frame needs of them."""
        images = normalise_images(upload(crops, self.device))
        with computing(self.device, self.precision):
            return self.network.encode_templates(images, upload(boxes_xywh.float(), self.device))


def own_rules(path: Path) -> RuleFile:
    """The tracking settings that belong to a model folder or checkpoint; the default ones where it has none."""
    from relo.models.checkpoints.weights import RULE_FILE, read_checkpoint

    if path.is_file():
        return RuleFile(rule_from_settings(read_checkpoint(path).get("relo_rule", {}), str(path)))
    return read_rule_file(path / RULE_FILE) if (path / RULE_FILE).is_file() else RuleFile(TrackingRule())


def check_box(box_xywh: Sequence[float], image_width: int, image_height: int) -> None:
    """Refuse a first box that no tracker can start from.

    Raises:
        UserError: the box x, y, w, h is not finite, has no area, lies wholly outside the image, or is far larger.
    """
    x, y, w, h = box_xywh
    box = f"The box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g}"
    size = f"the image of {image_width} x {image_height} px"
    if not np.isfinite(box_xywh).all():
        raise UserError(f"{box} is not finite; give four numbers in pixels.")
    if w <= 0 or h <= 0:
        raise UserError(f"{box} has no area; width and height must be positive.")
    if x >= image_width or y >= image_height or x + w <= 0 or y + h <= 0:
        raise UserError(f"{box} lies outside {size}.")
    if w > LARGEST_BOX * image_width or h > LARGEST_BOX * image_height:
        raise UserError(f"{box} is more than {LARGEST_BOX} times as large as {size}; give four numbers in pixels.")


def _check_images(images: Sequence[RGBImage], targets: int) -> None:
    if len(images) != targets:
        raise ValueError(f"{len(images)} images for {targets} targets; give one image a target.")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"An image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}.")


def _cut(rule: CropRule, images: Sequence[RGBImage], regions: Tensor) -> Tensor:
    """Crops [B, size, size, 3] uint8 of B images at regions [B, 3]."""
    return torch.from_numpy(np.stack([rule.cut(image, region) for image, region in zip(images, regions, strict=True)]))


def _newest_in(kept: Tensor, newest: Tensor) -> Tensor:
    """[B, N, ...] with the entry after the first dropped and [B, ...] put at the end."""
    return torch.cat([kept[:, :1], kept[:, 2:], newest[:, None]], dim=1)

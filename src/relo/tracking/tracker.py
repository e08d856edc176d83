"""Follow targets from frame to frame with a trained network: crop, locate, update."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.errors import UserError
from relo.geometry import clip_to_image
from relo.models.checkpoints.weights import SHIPPED, load_network, resolve
from relo.models.devices import find_device
from relo.models.exported import ExportedNetwork, TrackableNetwork, names_graphs
from relo.models.heads import Localization
from relo.models.inference import Precision, PrecisionChoice, check_precision, fastest_precision, optimize_for_inference
from relo.tracking.arguments import as_boxes, check_images
from relo.tracking.crops import DeviceCropper, RGBImage, SearchFrame, SearchView, cut, normalised
from relo.tracking.cuda_graphs import find_recorder
from relo.tracking.engine import EngineChoice
from relo.tracking.fixed_batches import ROWS
from relo.tracking.frame_result import FrameResult
from relo.tracking.localizer import Localizer, Located
from relo.tracking.lost_and_found import apply_presence, lost_region
from relo.tracking.rule import TrackingRule, check_heads, has_presence, own_rules, rules_from_settings
from relo.tracking.run import Source, follow, open_timed
from relo.tracking.state import TargetState, by_memory
from relo.tracking.templates import TemplateMaker


class Tracker:
    """One-pass tracking: a box on the first frame, then one step per frame.

        tracker = Tracker.from_pretrained()
        for result in tracker.run("video.mp4", [x, y, w, h]):  # any source, one target or several
            print(result.index, result.boxes_xywh)

    or, where the frames come from a loop of your own:

        states = tracker.initialize([image], [[x, y, w, h]])
        states = tracker.step([next_image], states)  # states[0].box_xywh, states[0].score

    A tracker holds the network and the rule, and nothing of a target: what it knows of one is in its `TargetState`.
    On a GPU it keeps buffers of its own, so only one thread may use it at a time.
    Several targets are one batched forward; but for rounding, the box of one does not depend on others in the batch,
    and within `fixed_batches` not even in its last bit.
    """

    def __init__(
        self,
        network: TrackableNetwork,
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
            network: a trained network; it is put into evaluation mode (and on the device), not copied. Or exported
                graphs, which stay where they are.
            rule: how maps become boxes; the default setting where None.
            device: where to compute; None is where the network is.
            precision: of the network's layers; geometry is float64 throughout.
            crop_on_device: send frames to the device and cut the same crops there; None is on a GPU: it is faster.
            cuda_graphs: run a step as CUDA graphs, recorded when a number of targets is met for the second time; None
                is where a GPU crops. A network that cannot be recorded runs without.
            engine: "torch", "onnxruntime" (the weights must not change any more) or "auto": see `relo.tracking.engine`.

        Raises:
            UserError: there is no such device or precision, the rule does not fit the network, or the engine cannot
                compute it here.
            ValueError: CUDA graphs are asked for where they cannot be.
        """
        check_precision(precision)
        self.rule = rule or TrackingRule()
        self.device = find_device(device) if device is not None else next(network.parameters()).device
        self.network = network.to(self.device).eval()
        self.precision = precision
        check_heads(self.rule, network)
        crop_on_device = self.device.type == "cuda" if crop_on_device is None else crop_on_device
        record = find_recorder(self.device, crop_on_device, cuda_graphs)
        self._templates = TemplateMaker(network, self.rule, self.device, precision)
        self._search_crop = self.rule.search_crop(network.encoder.search_size)
        self._device_crop = DeviceCropper(self._search_crop, self.device, record) if crop_on_device else None
        self._localizer = Localizer(network, self.rule, self.device, precision, engine, record)
        self.engine = self._localizer.engine

    @property
    def tells_presence(self) -> bool:
        """Whether its states have a presence: the network has a presence head for the rule's localization."""
        return has_presence(self.network, self.rule.localization)

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
            model: what `relo.weights.load_network` takes, or what `from_onnx` does; the network that comes with the
                package if not given.
            rule: None is the model's own (the `tracking.yaml` in its folder, or what its checkpoint was validated
                with), else the default setting.
            device: None is the GPU where there is one.
            precision: "auto" is bfloat16 where a short trial shows the device to be clearly faster in it. In reduced
                precision a cell that was nearly as good may win, and a target be lost that is not in float32.
            localization: the map that picks the cell; None is the rule's.
            cuda_graphs: as of `Tracker`.
            engine: "auto" is onnxruntime for a small network in float32 on a CPU, else torch; same but for rounding.

        Raises:
            UserError: as of `Tracker`; or the weights or the rule cannot be read.
        """
        if names_graphs(model):  # onnxruntime has devices of its own
            if precision not in ("auto", "float32") or engine == "torch" or cuda_graphs:
                raise UserError(
                    f"{model} is computed by onnxruntime in float32: leave out precision, engine and CUDA graphs."
                )
            return cls.from_onnx(resolve(model), rule, device, localization)
        found = find_device(device)  # before a model is looked for
        path = resolve(model)
        rule = rule or own_rules(path).rule
        rule = replace(rule, localization=localization or rule.localization)
        if precision == "auto":
            precision = fastest_precision(found)
        network = optimize_for_inference(load_network(path), precision)
        return cls(network, rule, found, precision, cuda_graphs=cuda_graphs, engine=engine)

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        rule: TrackingRule | None = None,
        device: str | torch.device | None = None,
        localization: Localization | None = None,
    ) -> "Tracker":
        """A tracker whose network onnxruntime computes, from the two graphs of `relo export` alone.

        Args:
            path: the graphs' folder, or one of the two files, which has the other beside it.
            rule: None is the exported one.
            device: where onnxruntime computes; None is "cpu", and "cuda" needs the package onnxruntime-gpu.
            localization: the map that picks the cell; None is the rule's.

        Raises:
            UserError: a graph is missing, broken, of a newer version or not of `relo export`; it cannot be computed on
                the device; or the rule needs a head, or a number of templates, that was not exported.
        """
        network = ExportedNetwork(path, device)
        rule = rule or rules_from_settings(network.metadata.tracking, Path(path)).rule
        rule = replace(rule, localization=localization or rule.localization)
        if rule.templates != network.metadata.templates:
            raise UserError(
                f"The tracking rule has templates = {rule.templates}, and {path} was exported for "
                f"{network.metadata.templates}: export it with --templates {rule.templates}, or change the rule."
            )
        return cls(network, rule, "cpu")

    def run(
        self,
        source: Source,
        boxes_xywh: Sequence[float] | Sequence[Sequence[float]] | NDArray[np.float64] | Tensor,
        *,
        start: int = 0,
        limit: int | None = None,
        keep_response: bool = False,
    ) -> Iterator[FrameResult]:
        """Track one target or several, as one batch, through a source: a result per frame, the given one first.

        >>> import numpy as np
        >>> tracker = Tracker.from_pretrained(device="cpu")
        >>> video = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)  # or "video.mp4", "frames/"
        >>> for result in tracker.run(video, [[40, 30, 30, 40], [90, 50, 25, 20]], keep_response=True):
        ...     first = result.targets[0]
        ...     print(result.index, result.boxes_xywh.shape, first.status, first.response is not None)
        0 (2, 4) tracking False
        1 (2, 4) tracking True
        2 (2, 4) tracking True

        Args:
            source: what `relo.tracking.sources.open_frames` takes, decoded ahead in a thread; or RGB images, uint8
                [H, W, 3], in any iterable. A frame may have another size than the one before.
            boxes_xywh: the boxes [4] or [B, 4] on the first frame that is tracked, in image pixels.
            start: skip this many frames of the source.
            limit: stop after this many frames.
            keep_response: hand out the maps that the cells were chosen from.

        Raises:
            UserError: at once where the source cannot be opened; with the first result where a box is outside, has no
                area, or there is no frame; later where the source breaks off: the results before it have come by then.
            ValueError: other than boxes [B, 4]; an image of another type or shape.
        """
        boxes = as_boxes(boxes_xywh)
        return follow(self, open_timed(source, start, limit), boxes, keep_response)

    @contextmanager
    def fixed_batches(self) -> Iterator[None]:
        """Within it, forwards have the same number of rows whatever the number of targets.

        So the boxes of a target are the same to the bit, whatever others are in its batch. It costs time where there
        are fewer targets than rows: `relo.tracking.fixed_batches.ROWS`, or one by onnxruntime.
        """
        rows = 1 if self.engine == "onnxruntime" else ROWS.get(self.device.type, 8)
        self._templates.rows = rows
        self._localizer.rows = None if self._localizer.runs_targets_alone else rows
        try:
            yield
        finally:
            self._localizer.rows = self._templates.rows = None

    @torch.inference_mode()
    def initialize(
        self, images: Sequence[RGBImage], boxes_xywh: Sequence[Sequence[float]] | NDArray[np.float64] | Tensor
    ) -> list[TargetState]:
        """Start to follow B targets, one in each image.

        Args:
            images: B RGB images, uint8 [H, W, 3]; sizes may differ.
            boxes_xywh: the targets' boxes [B, 4] in image pixels.

        Raises:
            UserError: a box is not finite, has no area, lies outside its image, or is far larger.
            ValueError: an image or boxes of another type or shape, or other than one box per image.
        """
        boxes = as_boxes(boxes_xywh, least=0)
        check_images(images, len(boxes))
        return self._templates.first(images, torch.from_numpy(boxes))

    @torch.inference_mode()
    def step(
        self, images: Sequence[RGBImage], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """Find each of B targets in its next frame: the B states after it, in the same order.

        Args:
            images: B RGB images, uint8 [H, W, 3]; targets in one video share one image object.
            states: what is known of the B targets; left as they are.
            keep_response: hand out the maps that the cells were chosen from.

        Raises:
            ValueError: an image of another type or shape, or other than one state per image.
            UserError: the network's output is not a number.
        """
        check_images(images, len(states))
        if not states:
            return []
        regions = self.search_regions(states)
        if self._device_crop is None:
            crops = normalised(cut(self._search_crop, images, regions), self.device)
        else:
            crops = self._device_crop(images, regions)
        frames = [SearchFrame(region, image.shape, image) for region, image in zip(regions, images, strict=True)]
        return self._step(crops, frames, states, keep_response)

    @torch.inference_mode()
    def search_regions(self, states: Sequence[TargetState]) -> Tensor:
        """Where B targets are searched for in their next frames: regions [B, 3] float64, see `CropRule`."""
        boxes_xywh = [state.box_xywh for state in states]
        regions = self._search_crop.region(torch.stack(boxes_xywh) if boxes_xywh else torch.empty(0, 4))
        for i, state in enumerate(states):
            if state.status == "lost":
                regions[i] = lost_region(self.rule, state, regions[i])
        return regions

    def view(self, image: RGBImage, state: TargetState, region: Tensor) -> SearchView:
        """Cut from a target's next frame, at its region [3] of `search_regions`, what `step_views` needs.

        It may run in any thread, also while a step is under way, so that frames are cut where they are decoded.

        Raises:
            ValueError: an image of another type or shape.
        """
        check_images([image], 1)
        kept = image if self._templates.is_due(state.frame_index + 1) else None
        return SearchView(region, image.shape, kept, self._search_crop.cut(image, region))

    @torch.inference_mode()
    def step_views(
        self, views: Sequence[SearchView], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """`step`, given the views [B] of the targets' next frames in place of the frames."""
        if not states:
            return []
        crops = normalised(torch.from_numpy(np.stack([view.crop for view in views])), self.device)
        return self._step(crops, views, states, keep_response)

    def _step(
        self, crops: Tensor, frames: Sequence[SearchFrame], states: Sequence[TargetState], keep_response: bool
    ) -> list[TargetState]:
        """Find B targets in crops [B, 3, Hx, Hx] of their frames, and update what is known of them."""
        located: dict[int, Located] = {}
        for members in by_memory(states):
            own_crops = crops if len(members) == len(states) else torch.stack([crops[i] for i in members])
            group = self._locate(own_crops, [frames[i] for i in members], [states[i] for i in members])
            located.update(zip(members, group, strict=True))
        found = [located[i] for i in range(len(states))]
        regions = torch.stack([frame.region for frame in frames])
        boxes_xywh = self._search_crop.to_image(torch.stack([one.box_cxcywh for one in found]), regions)
        heights, widths = torch.tensor([frame.image_shape[:2] for frame in frames]).unbind(1)
        boxes_xywh = clip_to_image(boxes_xywh, widths, heights, self.rule.margin_px)
        updated = [
            apply_presence(self.rule, state, one.after(self.rule, state, box_xywh, frame.image_shape, keep_response))
            for state, frame, one, box_xywh in zip(states, frames, found, boxes_xywh, strict=True)
        ]
        return self._templates.renew(frames, updated, [one.peak for one in found])

    def _locate(self, crops: Tensor, frames: Sequence[SearchFrame], states: Sequence[TargetState]) -> Sequence[Located]:
        """Find B targets that all have a memory, or all have none; `OracleTracker` overrides it to read the frames."""
        return self._localizer(crops, states)

"""Clips by number: the same number gives the same clip, in whichever worker and rank it is asked for."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, get_worker_info

from relo.data.clip_batch import ClipBatch, Surroundings
from relo.data.clip_store import ClipStore
from relo.data.frame_geometry import nearest_visible, to_image, to_packed
from relo.data.sampler import Absence, ClipFrames, ClipSampler
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.parsing import positive_size
from relo.data.still_motion import MOVING_FRAMES, in_motion
from relo.data.store_parts import JoinedStores, open_store
from relo.data.transforms import ClipTransform, Image, grey
from relo.errors import UserError
from relo.geometry import mirror_xywh
from relo.images import normalise_crops

_ATTEMPTS = 100


@dataclass(frozen=True)
class StoreSource:
    """A clip store to draw from.

    Attributes:
        path: the store's folder.
        weight: how often it is drawn from, relative to the others.
        start: the first of its sequences to use.
        stop: the first not to use any more; all to the end by default.
    """

    path: str
    weight: float = 1.0
    start: int = 0
    stop: int | None = None


class ClipDataset(Dataset[ClipBatch]):
    """An endless supply of clips: number i is drawn with a generator seeded by (seed, i).

    Args:
        sources: the stores and their weights.
        sampler: which frames make a clip.
        transform: frames to crops.
        clips_per_epoch: the length of the dataset; numbers beyond it are the clips of later epochs.
        seed: of everything random.
        on_broken: what a record that cannot be read does: stop the run, or give way to another clip and be counted.
        workers: processes that will read from the dataset.
        absence: how often search frames do not show the target; no oftener than the sampler's if not given.

    Raises:
        UserError: no source, a bad weight, a store that cannot be read, or one without a usable sequence; surroundings
            of frames that are not consecutive; absence where each frame leads to the next.
    """

    def __init__(
        self,
        sources: Sequence[StoreSource],
        sampler: ClipSampler,
        transform: ClipTransform,
        clips_per_epoch: int,
        seed: int = 0,
        on_broken: Literal["stop", "skip"] = "stop",
        workers: int = 0,
        absence: Absence | None = None,
    ) -> None:
        self.sampler = sampler
        self.transform = transform
        self.absence = absence or Absence()
        self.clips_per_epoch = clips_per_epoch
        self.seed = seed
        self.on_broken = on_broken
        self.still_motion = transform.augmentation.still_motion
        self._require_consistency()
        if not sources:
            raise UserError("No clip store to train on: give data.train at least one path.")
        weights = np.array([source.weight for source in sources], np.float64)
        if not (np.isfinite(weights) & (weights >= 0)).all() or not 0 < weights.sum() < np.inf:
            raise UserError("The weights of data.train must be finite and not negative, and one must be positive.")
        self.odds = weights / weights.sum()
        self.stores = [open_store(source.path) for source in sources]
        self.usable = [self._usable(store, source) for store, source in zip(self.stores, sources, strict=True)]
        # One place for every worker process, so that none overwrites another's count.
        self._skipped = torch.zeros(max(workers, 1), dtype=torch.int64).share_memory_()

    def _require_consistency(self) -> None:
        """Refuse settings of sampler, transform and absence that do not go together."""
        has_surroundings = self.transform.surroundings_crop is not None
        if has_surroundings and not self.sampler.consecutive:
            raise UserError(
                f"data.surroundings needs consecutive frames, which data.sampler {type(self.sampler).__name__} does "
                "not draw: use relo.data.sampler.ConsecutiveSampler, or leave data.surroundings out."
            )
        is_around_previous = self.transform.augmentation.search_around == "previous"
        if self.absence != Absence() and (has_surroundings or is_around_previous):
            raise UserError(
                "data.absence replaces single search frames, from which no next search region follows: leave it out "
                "where data.surroundings is set, or data.augmentation.search_around is previous."
            )

    def _usable(self, store: ClipStore | JoinedStores, source: StoreSource) -> NDArray[np.int64]:
        """The numbers of the sequences of a source that can give a clip."""
        numbers = range(len(store))[source.start : source.stop]
        usable = store.visibility().accepted(self._accepts)
        usable = usable[(usable >= numbers.start) & (usable < numbers.stop)]
        if not len(usable):
            raise UserError(
                f"None of the {len(numbers)} sequences of {store.path} that data.train names can give a clip: they are "
                "too short, or show their targets too rarely, for the sampler."
            )
        return usable

    def _accepts(self, visible: NDArray[np.bool_]) -> bool:
        is_moved = self.still_motion and len(visible) == 1
        return self.sampler.accepts(np.repeat(visible, MOVING_FRAMES) if is_moved else visible)

    @property
    def skipped(self) -> int:
        """Clips given up so far because of a broken record, over all workers of this rank."""
        return int(self._skipped.sum())

    def __len__(self) -> int:
        return self.clips_per_epoch

    def __getitem__(self, index: int) -> ClipBatch:
        """Clip number `index`, as a batch of one.

        Raises:
            UserError: a record cannot be read or decoded (the message names dataset, sequence and frame), or no clip
                can be drawn.
        """
        rng = np.random.default_rng([self.seed, index])
        problem = "have no box on the frame before: set data.augmentation.search_around to truth"
        for _ in range(_ATTEMPTS):
            try:
                clip = self._draw(rng)
            except UserError as error:
                if self.on_broken == "stop":
                    raise
                worker = get_worker_info()
                self._skipped[0 if worker is None else worker.id] += 1
                warnings.warn(f"Another clip replaces a broken one: {error}", stacklevel=2)
                problem = "are broken: run `relo data verify` on the stores"
            else:
                if clip is not None:
                    return clip
        raise UserError(f"{_ATTEMPTS} clips in a row {problem}.")

    def _draw(self, rng: np.random.Generator) -> ClipBatch | None:
        """A clip: a sequence, its frames and boxes, the crops; None where crops need the box of a frame without one."""
        sequence = self._draw_sequence(rng)
        clip = self.sampler.sample(sequence.visible, rng)
        clip, outside, foreign = self._draw_absence(sequence, clip, rng)
        is_around_previous = self.transform.augmentation.search_around == "previous" and len(sequence.visible) > 1
        if is_around_previous:
            previous_xywh = sequence.attributes["image_boxes_xywh"][clip.previous]
            if (clip.previous < 0).any() or not positive_size(previous_xywh).all():
                return None

        is_grey, is_mirrored = self.transform.joint(rng)
        offset = self.transform.augmentation.mirror_offset if is_mirrored else 0.0
        images = {int(i): _decoded(sequence, int(i), is_grey) for i in {*clip.templates, *clip.search}}
        # Where the target is hidden, crops are cut around its nearest visible box.
        nearest = nearest_visible(sequence.visible)
        template_frames = [images[int(i)] for i in clip.templates]
        template_boxes_xywh = _boxes_in_frames(sequence, nearest[clip.templates], clip.templates, offset)
        search_frames = [images[int(i)] for i in clip.search]
        boxes_xywh = _boxes_in_frames(sequence, nearest[clip.search], clip.search, offset)
        for t, (other, frame) in foreign.items():
            search_frames[t] = _decoded(other, frame, is_grey)
            boxes_xywh[t : t + 1] = _boxes_in_frames(other, np.array([frame]), np.array([frame]), offset)
        around_xywh = _boxes_in_frames(sequence, clip.previous, clip.search, offset) if is_around_previous else None
        present = sequence.visible[clip.search]
        present[[*outside, *foreign]] = False

        templates, template_boxes_xywh = self.transform.templates(
            template_frames, template_boxes_xywh, is_mirrored, rng
        )
        searches, search_boxes_xywh = self.transform.searches(
            search_frames, boxes_xywh, is_mirrored, rng, around_xywh, outside
        )
        surroundings = None
        if self.transform.surroundings_crop is not None:
            squares, squares_xywh = self.transform.surroundings(search_frames, boxes_xywh, is_mirrored, rng)
            surroundings = _surroundings(sequence, clip, squares, squares_xywh, is_mirrored)
        return ClipBatch(
            template_images=_normalised(templates)[None],
            template_boxes_xywh=template_boxes_xywh.float()[None],
            search_images=_normalised(searches)[None],
            search_boxes_xywh=search_boxes_xywh.float()[None],
            present=torch.from_numpy(present)[None],
            sequence_id=[f"{sequence.dataset}/{sequence.name}"],
            frame_index=torch.from_numpy(clip.search)[None],
            surroundings=surroundings,
        )

    def _draw_sequence(self, rng: np.random.Generator) -> AnnotatedSequence:
        which = int(rng.choice(len(self.stores), p=self.odds))
        sequence = self.stores[which][int(rng.choice(self.usable[which]))]
        if not self._accepts(sequence.visible):
            raise UserError(
                f"The record 'visible' of {sequence.dataset}/{sequence.name} in {self.stores[which].path} is not what "
                "the store's table says of it: pack the dataset again."
            )
        if self.still_motion and len(sequence.visible) == 1:
            still = sequence
            sequence = in_motion(still, self.still_motion, rng)
            if not self.sampler.accepts(sequence.visible):  # the target is out of view too often
                sequence = in_motion(still, 0.0, rng)
            if not sequence.visible.any():
                raise UserError(
                    f"The box of {sequence.dataset}/{sequence.name} in {self.stores[which].path} has its centre "
                    "outside its image, so that no motion shows the target: correct it, and pack the dataset again."
                )
        return sequence

    def _draw_absence(
        self, sequence: AnnotatedSequence, clip: ClipFrames, rng: np.random.Generator
    ) -> tuple[ClipFrames, list[int], dict[int, tuple[AnnotatedSequence, int]]]:
        """Which of a clip's search frames shall not show the target.

        Returns:
            The clip, with frames that hide the target in place of some search frames; the numbers of the search frames
            whose crops are cut elsewhere; and by number the sequence and the frame that take the place of another.
        """
        search = clip.search.copy()
        outside: list[int] = []
        foreign: dict[int, tuple[AnnotatedSequence, int]] = {}
        hidden = np.flatnonzero(~sequence.visible)
        for t, kind in enumerate(self.absence.draw(len(clip.search), rng)):
            if kind == "hidden" and len(hidden):
                search[t] = rng.choice(hidden)
            elif kind == "outside":
                outside.append(t)
            elif kind == "foreign":
                other = self._draw_sequence(rng)
                if (other.dataset, other.name) != (sequence.dataset, sequence.name):
                    foreign[t] = other, int(rng.choice(np.flatnonzero(other.visible)))
        return replace(clip, search=search), outside, foreign


def _decoded(sequence: AnnotatedSequence, frame: int, is_grey: bool) -> Image:
    image = sequence.frames[frame]
    return grey(image) if is_grey else image


def _normalised(crops: NDArray[np.float32]) -> Tensor:
    """Crops [N, H, W, 3], 0 to 255, as a network takes them: [N, 3, H, W]."""
    return normalise_crops(torch.from_numpy(crops).movedim(-1, -3))


def _boxes_in_frames(
    sequence: AnnotatedSequence, annotated: NDArray[np.int64], frames: NDArray[np.int64], mirror_offset: float
) -> Tensor:
    """The boxes [K, 4] that were annotated on some frames [K], in pixels of other packed frames [K] of the sequence.

    They are displaced so that, once mirrored, they are off by `mirror_offset` pixels of the image.

    Raises:
        UserError: an annotated box is no box.
    """
    boxes_xywh = sequence.attributes["image_boxes_xywh"][annotated] - [mirror_offset, 0, 0, 0]
    if not (good := positive_size(boxes_xywh)).all():
        wrong = int(annotated[~good][0])
        raise UserError(f"{sequence.frames.name(wrong)} has a visible target and no box: pack the dataset again.")
    return torch.from_numpy(to_packed(boxes_xywh, sequence.attributes["geometry"][frames]))


def _surroundings(
    sequence: AnnotatedSequence, clip: ClipFrames, squares: Image, squares_xywh: Tensor, is_mirrored: bool
) -> Surroundings:
    """Squares [T, Hs, Hs, 3], cut at boxes [T, 4] of the packed search frames, as surroundings of a batch of one."""
    assert clip.start is not None
    facts = sequence.attributes
    nearest = nearest_visible(sequence.visible)[[clip.start, *clip.search]]
    truth_xywh = torch.from_numpy(facts["image_boxes_xywh"][nearest])  # [1 + T, 4]
    sizes = torch.from_numpy(facts["image_sizes"][clip.search].astype(np.int64))
    squares_xywh = to_image(squares_xywh, torch.from_numpy(facts["geometry"][clip.search]))
    if is_mirrored:
        widths = sizes[:, 0]
        squares_xywh = mirror_xywh(squares_xywh, widths)
        # The start frame is not read; the images of a video are of one size.
        truth_xywh = mirror_xywh(truth_xywh, torch.cat([widths[:1], widths]))
    scales = squares.shape[1] / squares_xywh[:, 2:]
    return Surroundings(
        images=rearrange(torch.from_numpy(squares), "frames h w rgb -> 1 frames rgb h w").contiguous(),
        geometry=torch.cat([squares_xywh[:, :2], scales], dim=-1)[None],
        boxes_xywh=truth_xywh[None, 1:],
        first_box_xywh=truth_xywh[:1],
        image_sizes=sizes[None],
    )


class ClipNumbers(DistributedSampler[int]):
    """The numbers of an epoch's clips for one rank: every `ranks`-th, so that a step sees the same clips for any ranks.

    A `DistributedSampler`, so that Lightning leaves it in place and sets its epoch. Clips that do not fill a batch
    on every rank are left out.
    """

    def __init__(self, dataset: ClipDataset, batch_size: int, ranks: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False, drop_last=True)
        self.batch_size = batch_size
        self.clips_per_epoch = len(dataset)
        self.num_samples = len(dataset) // (ranks * batch_size) * batch_size
        self.resumed_epoch, self.batches_seen = 0, 0

    def resume(self, epoch: int, batches: int) -> None:
        """Start with epoch `epoch`, and leave out its first `batches` batches."""
        self.resumed_epoch, self.batches_seen = epoch, batches
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.clips_per_epoch + self.rank
        seen = self.batches_seen * self.batch_size if self.epoch == self.resumed_epoch else 0
        return iter(range(first, first + self.num_samples * self.num_replicas, self.num_replicas)[seen:])

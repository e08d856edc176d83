"""The LightningDataModule: clips to train on, whole sequences to validate on."""

import multiprocessing
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, cast

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from relo.data.clip_batch import ClipBatch
from relo.data.clip_dataset import ClipDataset, ClipNumbers, StoreSource
from relo.data.loader_worker import StartMethod, share_imports, start_method, start_worker
from relo.data.parallel import not_started
from relo.data.photometric import ImageOnlyTransform
from relo.data.recipe_stores import require_stores
from relo.data.sampler import Absence, ClipSampler, OrderSampler
from relo.data.sequence_checks import require_every_box
from relo.data.sequences import open_reader
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.base import SequenceReader
from relo.data.store_parts import open_store
from relo.data.transforms import Augmentation, ClipTransform
from relo.errors import UserError, excerpt
from relo.geometry import CropRule
from relo.settings import check_whole

_AUGMENTATION = Augmentation()
_ABSENCE = Absence()
_MOST_SURROUNDINGS = 64

_WORKER_ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited)")


@dataclass(frozen=True)
class SequenceSource:
    """Whole sequences to track.

    Attributes:
        path: a clip store, or the root of a dataset.
        dataset: the dataset's name (see `relo.data.sequences.DATASETS`) if the path is a root; none for a clip store.
        split: a split of the dataset.
        start: the first sequence to use.
        stop: the first not to use any more; all to the end by default.
    """

    path: str
    dataset: str | None = None
    split: str | None = None
    start: int = 0
    stop: int | None = None


class TrackingDataModule(lightning.LightningDataModule):
    """Streams clips from clip stores by weights; the stream is the same for any number of workers and ranks.

    Args:
        train: the clip stores to draw clips from, and how often.
        validation: the sequences to track in validation.
        template_crop: how template crops are cut; the command line takes it from the module's tracking rule.
        search_crop: how search crops are cut; the command line takes it from the module's tracking rule.
        sampler: which frames make a clip.
        augmentation: what is changed at random, and where search crops are cut.
        photometric: further albumentations transforms of the crops' pixels.
        surroundings: side of the square around the target that clips carry for closed-loop rollouts, as a multiple
            of sqrt(w h), such as 8; it needs a sampler of consecutive frames, and no image is mirrored on its own.
        absence: how often search frames do not show the target, for a presence head to learn from; never by
            default, but for what the sampler draws.
        clips_per_epoch: clips in an epoch, over all ranks.
        batch_size: clips in a batch of one rank.
        workers: processes that prepare clips, for each rank.
        multiprocessing_context: how they are started; if not given, the platform's way, but by a fork server where
            that is a fork and there are several ranks, whose threads a fork would endanger.
        validation_batch: sequences that are tracked side by side.
        on_broken: what a frame that cannot be decoded does: stop the run, or be skipped and counted.
        seed: of the stream of clips.

    Raises:
        UserError: a number out of its range; surroundings that are smaller than a search region.
    """

    def __init__(
        self,
        train: list[StoreSource] | None = None,
        validation: list[SequenceSource] | None = None,
        template_crop: CropRule | None = None,
        search_crop: CropRule | None = None,
        sampler: ClipSampler | None = None,
        augmentation: Augmentation = _AUGMENTATION,
        photometric: list[ImageOnlyTransform] | None = None,
        surroundings: float | None = None,
        absence: Absence = _ABSENCE,
        clips_per_epoch: int = 100_000,
        batch_size: int = 8,
        workers: int = 2,
        multiprocessing_context: StartMethod | None = None,
        validation_batch: int = 16,
        on_broken: Literal["stop", "skip"] = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_whole("The data", 1, 2**40, clips_per_epoch=clips_per_epoch)
        check_whole("The data", 1, 2**16, batch_size=batch_size, validation_batch=validation_batch)
        check_whole("The data", 0, 1024, workers=workers)
        check_whole("The data", 0, 2**63 - 1, seed=seed)
        self.train_sources = train or []
        self.validation_sources = validation or []
        search_crop = search_crop or CropRule(4.0, 256)
        surroundings_crop = None
        if surroundings is not None:
            if not search_crop.factor <= surroundings <= _MOST_SURROUNDINGS:
                raise UserError(
                    f"data.surroundings must be at least {search_crop.factor:g}, the factor of the search region that "
                    f"is cut from them, and at most {_MOST_SURROUNDINGS}, not {surroundings:g}."
                )
            # A search crop that is cut from them keeps its resolution.
            surroundings_crop = CropRule(surroundings, round(search_crop.size * surroundings / search_crop.factor))
        template_crop = template_crop or CropRule(2.0, 128)
        transform = ClipTransform(template_crop, search_crop, augmentation, photometric or (), surroundings_crop)
        self._open_clips = partial(
            ClipDataset,
            sources=self.train_sources,
            sampler=sampler or OrderSampler(),
            transform=transform,
            clips_per_epoch=clips_per_epoch,
            seed=seed,
            on_broken=on_broken,
            workers=workers,
            absence=absence,
        )
        self.clips: ClipDataset | None = None
        self.batch_size = batch_size
        self.workers = workers
        self.multiprocessing_context = multiprocessing_context
        self.validation_batch = validation_batch

    def setup(self, stage: str) -> None:
        """Open the clip stores to train on.

        Raises:
            UserError: a store to train on or to validate on is absent; those to train on are not what they should be.
        """
        is_validated = self.trainer is None or self.trainer.limit_val_batches
        require_stores(
            ({"data.train": self.train_sources} if stage == "fit" else {})
            | ({"data.validation": self.validation_sources} if is_validated else {})
        )
        if stage == "fit" and self.clips is None:
            self.clips = self._open_clips()

    def train_dataloader(self) -> "ClipLoader":
        """Batches of clips; a run resumed within an epoch goes on with the clips it has not seen."""
        assert self.clips is not None
        ranks, rank = self._ranks()
        numbers = ClipNumbers(self.clips, self.batch_size, ranks, rank)
        if not len(numbers):
            raise UserError(
                f"An epoch of {len(self.clips)} clips does not fill one batch of {self.batch_size} on {ranks} "
                "process(es): raise data.clips_per_epoch."
            )
        method = start_method(self.multiprocessing_context, ranks) if self.workers else None
        if method == "forkserver":
            share_imports()
        numbers.resume(*self._progress())
        return ClipLoader(
            self.clips,
            batch_size=self.batch_size,
            sampler=numbers,
            num_workers=self.workers,
            collate_fn=ClipBatch.stack,
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
            persistent_workers=self.workers > 0,
            multiprocessing_context=method,
            worker_init_fn=start_worker,
        )

    def val_dataloader(self) -> DataLoader[AnnotatedSequence | None]:
        """Lists of sequences; a rank that has none gets an empty list, as the others wait for it at the end."""
        sequences = SequenceDataset(self.validation_sources)
        sampler = SequenceShard(sequences, *self._ranks())
        return DataLoader(sequences, batch_size=self.validation_batch, sampler=sampler, collate_fn=_present)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Clips go to the device; sequences stay, their frames are decoded when the tracker asks."""
        return batch.to(device, non_blocking=True) if isinstance(batch, ClipBatch) else batch

    def teardown(self, stage: str) -> None:
        """Say how many clips were skipped."""
        if self.clips is not None and self.clips.skipped:
            warnings.warn(f"{self.clips.skipped} broken clips were skipped.", stacklevel=1)

    def _ranks(self) -> tuple[int, int]:
        """The number of ranks, and ours."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _progress(self) -> tuple[int, int]:
        """The epoch to start with and how many of its batches are done: other than 0, 0 only where a run is resumed.

        Lightning restores these counts, but leaves it to the loader to go on from there.
        """
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop
        epochs = cast(Any, loop.epoch_progress.current)
        batches = cast(Any, loop.epoch_loop.batch_progress)
        if batches.is_last_batch and batches.current.processed == batches.current.ready:
            return epochs.started, 0  # its validation may have been under way
        return epochs.processed, batches.current.processed


class ClipLoader(DataLoader[ClipBatch]):
    """A loader from which a run can be resumed in the middle of an epoch; Lightning asks for its state."""

    def __iter__(self) -> Any:
        """Start, or go on with, the processes that prepare batches.

        Raises:
            UserError: none could be started.
        """
        try:
            if self.num_workers:
                multiprocessing.Lock()  # before torch makes its own: halfway it would print a traceback, too
            return super().__iter__()
        except OSError as error:
            raise not_started(error, "lower data.workers", "set data.workers to 0") from error

    def state_dict(self) -> dict[str, int]:
        """What must be the same for a resumed run to go on with the clips that were not seen.

        Nothing where Lightning put another sampler, as it does for `overfit_batches`: every epoch is then the same.
        """
        assert isinstance(self.dataset, ClipDataset)
        if not isinstance(self.sampler, ClipNumbers):
            return {}
        return {
            "seed": self.dataset.seed,
            "clips_per_epoch": len(self.dataset),
            "clips_per_step": self.sampler.batch_size * self.sampler.num_replicas,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Check a checkpoint's settings against ours.

        Raises:
            UserError: the run stopped within an epoch, and would now see some clips twice and others never.
        """
        ours = self.state_dict()
        changed = [name for name in ours if state.get(name) != ours[name]]
        if changed and isinstance(self.sampler, ClipNumbers) and self.sampler.batches_seen:
            theirs = ", ".join(f"{name} {state.get(name)} (now {ours[name]})" for name in changed)
            raise UserError(
                f"The checkpoint is from the middle of an epoch, with {theirs}: resume with the same, "
                "or from a checkpoint of an epoch's end."
            )


class SequenceDataset(Dataset[AnnotatedSequence | None]):
    """The sequences of several sources, one after the other.

    Where a source has sequences of another's dataset and names, as made ones may, its folder's name is put behind the
    dataset's: results and scores are filed under both.

    Raises:
        UserError: a source cannot be read, is a store whose frames were cut around the targets, names a split without
            a dataset, has none of the sequences that it names, or no boxes but the first; or one is named twice.
    """

    def __init__(self, sources: Sequence[SequenceSource]) -> None:
        self.members: list[tuple[SequenceReader, int, str]] = []  # with what the dataset is called
        taken: dict[tuple[str, str], Path] = {}  # the folders of sequences, by dataset and name
        for source in sources:
            reader: SequenceReader
            if source.dataset is not None:
                reader = open_reader(source.dataset, source.path, source.split)
            elif source.split is not None:
                raise UserError(
                    f"data.validation names the split {source.split!r} of {source.path}, but no dataset: a clip store "
                    "has no splits, and a dataset's root needs the dataset's name."
                )
            else:
                reader = store = open_store(source.path)
                if store.options.cut is not None:
                    raise UserError(
                        f"The frames in {source.path} were cut around the targets, which gives them away: for "
                        "tracking, pack the dataset without `cut`."
                    )
            numbers = range(len(reader))[source.start : source.stop]
            if not numbers:
                raise UserError(
                    f"data.validation names none of the {len(reader)} sequences of {source.path}: change its start "
                    "or stop."
                )
            require_every_box(reader[numbers[0]])  # before hours of training: of some splits, no sequence has them all
            dataset, names = reader.dataset, reader.names[source.start : source.stop]
            folder = Path(source.path).resolve()
            others = {taken[dataset, name] for name in names if (dataset, name) in taken}
            if others and folder not in others:
                dataset = f"{dataset}_{folder.name}"
            if again := [name for name in names if (dataset, name) in taken]:
                raise UserError(
                    f"data.validation has two sequences {excerpt(again[0])} of {dataset}: name each once, and give "
                    "folders of one dataset different names."
                )
            taken |= {(dataset, name): folder for name in names}
            self.members += [(reader, number, dataset) for number in numbers]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> AnnotatedSequence | None:
        """The sequence number `index`, or nothing for `NO_SEQUENCE`.

        Raises:
            UserError: it cannot be read, or not every frame has a box to be scored by.
        """
        if index == NO_SEQUENCE:
            return None
        reader, number, dataset = self.members[index]
        sequence = reader[number]
        require_every_box(sequence)
        return replace(sequence, dataset=dataset)


NO_SEQUENCE = -1
"""The number that stands for none."""


class SequenceShard(DistributedSampler[int]):
    """Every `ranks`-th sequence, or `NO_SEQUENCE` alone where that is none.

    Unlike its base class it repeats none, so ranks may have one more than others.
    """

    def __init__(self, dataset: SequenceDataset, ranks: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.numbers = range(len(dataset))[rank::ranks] or [NO_SEQUENCE]

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def _present(sequences: Sequence[AnnotatedSequence | None]) -> list[AnnotatedSequence]:
    return [sequence for sequence in sequences if sequence is not None]


@contextmanager
def named_workers() -> Iterator[None]:
    """Say which process of a loader was killed.

    Raises:
        UserError: a process was killed.
    """
    try:
        yield
    except Exception as error:  # torch raises wherever the main thread is, and there another error may follow
        found = map(_WORKER_ENDED.search, (str(cause) for cause in _with_contexts(error)))
        ended = next(filter(None, found), None)
        if isinstance(error, UserError) or (ended is None and not _is_of_a_worker(error)):
            raise
        who, how, why = "A process", "was killed", "possibly out of memory"
        if ended is not None:
            who, how = f"Process {ended[1]}", f"was killed ({ended[2]})" if ended[2] else "ended before its time"
            why = "shared memory (/dev/shm) is full" if ended[2] == "Bus error" else why
        raise UserError(
            f"{who}, which prepared clips, {how}, {why}: lower data.workers or data.batch_size; what was "
            "saved is kept, and --ckpt_path last goes on from it."
        ) from error


def _is_of_a_worker(error: Exception) -> bool:
    """Whether a process of a loader was gone while its tensors were handed over, before torch knew of its end."""
    modules = (frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__))
    return isinstance(error, (ConnectionError, EOFError)) and "multiprocessing.connection" in modules


def _with_contexts(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those in whose handling it came."""
    while error is not None:
        yield error
        error = error.__context__

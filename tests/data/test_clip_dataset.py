"""Clips by number, the same for any workers and ranks; whole sequences for validation."""

import multiprocessing
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_sequences import FakeReader

from relo.commands.main import main
from relo.data.clip_batch import ClipBatch
from relo.data.clip_dataset import ClipDataset, ClipNumbers, StoreSource
from relo.data.clip_store import ClipStoreWriter, PackedFrames, PackingOptions
from relo.data.datamodule import SequenceSource, TrackingDataModule
from relo.data.frame_geometry import to_packed
from relo.data.frame_packing import pack_frames
from relo.data.packing import pack
from relo.data.sampler import ClipFrames, ClipSampler, ConsecutiveSampler, OrderSampler
from relo.data.store_environment import closed
from relo.data.transforms import Augmentation, ClipTransform
from relo.errors import UserError
from relo.geometry import CropRule, mirror_xywh
from relo.images import normalise_images

TRANSFORM = ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32))


def dataset(*sources, sampler=None, clips=12, transform=TRANSFORM, **settings):
    return ClipDataset(sources, sampler or OrderSampler(1, 2), transform, clips, **settings)


def datamodule(store, **changes):
    settings = {
        "train": [StoreSource(str(store.path))],
        "validation": [SequenceSource(str(store.path))],
        "template_crop": CropRule(2.0, 16),
        "search_crop": CropRule(4.0, 32),
        "sampler": OrderSampler(1, 2),
        "clips_per_epoch": 12,
        "batch_size": 2,
        "workers": 0,
    }
    module = TrackingDataModule(**(settings | changes))
    module.setup("fit")
    return module


def batches(module):
    """All batches of an epoch; ends the workers as a trainer does, also when they raise."""
    loader = module.train_dataloader()
    try:
        return list(loader)
    finally:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()


def same(first, second):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
    )


def test_a_clip_is_what_the_contract_says(store):
    sampler = OrderSampler(templates=2, search_frames=3)
    clip = dataset(StoreSource(str(store.path)), sampler=sampler)[5]
    assert clip.template_images.shape == (1, 2, 3, 16, 16)
    assert clip.search_images.shape == (1, 3, 3, 32, 32)
    assert clip.search_images.dtype == clip.search_boxes_xywh.dtype == torch.float32
    assert clip.template_boxes_xywh.shape == (1, 2, 4)
    assert clip.search_boxes_xywh.shape == (1, 3, 4)
    assert (clip.present.dtype, clip.present.shape, clip.present.all()) == (torch.bool, (1, 3), True)
    assert clip.frame_index.dtype == torch.int64
    assert clip.sequence_id[0] in {"fake/video 0", "fake/video 1", "fake/video 2"}
    batch = ClipBatch.stack([clip, clip])
    assert len(batch) == 2
    assert batch.search_images.shape == (2, 3, 3, 32, 32)


def test_pixels_are_of_the_frames_that_the_clip_names(store):
    still = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
    clips = dataset(
        StoreSource(str(store.path)), transform=ClipTransform(CropRule(2.0, 16), CropRule(6.0, 64), still), clips=8
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for i in range(8):
        clip = clips[i]
        number = int(clip.sequence_id[0][-1])
        for image, frame, box_xywh in zip(
            clip.search_images[0], clip.frame_index[0].tolist(), clip.search_boxes_xywh[0], strict=True
        ):
            pixels = (image.permute(1, 2, 0) * std + mean) * 255
            x, y, w, h = (box_xywh * 64).tolist()
            background = pixels[int(y + h / 2), int(x + w + 4)]
            torch.testing.assert_close(background, torch.tensor([40.0 * number, 4.0 * frame, 128.0]), atol=8, rtol=0)
            assert pixels[int(y + h / 2), int(x + w / 2)].min() > 245


def test_cut_stores_give_clips_of_the_same_targets(store, cut_store):
    still = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
    transform = ClipTransform(CropRule(2.0, 16), CropRule(2.5, 32), still)
    whole = dataset(StoreSource(str(store.path)), transform=transform)
    cut = dataset(StoreSource(str(cut_store.path)), transform=transform)
    for i in range(6):
        # A packed frame is scaled down, so a crop's whole-pixel side differs a little.
        torch.testing.assert_close(whole[i].search_boxes_xywh, cut[i].search_boxes_xywh, atol=0.06, rtol=0)
        assert whole[i].sequence_id == cut[i].sequence_id


def test_sources_are_drawn_from_by_weight(store, tmp_path):
    other = pack(FakeReader(tmp_path / "other", sequences=1), tmp_path / "other_store")
    clips = dataset(
        StoreSource(str(store.path), weight=3.0, start=1), StoreSource(str(other.path), weight=1.0, stop=1), clips=1200
    )
    sampled = [clips[i].sequence_id[0] for i in range(1200)]
    share = np.mean([name == "fake/video 0" for name in sampled])
    assert abs(share - 0.25) < 0.04
    assert abs(np.mean([name == "fake/video 1" for name in sampled]) - 0.375) < 0.05


def test_stream_does_not_depend_on_workers(store):
    alone = batches(datamodule(store))
    assert len(alone) == 6
    for context, workers in (("fork", 3), ("spawn", 1), ("forkserver", 1)):
        several = batches(datamodule(store, workers=workers, multiprocessing_context=context))
        assert all(same(a, b) for a, b in zip(alone, several, strict=True)), context


def test_of_several_ranks_workers_are_not_forked(store, monkeypatch):
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("nothing is forked here by default")

    def method(**settings):
        return datamodule(store, workers=1, **settings).train_dataloader().multiprocessing_context

    assert method() is None
    monkeypatch.setattr(TrackingDataModule, "_ranks", lambda self: (2, 0))
    assert method().get_start_method() == "forkserver"
    assert method(multiprocessing_context="fork").get_start_method() == "fork"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's table of processes")
def test_no_worker_outlives_a_killed_trainer(store, tmp_path):
    program = tmp_path / "train.py"
    program.write_text(
        "import sys, multiprocessing, os, signal\n"
        "from relo.data.datamodule import StoreSource, TrackingDataModule\n"
        "if __name__ == '__main__':\n"
        "    data = TrackingDataModule([StoreSource(sys.argv[1])], batch_size=1, clips_per_epoch=9, workers=2,\n"
        "                              multiprocessing_context='forkserver')\n"
        "    data.setup('fit')\n"
        "    batches = iter(data.train_dataloader())\n"
        "    next(batches)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The pipe is open for as long as a process that has it lives: the fork server's and the workers' as well.
    done = subprocess.run([sys.executable, program, str(store.path)], stdout=subprocess.PIPE, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == 2
    deadline = time.monotonic() + 10
    while (left := [n for n in map(int, done.stdout.split()) if is_running(n)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def is_running(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_step_sees_the_same_clips_for_any_ranks(store):
    clips = dataset(StoreSource(str(store.path)), clips=26)

    def steps(ranks, batch_size, epoch):
        numbers = []
        for rank in range(ranks):
            sampler = ClipNumbers(clips, batch_size, ranks, rank)
            sampler.set_epoch(epoch)
            numbers.append(np.array(list(sampler)).reshape(-1, batch_size))
            assert len(sampler) == numbers[-1].size
        return [set(step.ravel().tolist()) for step in np.stack(numbers, axis=1)]

    assert steps(1, 4, 3) == steps(2, 2, 3) == steps(4, 1, 3)
    assert set.union(*steps(2, 2, 3)) == set(range(3 * 26, 3 * 26 + 24))
    assert not set.union(*steps(1, 4, 0)) & set.union(*steps(1, 4, 1))


def test_seed_and_epoch_change_the_clips(store):
    first, other = (dataset(StoreSource(str(store.path)), seed=seed) for seed in (0, 1))
    assert same(first[3], dataset(StoreSource(str(store.path)), seed=0)[3])
    assert not same(first[3], other[3])
    assert not same(first[3], first[3 + 12])


def test_dataset_can_be_pickled(store):
    clips = dataset(StoreSource(str(store.path)))
    twin = pickle.loads(pickle.dumps(clips))
    assert same(twin[7], clips[7])


class Everything(ClipSampler):
    """Frames whether they show the target or not."""

    templates, search_frames = 1, 3

    def accepts(self, visible):
        return True

    def sample(self, visible, rng):
        return ClipFrames(np.array([0]), np.array([5, 6, 7]))  # 6 is hidden


def test_hidden_frames_are_marked_and_cut_around_the_nearest_box(store, reader):
    still = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
    clip = dataset(
        StoreSource(str(store.path)),
        sampler=Everything(),
        transform=ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32), still),
    )[0]
    assert clip.present.tolist() == [[True, False, True]]
    rule = CropRule(4.0, 32)
    nearest = torch.from_numpy(reader[0].boxes_xywh[[5, 5, 7]])
    torch.testing.assert_close(clip.search_boxes_xywh[0], rule.to_crop(nearest, rule.region(nearest)).float())


# ------------------------------------------------------------------------------------ crops around the previous truth

AROUND_PREVIOUS = Augmentation(grey=0, clip_flip=0, image_flip=0, brightness=0, search_around="previous")


class Gone(FakeReader):
    """Hidden targets have a box without a size, but on the 14th frame, where one is annotated."""

    def boxes_xywh(self):
        return super().boxes_xywh() + np.array([0.3, 0.2, 0, 0])

    def __getitem__(self, index):
        sequence = super().__getitem__(index)
        sequence.boxes_xywh[~sequence.visible & (np.arange(len(sequence)) != 13), 2:] = 0
        return sequence


@pytest.fixture(params=["whole", "cut"])
def gone(request, tmp_path):
    options = PackingOptions() if request.param == "whole" else PackingOptions(cut=8.0, max_side=32)
    return pack(Gone(tmp_path / "gone", sequences=2), tmp_path / "packed", options=options)


@pytest.mark.parametrize("sampler", [OrderSampler(1, 4), ConsecutiveSampler(1, 3, max_stride=2)])
def test_searches_surround_the_truth_of_the_frame_before(gone, tmp_path, sampler):
    """Frame by frame: clips with gaps, backwards and at strides, of whole frames and of packed ones."""
    rule = CropRule(4.0, 32)
    clips = dataset(
        StoreSource(str(gone.path)), sampler=sampler, transform=ClipTransform(CropRule(2.0, 16), rule, AROUND_PREVIOUS)
    )
    annotated_xywh = Gone(tmp_path / "gone", sequences=1)[0].boxes_xywh
    sequence, firsts = gone[0], set()
    for index in range(120):
        clip = clips[index]
        frames = clip.frame_index[0].numpy()
        before = frames[0] - (frames[1] - frames[0] if sampler.consecutive else 1)
        previous = np.array([before, *frames[:-1]])
        around_xywh, truth_xywh = annotated_xywh[previous], annotated_xywh[frames]
        assert (around_xywh[:, 2:] > 0).all()
        if not sequence.visible[frames].all():
            continue  # what is cut around is known, but not the truth
        if "geometry" in sequence.attributes:
            geometry = sequence.attributes["geometry"][frames]
            around_xywh, truth_xywh = to_packed(around_xywh, geometry), to_packed(truth_xywh, geometry)
        regions = rule.region(torch.from_numpy(around_xywh))
        expected_xywh = rule.to_crop(torch.from_numpy(truth_xywh), regions)
        torch.testing.assert_close(clip.search_boxes_xywh[0], expected_xywh.float(), atol=1e-5, rtol=0)
        firsts.add(int(frames[0]))
    if not sampler.consecutive:
        hidden = {6, 13, 20}
        # No clip starts with the video's first frame, or behind a frame without a box.
        assert firsts == set(range(24)) - hidden - {0, 7, 21}


def test_stills_are_jittered_instead(tmp_path):
    still = pack(FakeReader(tmp_path / "still", sequences=1, frames=1), tmp_path / "packed")
    clips = [
        dataset(
            StoreSource(str(still.path)), transform=ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32), augmentation)
        )
        for augmentation in (AROUND_PREVIOUS, replace(AROUND_PREVIOUS, search_around="truth"))
    ]
    assert all(same(clips[0][index], clips[1][index]) for index in range(5))
    assert clips[0][0].search_boxes_xywh.unique(dim=1).shape[1] == 2


def test_videos_with_a_first_box_alone_are_stills(tmp_path):
    class Started(FakeReader):
        def __getitem__(self, index):
            sequence = super().__getitem__(index)
            return replace(sequence, boxes_xywh=sequence.boxes_xywh[:1], visible=sequence.visible[:1], attributes={})

    store = pack(Started(tmp_path / "fake", sequences=1), tmp_path / "packed")
    transform = ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32), AROUND_PREVIOUS)
    assert dataset(StoreSource(str(store.path)), transform=transform)[0].present.all()


class First(OrderSampler):
    """Clips of the first frame alone."""

    def sample(self, visible, rng):
        return ClipFrames(np.array([0]), np.array([0]))


def test_clips_that_no_frame_precedes_end_in_a_sentence(store):
    transform = ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32), AROUND_PREVIOUS)
    clips = dataset(StoreSource(str(store.path)), sampler=First(1, 1), transform=transform)
    with pytest.raises(UserError, match=r"no box on the frame before: set data\.augmentation\.search_around to truth"):
        clips[0]


@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_mirrored_boxes_can_be_off_as_in_the_release(gone, offset):
    """The release's W - 1 - x - w lies a pixel to the left of where the mirrored target is seen."""
    rule = CropRule(4.0, 32, released=True)
    mirrored = Augmentation(
        center_jitter=0, scale_jitter=0, grey=0, clip_flip=1, image_flip=0, brightness=0, mirror_offset=offset
    )
    clips = dataset(StoreSource(str(gone.path)), transform=ClipTransform(CropRule(2.0, 16), rule, mirrored))
    for index in range(8):
        clip = clips[index]
        sequence = gone[int(clip.sequence_id[0][-1])]
        scales = sequence.attributes.get("geometry", np.ones((24, 4)))[:, 2]
        for image, frame in zip(clip.search_images[0], clip.frame_index[0].tolist(), strict=True):
            pixels = np.ascontiguousarray(sequence.frames[frame][:, ::-1])
            width = pixels.shape[1] + offset * scales[frame]
            box_xywh = mirror_xywh(torch.from_numpy(sequence.boxes_xywh[frame]), width)
            expected = normalise_images(torch.from_numpy(rule.cut(pixels, rule.region(box_xywh))))
            torch.testing.assert_close(image, expected)


# ---------------------------------------------------------------------------------------------------- broken records


@pytest.fixture
def damaged(tmp_path, store):
    """The store with a sequence whose frames are no images."""
    sequence = FakeReader(tmp_path / "fake")[1]
    packed = pack_frames(sequence, PackingOptions())
    packed = PackedFrames([closed(b"\xff\xd8 rubbish")] * len(packed.values), packed.image_sizes, packed.geometry)
    with ClipStoreWriter(store.path, store.manifest) as writer:
        writer.write(1, sequence, packed)
        writer.finish({})
    return store


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_frame_stops_the_run_with_its_name(damaged, workers):
    with pytest.raises(UserError, match=r"Frame \d+ of fake/video 1 in .*store is not a readable image"):
        batches(datamodule(damaged, workers=workers, clips_per_epoch=40))


def test_command_line_tells_it_in_one_sentence(damaged, monkeypatch, capsys):
    def fit(arguments):
        batches(datamodule(damaged, workers=1, clips_per_epoch=40))

    monkeypatch.setattr("relo.commands.main.run", fit)
    with pytest.raises(SystemExit) as exit_info:
        main(["fit"])
    assert exit_info.value.code == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert re.fullmatch(r"relo: error: Frame \d+ of fake/video 1 in \S+ is not a readable image .*\n", told)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:Another clip")
def test_broken_clips_are_replaced_and_counted(damaged, workers):
    module = datamodule(damaged, workers=workers, clips_per_epoch=40, on_broken="skip")
    clips = batches(module)
    assert len(clips) == 20
    assert {name for batch in clips for name in batch.sequence_id} == {"fake/video 0", "fake/video 2"}
    assert module.clips.skipped > 5
    with pytest.warns(UserWarning, match=f"{module.clips.skipped} broken clips were skipped"):
        module.teardown("fit")


def test_replacements_are_reproducible(damaged):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (dataset(StoreSource(str(damaged.path)), on_broken="skip") for _ in range(2))
        assert all(same(first[i], second[i]) for i in range(12))


def test_only_broken_clips_end_in_an_error(damaged):
    clips = dataset(StoreSource(str(damaged.path), start=1, stop=2), on_broken="skip")
    with pytest.warns(UserWarning, match="Another clip"), pytest.raises(UserError, match="in a row are broken"):
        clips[0]


# ---------------------------------------------------------------------------------------------------------- settings


def test_settings_that_cannot_be(store, tmp_path):
    path = str(store.path)
    with pytest.raises(UserError, match="No clip store"):
        dataset()
    with pytest.raises(UserError, match="weights"):
        dataset(StoreSource(path, weight=-1.0))
    with pytest.raises(UserError, match="can give a clip"):
        dataset(StoreSource(path), sampler=OrderSampler(1, 2, min_frames=100))
    with pytest.raises(UserError, match="There is no clip store"):
        dataset(StoreSource(str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="does not fill one batch"):
        datamodule(store, batch_size=20).train_dataloader()


# ------------------------------------------------------------------------------------------------------- validation


def test_validation_gives_whole_sequences(store):
    batches = list(datamodule(store, validation_batch=2).val_dataloader())
    assert [[sequence.name for sequence in batch] for batch in batches] == [["video 0", "video 1"], ["video 2"]]
    sequence = batches[0][1]
    assert sequence.frames[3].shape == (72, 96, 3)
    module = datamodule(store)
    assert module.transfer_batch_to_device(batches[0], torch.device("cpu"), 0) is batches[0]


def test_validation_sources_can_be_parts_and_datasets(store, tmp_path):
    plain = tmp_path / "plain" / "cup"
    plain.mkdir(parents=True)
    (plain / "1.jpg").write_bytes(store[0].frames.encoded(0))
    (plain / "groundtruth.txt").write_text("1,2,3,4\n")
    sources = [SequenceSource(str(store.path), start=2), SequenceSource(str(plain.parent), dataset="plain")]
    ((first, second),) = datamodule(store, validation=sources).val_dataloader()
    assert (first.name, second.name) == ("video 2", "cup")


@pytest.mark.parametrize(("start", "stop"), [(3, None), (2, 2), (0, -3)])
def test_validation_without_a_sequence_is_refused(store, start, stop):
    source = SequenceSource(str(store.path), start=start, stop=stop)
    with pytest.raises(UserError, match=r"names none of the 3 sequences of .*store: change its start or stop"):
        datamodule(store, validation=[source]).val_dataloader()


def test_ranks_share_the_sequences_and_repeat_none(store):
    names = []
    for rank in range(2):
        module = datamodule(store)
        module._ranks = lambda rank=rank: (2, rank)
        names.append([sequence.name for batch in module.val_dataloader() for sequence in batch])
    assert names == [["video 0", "video 2"], ["video 1"]]


def test_stores_cut_around_the_target_are_not_tracked(cut_store):
    with pytest.raises(UserError, match="cut around the targets"):
        datamodule(cut_store).val_dataloader()

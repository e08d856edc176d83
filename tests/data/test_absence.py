"""Search frames that do not show the target: how often, and what they show."""

import hashlib

import numpy as np
import pytest
import torch
from fake_sequences import FakeReader
from hypothesis import given
from hypothesis import strategies as st

from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.datamodule import TrackingDataModule
from relo.data.packing import pack
from relo.data.sampler import Absence, ConsecutiveSampler, OrderSampler
from relo.data.transforms import Augmentation, ClipTransform, elsewhere
from relo.errors import UserError
from relo.geometry import CropRule

STILL = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
SEARCH = CropRule(2.0, 32)


def dataset(store, absence=None, augmentation=STILL, sampler=None, **settings):
    transform = ClipTransform(CropRule(2.0, 16), SEARCH, augmentation, **settings)
    return ClipDataset([StoreSource(str(store.path))], sampler or OrderSampler(1, 2), transform, 100, absence=absence)


def pixels(image):
    """A normalised crop [3, H, W] in levels."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image.permute(1, 2, 0) * std + mean) * 255


def fingerprint(clips, count=6):
    digest = hashlib.blake2b(digest_size=8)
    for i in range(count):
        for value in vars(clips[i]).values():
            digest.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else str(value).encode())
    return digest.hexdigest()


def test_without_absence_clips_are_what_they_were(store):
    """To the byte: nothing more is drawn from the generator."""
    plain, none = (dataset(store, absence, Augmentation()) for absence in (None, Absence()))
    assert fingerprint(plain) == fingerprint(none)
    assert fingerprint(dataset(store, Absence(outside=0.5), Augmentation())) != fingerprint(none)


def test_shares_are_those_that_are_asked_for():
    drawn = Absence(0.1, 0.2, 0.3).draw(40_000, np.random.default_rng(0))
    for kind, share in (("hidden", 0.1), ("outside", 0.2), ("foreign", 0.3), (None, 0.4)):
        assert np.mean([k == kind for k in drawn]) == pytest.approx(share, abs=0.01)
    assert set(Absence(outside=1.0).draw(1000, np.random.default_rng(0))) == {"outside"}


@pytest.mark.parametrize(
    "shares", [{"hidden": -0.1}, {"outside": 1.2}, {"hidden": 0.5, "foreign": 0.6}, {"hidden": float("nan")}]
)
def test_what_are_no_probabilities_is_refused(shares):
    with pytest.raises(UserError, match=r"data\.absence.*sum to 1"):
        Absence(**shares)


def test_hidden_frames_are_drawn_where_there_are_any(store):
    clips = dataset(store, Absence(hidden=1.0))
    for i in range(8):
        assert not clips[i].present.any()
        assert (clips[i].frame_index % 7 == 6).all()


def test_hidden_frames_of_sequences_that_have_none_are_ordinary_ones(tmp_path):
    class Visible(FakeReader):
        def __getitem__(self, index):
            sequence = super().__getitem__(index)
            sequence.visible[:] = True
            return sequence

    clips = dataset(pack(Visible(tmp_path / "fake"), tmp_path / "store"), Absence(hidden=1.0))
    assert all(clips[i].present.all() for i in range(8))


def test_regions_elsewhere_do_not_show_the_target(store):
    clips = dataset(store, Absence(outside=1.0))
    for i in range(12):
        clip = clips[i]
        assert not clip.present.any()
        x, y, w, h = clip.search_boxes_xywh[0].T
        assert ((x >= 1) | (y >= 1) | (x + w <= 0) | (y + h <= 0)).all()
        for image in clip.search_images[0]:
            assert pixels(image).amin(-1).max() < 200  # the target alone is white


def test_foreign_frames_show_another_sequences_target(store):
    clips = dataset(store, Absence(foreign=1.0))
    foreign = 0
    for i in range(16):
        clip = clips[i]
        number = int(clip.sequence_id[0][-1])
        for t in range(2):
            shown = pixels(clip.search_images[0, t])
            is_own = abs(float(shown[0, 0, 0]) - 40 * number) < 10
            assert bool(clip.present[0, t]) == is_own
            assert shown[16, 16].min() > 245  # about the target there
            foreign += not is_own
    assert foreign > 8


def test_absence_does_not_change_what_a_tracker_would_look_at_next(store):
    for crops, augmentation, sampler in (
        ({}, Augmentation(search_around="previous"), None),
        ({"surroundings_crop": CropRule(4.0, 64)}, STILL, ConsecutiveSampler(1, 2)),
    ):
        with pytest.raises(UserError, match=r"data\.absence"):
            dataset(store, Absence(outside=0.1), augmentation, sampler, **crops)


def test_the_data_module_hands_it_on(store):
    module = TrackingDataModule([StoreSource(str(store.path))], sampler=OrderSampler(1, 2), absence=Absence(hidden=1.0))
    module.setup("fit")
    assert not module.clips[0].present.any()


@given(
    seed=st.integers(0, 2**31),
    box=st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(2, 300), st.floats(2, 200)),
    factor=st.floats(1, 6),
)
def test_elsewhere_never_touches_the_target_whatever_its_size(seed, box, factor):
    box_xywh = torch.tensor(box, dtype=torch.float64)
    around_xywh = box_xywh * torch.tensor([1, 1, 0.8, 1.2])
    found_xywh = elsewhere(around_xywh, box_xywh, factor, (240, 320, 3), np.random.default_rng(seed))
    assert torch.equal(found_xywh[2:], around_xywh[2:])
    rule = CropRule(factor, 64)
    x, y, w, h = rule.to_crop(box_xywh, rule.region(found_xywh)).tolist()
    assert x >= 1 or y >= 1 or x + w <= 0 or y + h <= 0

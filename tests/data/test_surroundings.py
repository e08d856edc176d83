"""Clips carry the surroundings of their targets, and what is cut from these is what would be cut from the images."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relo.data.clip_batch import ClipBatch
from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.clip_store import ClipStore, PackingOptions
from relo.data.datamodule import TrackingDataModule
from relo.data.frame_geometry import nearest_visible, to_image, to_packed
from relo.data.packing import pack
from relo.data.sampler import ConsecutiveSampler, OrderSampler
from relo.data.sequences.base import ImageFiles, Sequence, SequenceReader
from relo.data.transforms import Augmentation, ClipTransform
from relo.errors import UserError
from relo.geometry import CropRule, cxcywh_to_xywh, xywh_to_cxcywh

WIDTH, HEIGHT, FRAMES = 200, 150, 24
SEARCH = CropRule(4.0, 64)  # near the resolution of the images
AROUND = CropRule(8.0, 128)
STILL = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
STORES = {
    "whole": PackingOptions(),
    "cut": PackingOptions(cut=8.0, quality=100),
    "scaled": PackingOptions(max_side=130, quality=100),
    "cut and scaled": PackingOptions(cut=8.0, max_side=90, quality=100),
    "narrow": PackingOptions(cut=5.0, quality=100),
}


class Film(SequenceReader):
    """A video whose pixels tell where they are: red is x, green is y; blue is a pattern. Every fifth frame is hidden.

    The target goes from the image's left edge to its right one, so that its surroundings reach beyond.
    """

    dataset = "film"

    def __init__(self, root: Path) -> None:
        self.root = root
        pattern = np.random.default_rng(0).integers(100, 160, (FRAMES, 5, 7)).astype(np.uint8)
        for frame in range(FRAMES):
            image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            image[..., 2], image[..., 1] = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
            image[..., 0] = cv2.resize(pattern[frame], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(root / f"{frame}.png"), image)  # which takes blue, green, red

    @property
    def names(self) -> list[str]:
        return ["one"]

    def boxes_xywh(self) -> np.ndarray:
        f = np.arange(FRAMES)
        return np.stack([1.5 + 7.7 * f, 60 + 3.3 * (f % 7), 16.4 + f % 4, 15.2 - f % 3], axis=1)

    def visible(self) -> np.ndarray:
        return np.arange(FRAMES) % 5 != 4

    def __getitem__(self, index: int) -> Sequence:
        frames = ImageFiles(self.root, tuple(f"{frame}.png" for frame in range(FRAMES)))
        return Sequence("one", self.dataset, frames, self.boxes_xywh(), self.visible())


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    return Film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def stores(film, tmp_path_factory) -> dict[str, ClipStore]:
    folder = tmp_path_factory.mktemp("stores")
    return {name: pack(film, folder / name, options=options) for name, options in STORES.items()}


def clips(store: ClipStore, augmentation: Augmentation = STILL, around: CropRule | None = AROUND) -> ClipDataset:
    transform = ClipTransform(CropRule(2.0, 32), SEARCH, augmentation, surroundings_crop=around)
    return ClipDataset([StoreSource(str(store.path))], ConsecutiveSampler(1, 3), transform, clips_per_epoch=100)


def draw(store: ClipStore, index: int, is_mirrored: bool = False) -> ClipBatch:
    return clips(store, replace(STILL, clip_flip=float(is_mirrored)))[index]


def frames_of(clip: ClipBatch) -> list[int]:
    return clip.frame_index[0].tolist()


def pixels(clip: ClipBatch, t: int) -> np.ndarray:
    return np.ascontiguousarray(clip.surroundings.images[0, t].permute(1, 2, 0).numpy())


def image_points(clip: ClipBatch, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of the surroundings' pixels are in the image: x of the columns, y of the rows."""
    x, y, scale_x, scale_y = clip.surroundings.geometry[0, t].tolist()
    steps = np.arange(AROUND.size) + 0.5
    return steps / scale_x + x, steps / scale_y + y


def away_from_black(seen: np.ndarray) -> np.ndarray:
    """Which pixels show the image, but for the seam where it ends."""
    return cv2.erode((seen[..., 2] > 75).astype(np.uint8), np.ones((5, 5))) > 0


def same(first: ClipBatch, second: ClipBatch) -> bool:
    def parts(clip):
        return {**vars(clip), **vars(clip.surroundings)}

    tensors = [name for name, value in parts(first).items() if isinstance(value, torch.Tensor)]
    equal = all(torch.equal(parts(first)[name], parts(second)[name]) for name in tensors)
    return equal and first.sequence_id == second.sequence_id


wholly = st.sampled_from(["whole", "cut", "scaled", "cut and scaled"])  # as far as a search region near the target
anything = st.sampled_from(list(STORES))
indices = st.integers(0, 10_000)
shifts = st.floats(-1, 1)
some = settings(max_examples=30)


@some
@given(wholly, indices, st.booleans(), st.tuples(shifts, shifts), st.floats(0.85, 1.2))
def test_a_search_crop_shows_what_the_image_shows(stores, film, kind, index, is_mirrored, shift, factor):
    """The region is cut around a box near the truth, as by a policy."""
    clip = draw(stores[kind], index, is_mirrored)
    for t, frame in enumerate(frames_of(clip)):
        image, geometry = film[0].frames[frame], clip.surroundings.geometry[0, t]
        center, size = xywh_to_cxcywh(clip.surroundings.boxes_xywh[0, t]).split(2)
        box_xywh = cxcywh_to_xywh(torch.cat([center + size * torch.tensor(shift), size * factor]))
        expected = SEARCH.cut(image[:, ::-1] if is_mirrored else image, SEARCH.region(box_xywh))
        found = SEARCH.cut(pixels(clip, t), SEARCH.region(to_packed(box_xywh, geometry)))
        difference = np.abs(found.astype(float) - expected)[away_from_black(expected)].mean()
        edge = ((found[..., 2] > 50) != (expected[..., 2] > 50)).mean()
        # Crops lie on whole pixels, which are larger in scaled frames, where detail is lost, too.
        assert difference < (4 if "scaled" in kind else 2)
        assert edge < 0.04


@some
@given(anything, indices, st.booleans())
def test_pixels_are_where_the_geometry_says(stores, kind, index, is_mirrored):
    clip = draw(stores[kind], index, is_mirrored)
    for t in range(3):
        (xs, ys), seen = image_points(clip, t), pixels(clip, t)
        xs = WIDTH - xs if is_mirrored else xs
        shown = away_from_black(seen)
        off = np.abs(seen[..., :2] - np.stack(np.broadcast_arrays(xs, ys[:, None]), axis=-1) + 0.5)[shown]
        assert len(off) > 500
        assert np.median(off) < 0.75
        assert off.max() < 4  # a JPEG


@some
@given(anything, indices, st.booleans())
def test_surroundings_are_black_where_there_is_no_frame(stores, kind, index, is_mirrored):
    clip, store = draw(stores[kind], index, is_mirrored), stores[kind][0]
    for t, frame in enumerate(frames_of(clip)):
        x, y, w, h = 0, 0, WIDTH, HEIGHT
        if "geometry" in store.attributes:  # where the packed frame lies in the image
            height, width = store.frames[frame].shape[:2]
            x, y, w, h = to_image(np.array([0.0, 0.0, width, height]), store.attributes["geometry"][frame])
        if is_mirrored:
            x = WIDTH - x - w
        xs, ys = image_points(clip, t)
        inside = ((xs > x) & (xs < x + w))[None] & ((ys > y) & (ys < y + h))[:, None]
        assert ((pixels(clip, t)[..., 2] > 40) != inside).mean() < 0.03  # but for a seam
        if kind == "narrow":
            assert inside.mean() < 0.5


@some
@given(anything, indices, st.booleans())
def test_boxes_are_the_truth_in_image_pixels(stores, film, kind, index, is_mirrored):
    clip = draw(stores[kind], index, is_mirrored)
    frames, around = frames_of(clip), clip.surroundings
    truth_xywh = film.boxes_xywh()[nearest_visible(film.visible())]
    if is_mirrored:
        truth_xywh[:, 0] = WIDTH - truth_xywh[:, 0] - truth_xywh[:, 2]
    np.testing.assert_allclose(around.boxes_xywh[0], truth_xywh[frames], atol=1e-9)
    np.testing.assert_allclose(around.first_box_xywh[0], truth_xywh[frames[0] - 1], atol=1e-9)
    assert film.visible()[frames[0] - 1]
    assert around.image_sizes.tolist() == [[[WIDTH, HEIGHT]] * 3]
    # The truth is in the middle of its surroundings, at the resolution of a search crop.
    inside_cxcywh = xywh_to_cxcywh(to_packed(around.boxes_xywh, around.geometry))
    center, size = inside_cxcywh.split(2, dim=-1)
    torch.testing.assert_close(center, torch.full_like(center, AROUND.size / 2), atol=1.6, rtol=0)
    expected = torch.full((1, 3), AROUND.size / AROUND.factor).double()
    torch.testing.assert_close(size.prod(-1).sqrt(), expected, atol=0.4, rtol=0)


def test_what_a_clip_carries(stores):
    clip = draw(stores["whole"], 0)
    around = clip.surroundings
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in vars(around).items()}
    assert shapes == {
        "images": ((1, 3, 3, 128, 128), torch.uint8),
        "geometry": ((1, 3, 4), torch.float64),
        "boxes_xywh": ((1, 3, 4), torch.float64),
        "first_box_xywh": ((1, 4), torch.float64),
        "image_sizes": ((1, 3, 2), torch.int64),
    }
    assert clips(stores["whole"], around=None)[0].surroundings is None


def test_crops_are_as_they_were(stores):
    """What the surroundings draw at random comes after the crops."""
    augmentation = replace(Augmentation(), image_flip=0.0)
    alone, carrying = (clips(stores["whole"], augmentation, around) for around in (None, AROUND))
    for index in range(10):
        one, other = alone[index], carrying[index]
        assert torch.equal(one.template_images, other.template_images)
        assert torch.equal(one.search_images, other.search_images)
        assert torch.equal(one.search_boxes_xywh, other.search_boxes_xywh)


def test_no_image_is_mirrored_on_its_own(stores):
    always = clips(stores["whole"], replace(STILL, image_flip=1.0))
    assert all(same(always[index], draw(stores["whole"], index)) for index in range(5))
    mixed = clips(stores["whole"], replace(STILL, clip_flip=0.5, image_flip=0.5))
    directions = set()
    for index in range(12):
        clip = mixed[index]
        steps = np.diff(clip.surroundings.boxes_xywh[0, :, 0])
        red = [np.diff(pixels(clip, t)[60:70, 56:72, 0].astype(float)).mean() for t in range(3)]
        assert len(set(np.sign(red))) == 1  # all frames are mirrored, or none
        assert (np.sign(steps[steps != 0]) == np.sign(red[0])).all()  # and what they show moves as they are
        directions.add(np.sign(red[0]))
    assert directions == {-1, 1}


def test_grey_and_brightness_are_those_of_crops(stores):
    grey = clips(stores["whole"], replace(STILL, grey=1.0))[3].surroundings.images[0]
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    plain = draw(stores["whole"], 3).surroundings.images[0].double()
    bright = clips(stores["whole"], replace(STILL, brightness=0.2))[3].surroundings.images[0].double()
    factors = bright.mean((1, 2, 3)) / plain.mean((1, 2, 3))
    assert ((factors > 0.79) & (factors < 1.21)).all()
    assert len(set(factors.tolist())) == 3


# ----------------------------------------------------------------------------------------------------- data module


def datamodule(store: ClipStore, **changes) -> TrackingDataModule:
    ours = {
        "train": [StoreSource(str(store.path))],
        "search_crop": SEARCH,
        "sampler": ConsecutiveSampler(2, 3, max_stride=2),
        "surroundings": 8.0,
        "clips_per_epoch": 6,
        "batch_size": 2,
        "workers": 0,
    }
    module = TrackingDataModule(**(ours | changes))
    module.setup("fit")
    return module


def batches(module: TrackingDataModule) -> list[ClipBatch]:
    loader = module.train_dataloader()
    try:
        return list(loader)
    finally:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()


def test_stream_does_not_depend_on_workers(stores):
    alone, beside = batches(datamodule(stores["cut"])), batches(datamodule(stores["cut"], workers=1))
    assert len(alone) == 3
    assert all(same(one, other) for one, other in zip(alone, beside, strict=True))
    assert not same(alone[0], alone[1])


@pytest.mark.parametrize(("factor", "side"), [(8, 128), (4, 64), (5.5, 88)])
def test_resolution_is_that_of_search_crops(stores, factor, side):
    clip = datamodule(stores["whole"], surroundings=factor).clips[0]
    assert clip.surroundings.images.shape == (1, 3, 3, side, side)


def test_settings_that_cannot_be(stores):
    with pytest.raises(UserError, match=r"data\.surroundings needs .* data\.sampler OrderSampler does not"):
        datamodule(stores["whole"], sampler=OrderSampler())
    for factor in (3.9, 0.0, -8.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"data\.surroundings must be at least 4"):
            datamodule(stores["whole"], surroundings=factor)
    assert datamodule(stores["whole"], sampler=OrderSampler(1, 2), surroundings=None).clips[0].surroundings is None

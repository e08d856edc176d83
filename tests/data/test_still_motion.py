"""Stills in motion: what moves, how boxes follow, and that nothing moves unasked."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from fake_sequences import FakeReader

from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.clip_store import PackingOptions
from relo.data.packing import pack
from relo.data.sampler import ConsecutiveSampler, OrderSampler
from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.still_motion import MOVING_FRAMES, in_motion
from relo.data.transforms import Augmentation, ClipTransform
from relo.errors import UserError
from relo.geometry import CropRule

PLAIN = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
MOVING = replace(PLAIN, still_motion=1.0)


def still(folder, box_xywh, size=(400, 300)):
    """A still of a white rectangle on black."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    x, y, w, h = box_xywh
    image[y : y + h, x : x + w] = 255
    cv2.imwrite(str(folder / "still.png"), image)
    return Sequence("a", "fake", ImageFiles(folder, ("still.png",)), np.array([box_xywh], float), np.array([True]))


def corners(image):
    """x1, y1, x2, y2 of what is white in an image."""
    rows, columns = (np.flatnonzero((image[..., 0] > 127).any(axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("box_xywh", "size"), [((150, 110, 90, 60), (400, 300)), ((80, 140, 30, 110), (240, 400))])
def test_boxes_follow_exactly(strength, box_xywh, size, tmp_path):
    moving = in_motion(still(tmp_path, box_xywh, size), strength, np.random.default_rng(3))
    assert len(moving) == len(moving.boxes_xywh) == MOVING_FRAMES
    for i in range(0, MOVING_FRAMES, 7):
        x, y, w, h = moving.boxes_xywh[i]
        np.testing.assert_allclose(corners(moving.frames[i]), [x, y, x + w, y + h], atol=1)


def test_a_still_that_is_too_wide_to_be_warped_is_named(tmp_path):
    wide = still(tmp_path, (150, 10, 90, 30), (32_767, 48))
    with pytest.raises(UserError, match=r"still\.png has 32767 x 48 px; .*: pack them with --max_side"):
        in_motion(wide, 1.0, np.random.default_rng(0)).frames[0]
    narrower = in_motion(still(tmp_path, (150, 10, 90, 30), (32_766, 48)), 1.0, np.random.default_rng(0))
    assert narrower.frames[0].shape == (48, 32_766, 3)


def test_motion_is_small_smooth_and_elastic(tmp_path):
    moving = in_motion(still(tmp_path, (150, 110, 90, 60)), 1.0, np.random.default_rng(0))
    centers = moving.boxes_xywh[:, :2] + moving.boxes_xywh[:, 2:] / 2
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.mean() > 0.05
    assert steps.max() < 6
    assert np.ptp(centers, axis=0).max() > 5
    assert moving.boxes_xywh[:, 2:].std(axis=0).min() > 0.5
    x, y = moving.frames.motion.source_positions(20)
    # Second differences of an affine map are 0.
    assert np.abs(np.diff(x.astype(float), 2, axis=1)).max() > 1e-3
    assert np.abs(np.diff(y.astype(float), 2, axis=0)).max() > 1e-3


def test_frames_can_be_read_as_files_are(tmp_path):
    moving = in_motion(still(tmp_path, (150, 110, 90, 60)), 1.0, np.random.default_rng(0))
    decoded = cv2.imdecode(np.frombuffer(moving.frames.encoded(5), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, moving.frames[5])
    assert moving.frames.name(5) == f"{tmp_path / 'still.png'}, moved (frame 5)"


def test_a_target_that_leaves_the_image_is_not_visible(tmp_path):
    hidden = 0
    for seed in range(20):
        moving = in_motion(still(tmp_path, (0, 0, 8, 8)), 1.0, np.random.default_rng(seed))
        centers = moving.boxes_xywh[:, :2] + moving.boxes_xywh[:, 2:] / 2
        assert moving.visible.tolist() == (centers >= 0).all(1).tolist()
        hidden += MOVING_FRAMES - moving.visible.sum()
    assert hidden


def clips(store, augmentation, sampler=None, surroundings=None):
    transform = ClipTransform(CropRule(2.0, 16), CropRule(4.0, 64), augmentation, surroundings_crop=surroundings)
    return ClipDataset([StoreSource(str(store.path))], sampler or OrderSampler(1, 3), transform, 8)


@pytest.fixture(params=[None, PackingOptions(max_side=64)], ids=["whole", "scaled"])
def stills(request, tmp_path):
    return pack(FakeReader(tmp_path / "still", sequences=2, frames=1), tmp_path / "packed", options=request.param)


def test_clips_of_stills_move_and_their_boxes_fit(stills):
    for index in range(4):
        clip = clips(stills, MOVING)[index]
        images = clip.search_images[0]
        assert not torch.equal(images[0], images[1])
        assert len({tuple(box) for box in clip.search_boxes_xywh[0].tolist()}) > 1
        for image, box_xywh in zip(images, clip.search_boxes_xywh[0], strict=True):
            x, y, w, h = (box_xywh * 64).tolist()
            found = corners(((image[0] > 1.5) * 255).numpy()[..., None].astype(np.uint8))
            np.testing.assert_allclose(found, [x, y, x + w, y + h], atol=3)


def test_clips_are_the_same_each_time(stills):
    first, second = (clips(stills, MOVING)[3] for _ in range(2))
    assert torch.equal(first.search_images, second.search_images)
    assert torch.equal(first.search_boxes_xywh, second.search_boxes_xywh)


def test_nothing_moves_unasked(stills, store):
    clip = clips(stills, PLAIN)[0]
    assert torch.equal(clip.search_images[0, 0], clip.search_images[0, 1])
    for index in range(3):  # videos move by themselves
        asked, unasked = (clips(store, augmentation)[index] for augmentation in (MOVING, PLAIN))
        assert torch.equal(asked.search_images, unasked.search_images)


def test_moving_stills_give_consecutive_clips(stills):
    sampler = ConsecutiveSampler(1, 4)
    with pytest.raises(UserError, match="can give a clip"):
        clips(stills, PLAIN, sampler)
    clip = clips(stills, MOVING, sampler, CropRule(8.0, 128))[0]
    assert clip.frame_index.diff().tolist() == [[1, 1, 1]]
    assert clip.surroundings.images.shape == (1, 4, 3, 128, 128)


@pytest.mark.parametrize("strength", [-0.1, 2.5, float("nan")])
def test_motion_beyond_reason_is_refused(stills, strength):
    with pytest.raises(UserError, match=r"has still_motion = .*; it must be a number from 0 to 2"):
        clips(stills, replace(PLAIN, still_motion=strength))


@pytest.mark.parametrize("box_xywh", [(0, 0, 3, 3), (396, 297, 4, 3), (0, 100, 2, 90)])
def test_targets_at_the_border_stay_in_the_image(box_xywh, tmp_path):
    for seed in range(20):
        assert in_motion(still(tmp_path, box_xywh), 2.0, np.random.default_rng(seed)).visible.mean() >= 0.8


class FirstBoxes(FakeReader):
    """Videos of which the first box alone is public; its centre is moved by `shift` pixels."""

    shift = 0.0

    def __getitem__(self, index):
        video = super().__getitem__(index)
        return replace(
            video, boxes_xywh=video.boxes_xywh[:1] + np.array([self.shift, 0, 0, 0]), visible=video.visible[:1]
        )


@pytest.mark.parametrize("sampler", [OrderSampler(1, 3), ConsecutiveSampler(1, 4)], ids=["order", "consecutive"])
def test_the_frame_of_an_only_box_is_a_still(sampler, tmp_path):
    store = pack(FirstBoxes(tmp_path / "videos", sequences=2, frames=5), tmp_path / "packed")
    surroundings = CropRule(8.0, 128) if sampler.consecutive else None
    clip = clips(store, MOVING, sampler, surroundings)[0]
    assert not torch.equal(clip.search_images[0, 0], clip.search_images[0, 1])


def test_a_still_whose_target_no_motion_shows_is_named(tmp_path):
    reader = FirstBoxes(tmp_path / "stills", sequences=1, frames=1)
    width = reader[0].frames[0].shape[1]
    reader.shift = width - reader[0].boxes_xywh[0, 0]  # its left side at the right border
    store = pack(reader, tmp_path / "packed")
    with pytest.raises(UserError, match=r"^The box of fake/video 0 in .*packed has its centre outside its image"):
        clips(store, MOVING)[0]


class Strict(OrderSampler):
    """Takes what shows its target on every frame, and knows of all that it was given."""

    def accepts(self, visible):
        given.append(bool(visible.all()))
        return given[-1]

    def sample(self, visible, rng):
        assert visible.all()
        return super().sample(visible, rng)


given = []


def test_a_still_that_leaves_the_view_too_often_for_the_sampler_stays(tmp_path):
    reader = FirstBoxes(tmp_path / "stills", sequences=1, frames=1)
    reader.shift = 1 - reader[0].boxes_xywh[0, [0, 2]] @ [1, 0.5]  # its centre beside the left border
    store = pack(reader, tmp_path / "packed")
    drawn = clips(store, MOVING, Strict(1, 3))
    assert all(drawn[index].present.all() for index in range(8))
    assert False in given  # of a motion that was not taken

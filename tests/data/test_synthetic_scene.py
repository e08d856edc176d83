import cv2
import numpy as np
import pytest

from relo.data.synthetic import SceneSettings, render_sequence
from relo.data.synthetic.scene import Scene, texture_seed
from relo.data.synthetic.settings import EASY, HARD
from relo.errors import UserError

BARE = SceneSettings(
    light_change=0, blur=0, motion_blur=0, noise=0, shake=0, clutter=0, camouflage=0, distractors=(0, 0), occlusions=0,
    out_of_view=0, camera_motion=0.05,
)  # fmt: skip


def test_same_arguments_same_bytes():
    first, second = (render_sequence("a", frames=8, seed=3) for _ in range(2))
    assert (first.frames == second.frames).all()
    assert (first.boxes_xywh == second.boxes_xywh).all()
    assert first.frames.shape == (8, 240, 320, 3)
    assert first.frames.dtype == np.uint8


def test_procedural_scenes_stay_as_they_were():
    sequence = render_sequence("pin", frames=6, width=96, height=72, settings=HARD)
    boxes_xywh = [[54.074, 8.374, 21.796, 14.853], [46.766, 10.356, 21.407, 11.672]]
    colours = [[71.24, 88.02, 74.27], [74.72, 93.01, 79.51]]
    np.testing.assert_allclose(sequence.boxes_xywh[[0, 5]], boxes_xywh, atol=0.001)
    np.testing.assert_allclose(sequence.frames[[0, 5]].mean((1, 2)), colours, atol=0.1)


@pytest.mark.parametrize("other", [{"seed": 4}, {"split": "test"}])
def test_seed_and_split_change_every_picture(other):
    frames = render_sequence("a", frames=2, seed=3).frames
    different = render_sequence("a", frames=2, **{"seed": 3, **other}).frames
    assert np.abs(frames.astype(int) - different).mean() > 5


def test_splits_never_share_a_texture_seed():
    seeds = {split: {tuple(texture_seed(split, seed, f"s{i}")) for seed in range(20) for i in range(20)}
             for split in ("train", "val", "test")}  # fmt: skip
    assert not seeds["train"] & seeds["test"]
    assert not seeds["train"] & seeds["val"]
    assert not seeds["val"] & seeds["test"]


def test_boxes_are_the_extent_of_what_is_drawn():
    for number in range(6):
        scene = Scene(f"box{number}", frames=9, width=320, height=240, seed=0, split="train", settings=BARE)
        boxes_xywh = scene.annotate(np.ones(9)).boxes_xywh
        for index in (0, 4, 8):
            x, y, w, h = boxes_xywh[index]
            rows, columns = np.nonzero(covered_by_target(scene, index))
            drawn_xyxy = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(drawn_xyxy, [x, y, x + w, y + h], atol=0.75)


def covered_by_target(scene, index):
    """Where the target covers at least half of a pixel: drawn on black and on white, it looks the same there."""
    pictures = [np.full((240, 320, 3), level, np.uint8) for level in (0, 255)]
    for picture in pictures:
        scene._paste(picture, scene._target, index)
    return (pictures[1].astype(int) - pictures[0]).max(-1) < 128


def test_the_same_thing_is_inside_the_box_frame_after_frame():
    for number in range(4):
        sequence = render_sequence(f"follow{number}", frames=4, settings=BARE)
        x, y, w, h = sequence.boxes_xywh.T
        middle = np.stack([x + w / 2, y + h / 2], axis=1) - 0.5  # pixel indices
        patches = [
            cv2.getRectSubPix(image, (16, 16), tuple(map(float, place))).astype(int)
            for image, place in zip(sequence.frames, middle, strict=True)
        ]
        elsewhere = np.where(middle[0] > [160, 120], middle[0] - 70, middle[0] + 70)
        other = cv2.getRectSubPix(sequence.frames[0], (16, 16), tuple(map(float, elsewhere))).astype(int)
        assert np.abs(patches[0] - patches[3]).mean() < 0.6 * np.abs(patches[0] - other).mean()


def test_first_frame_shows_the_target_even_in_hard_scenes():
    for number in range(12):
        sequence = render_sequence(f"hard{number}", frames=40, width=160, height=120, settings=HARD)
        assert sequence.visible[0]
        assert sequence.visible_ratio[0] > 0.5
        assert (sequence.boxes_xywh[sequence.visible, 2:] > 0).all()


def test_hard_scenes_hide_the_target_and_easy_ones_do_not():
    hard = [render_sequence(f"s{i}", width=160, height=120, settings=HARD).visible for i in range(12)]
    easy = [render_sequence(f"s{i}", width=160, height=120, settings=EASY).visible for i in range(12)]
    assert 0.02 < 1 - np.mean(hard) < 0.4
    assert np.all(easy)


def test_boxes_lie_in_the_image_and_move_smoothly():
    for number in range(5):
        sequence = render_sequence(f"smooth{number}", width=160, height=120, settings=EASY)
        x, y, w, h = sequence.boxes_xywh.T
        assert (x >= 0).all()
        assert (y >= 0).all()
        assert (x + w <= 160 + 1e-9).all()
        assert (y + h <= 120 + 1e-9).all()
        centre = np.stack([x + w / 2, y + h / 2], axis=1)
        assert np.linalg.norm(np.diff(centre, axis=0), axis=1).max() < 12
        assert np.linalg.norm(np.diff(centre, axis=0), axis=1).sum() > 5


def test_cut_targets_are_marked():
    sequences = [render_sequence(f"s{i}", width=160, height=120, settings=HARD) for i in range(8)]
    for sequence in sequences:
        x, y, w, h = sequence.boxes_xywh.T
        at_border = (x <= 0) | (y <= 0) | (x + w >= 160) | (y + h >= 120)
        assert (at_border[w > 0] == sequence.cut_by_image[w > 0]).all()
    assert any(sequence.cut_by_image.any() for sequence in sequences)


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"width": 40}, {"height": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=r"has (frames|width|height) = "):
        render_sequence("a", **wrong)

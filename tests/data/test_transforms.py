"""Crops of clips: where they are cut, and what is changed in them."""

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relo.data.transforms import Augmentation, ClipTransform, grey
from relo.errors import UserError
from relo.geometry import CropRule, mirror_xywh, xywh_to_cxcywh

PLAIN = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0)
BOXES = torch.tensor([[100.0, 80.0, 40.0, 20.0]], dtype=torch.float64)


SEARCH = CropRule(4.0, 128)


def transform(augmentation=PLAIN, search=SEARCH, **settings):
    return ClipTransform(CropRule(2.0, 64), search, augmentation, **settings)


def with_target(box_xywh, value=255, size=(240, 320)):
    image = np.full((*size, 3), 60, np.uint8)
    x, y, w, h = (int(v) for v in box_xywh)
    image[y : y + h, x : x + w] = value
    return image


def test_jitter_follows_its_formula():
    boxes_xywh = BOXES.expand(40_000, 4)
    jittered = transform(Augmentation()).jitter(boxes_xywh, np.random.default_rng(0)).numpy()
    sizes = jittered[:, 2:]
    logs = np.log(sizes / [40.0, 20.0])
    np.testing.assert_allclose(logs.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(logs.std(0), 0.5, atol=0.01)
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.02
    shifts = (jittered[:, :2] + sizes / 2 - [120.0, 90.0]) / np.sqrt(sizes.prod(1, keepdims=True))
    assert np.abs(shifts).max() <= 1.75 + 1e-9
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(shifts.std(0), 3.5 / np.sqrt(12), atol=0.01)  # of a uniform variable
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.02


@pytest.mark.parametrize("center_jitter", [3.5, 20.0])
def test_target_centre_stays_in_the_search_crop(center_jitter):
    boxes_xywh = BOXES.expand(300, 4)
    frames = [with_target(BOXES[0])] * 300
    _, found = transform(Augmentation(center_jitter=center_jitter)).searches(
        frames, boxes_xywh, False, np.random.default_rng(1)
    )
    centers = found[:, :2] + found[:, 2:] / 2
    # A region is cut on whole pixels, which may shift it by half of one.
    slack = 0.02
    assert ((centers > -slack) & (centers < 1 + slack)).all()


def test_templates_are_not_jittered():
    wild = transform(Augmentation(image_flip=0, brightness=0))
    crops, boxes_xywh = wild.templates([with_target(BOXES[0])] * 3, BOXES.expand(3, 4), False, np.random.default_rng(0))
    rule = CropRule(2.0, 64)
    region = rule.region(BOXES)
    np.testing.assert_array_equal(crops[2], rule.cut(with_target(BOXES[0]), region[0]))
    torch.testing.assert_close(boxes_xywh, rule.to_crop(BOXES, region).expand(3, 4))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_in_crops_surround_the_target(released, mirrored):
    rng = np.random.default_rng(3)
    augmentation = Augmentation(
        center_jitter=2.5, scale_jitter=0.3, grey=0, clip_flip=0, image_flip=0.5, brightness=0.1
    )
    cutting = transform(augmentation, CropRule(4.0, 128, released))
    boxes = torch.from_numpy(
        np.column_stack([rng.integers(60, 200, 60), rng.integers(60, 140, 60), *([[40] * 60] * 2)])
    )
    frames = [with_target(box) for box in boxes]
    crops, found = cutting.searches(frames, boxes.double(), mirrored, rng)
    checked = 0
    for crop, box_xywh in zip(crops, found.numpy() * 128, strict=True):
        x, y, w, h = box_xywh
        if min(x, y) < 2 or max(x + w, y + h) > 126:
            continue
        rows, columns = np.nonzero(crop.max(axis=2) > 130)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(seen, [x, y, x + w, y + h], atol=2.1)
        checked += 1
    assert checked > 20


def test_mirroring_twice_is_nothing():
    image, rng = with_target(BOXES[0]), np.random.default_rng
    always = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=1, brightness=0)
    plain_crops, plain_boxes = transform().searches([image], BOXES, False, rng(0))
    flipped_crops, flipped_boxes = transform().searches([image], BOXES, True, rng(0))
    np.testing.assert_array_equal(flipped_crops, plain_crops[:, :, ::-1])
    torch.testing.assert_close(flipped_boxes[:, 0], 1 - plain_boxes[:, 0] - plain_boxes[:, 2])
    twice_crops, twice_boxes = transform(always).searches([image], BOXES, True, rng(0))
    np.testing.assert_array_equal(twice_crops, plain_crops)
    torch.testing.assert_close(twice_boxes, plain_boxes)


def test_share_of_what_clips_have_in_common():
    rng = np.random.default_rng(0)
    is_grey, mirrored = np.mean([transform(Augmentation()).joint(rng) for _ in range(20_000)], axis=0)
    assert abs(is_grey - 0.05) < 0.01
    assert abs(mirrored - 0.5) < 0.02


def test_grey_and_brightness():
    image = np.zeros((240, 320, 3), np.uint8)
    image[:] = (200, 100, 50)
    colourless, _ = transform().searches([grey(image)], BOXES, False, np.random.default_rng(0))
    assert set(map(tuple, colourless.reshape(-1, 3).tolist())) == {(124, 124, 124)}  # 0.299 R + 0.587 G + 0.114 B
    only_bright = Augmentation(center_jitter=0, scale_jitter=0, grey=0, clip_flip=0, image_flip=0, brightness=0.2)
    crops, _ = transform(only_bright).searches([image] * 2000, BOXES.expand(2000, 4), False, np.random.default_rng(0))
    factors = crops[:, 64, 64, 1] / 100
    assert factors.min() >= 0.79
    assert factors.max() <= 1.21
    assert abs(factors.mean() - 1) < 0.01
    assert abs(factors.std() - 0.4 / np.sqrt(12)) < 0.01
    np.testing.assert_allclose(crops[:, 64, 64, 0] / 2, crops[:, 64, 64, 1], atol=1)


@pytest.mark.parametrize("is_grey", [False, True])
def test_pixels_are_those_of_the_release(is_grey):
    """Grey before the crop is scaled, brightness after it and without rounding to grey levels."""
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    bright = replace(PLAIN, brightness=0.2)
    frame = grey(image) if is_grey else image
    crops, _ = transform(bright).searches([frame] * 20, BOXES.expand(20, 4), False, np.random.default_rng(0))
    seen = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) if is_grey else image
    expected = SEARCH.cut(seen, SEARCH.region(BOXES)[0]).astype(np.float64)
    for crop in crops:
        dark = (expected > 0) & (expected < 200)  # stays below white
        factors = crop[dark] / expected[dark]
        assert np.ptp(factors) < 1e-6
        np.testing.assert_allclose(crop, np.minimum(expected * factors.mean(), 255), atol=1e-4)


boxes = st.tuples(*[st.floats(-20, 300)] * 2, *[st.floats(3, 90)] * 2)


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_searches_around_the_previous_box(pairs, released, is_mirrored):
    """The region is the previous box's, without jitter, and boxes in crops come back to the same pixels."""
    truth_xywh, previous_xywh = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    rule = CropRule(4.0, 32, released)
    frames = [with_target(BOXES[0])] * len(pairs)
    cutting = transform(replace(PLAIN, center_jitter=3.5, scale_jitter=0.5), rule)
    crops, found_xywh = cutting.searches(
        frames, truth_xywh, is_mirrored, np.random.default_rng(0), previous_xywh=previous_xywh
    )
    regions = rule.region(previous_xywh)
    if is_mirrored:
        crops, found_xywh = crops[:, :, ::-1], mirror_xywh(found_xywh, 1.0)
    for frame, region, crop in zip(frames, regions, crops, strict=True):
        np.testing.assert_array_equal(crop, rule.cut(frame, region, is_mirrored))
    torch.testing.assert_close(found_xywh, rule.to_crop(truth_xywh, regions))
    if not released:
        back_xywh = rule.to_image(xywh_to_cxcywh(found_xywh), regions)
        torch.testing.assert_close(back_xywh, truth_xywh, atol=1e-9, rtol=0)


def test_further_albumentations_transforms_are_reproducible():
    import albumentations

    noisy = transform(photometric=[albumentations.GaussNoise(p=1.0)])
    images = [with_target(BOXES[0])] * 2
    first, _ = noisy.searches(images, BOXES.expand(2, 4), False, np.random.default_rng(5))
    second, _ = noisy.searches(images, BOXES.expand(2, 4), False, np.random.default_rng(5))
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()
    assert (first[0] != transform().searches(images, BOXES.expand(2, 4), False, np.random.default_rng(5))[0][0]).any()


def test_importing_asks_the_network_for_nothing():
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    script = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise SystemExit('asked the network')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "import relo.data.datamodule\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)


@pytest.mark.parametrize("setting", ["grey", "clip_flip", "center_jitter", "scale_jitter", "mirror_offset"])
@pytest.mark.parametrize("value", [1e308, float("nan"), -1e3])
def test_absurd_augmentation(setting, value):
    with pytest.raises(UserError, match=rf"data\.augmentation has {setting} = "):
        Augmentation(**{setting: value})

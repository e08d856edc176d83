import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_graphs import counting, record_by_calling

from relo.geometry import CropRule
from relo.tracking import crops
from relo.tracking.crops import DeviceCropper, cut, normalised

random = np.random.default_rng(0)
FRAMES = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((60, 80), (40, 33), (7, 9))]
RULE = CropRule(4.0, 24)

targets = st.lists(
    st.tuples(st.integers(0, 2), st.floats(-60, 140), st.floats(-60, 120), st.integers(1, 90)), min_size=1, max_size=6
)


CPU = torch.device("cpu")


def assert_same_crops(cropper, images, regions):
    expected = normalised(cut(RULE, images, regions), CPU)
    torch.testing.assert_close(cropper(images, regions), expected, rtol=0, atol=0)


@settings(max_examples=100)
@given(targets)
def test_crops_are_those_of_the_whole_frames(targets):
    images = [FRAMES[frame] for frame, *_ in targets]
    regions = torch.tensor([region for _, *region in targets], dtype=torch.float64)
    assert_same_crops(DeviceCropper(RULE, CPU), images, regions)


@settings(max_examples=10)
@given(st.lists(targets, min_size=2, max_size=4))
def test_the_buffer_is_used_again(steps):
    cropper = DeviceCropper(RULE, CPU)
    for step in steps:
        images = [FRAMES[frame] for frame, *_ in step]
        assert_same_crops(cropper, images, torch.tensor([region for _, *region in step], dtype=torch.float64))


def test_the_buffer_grows_where_it_must(monkeypatch):
    monkeypatch.setattr(crops, "LEAST_PIXELS", 64)
    cropper = DeviceCropper(RULE, CPU)
    lengths = []
    # The last square lies outside, behind a frame that fills 64 of 64 pixels but for its last.
    for side in (4, 8, 16, 4):
        regions = torch.tensor([[40, 30, side], [500, 500, 8]], dtype=torch.float64)
        assert_same_crops(cropper, [FRAMES[0]] * 2, regions)
        lengths.append(len(cropper._pixels))
    assert lengths == [64, 128, 512, 512]


@pytest.mark.parametrize(
    ("regions", "sent"),
    [
        ([[30, 30, 20]], 400),  # not the whole frame
        ([[30, 30, 20], [35, 30, 20]], 500),  # one rectangle around both
        ([[10, 10, 20], [70, 50, 20]], 800),  # too far apart
        ([[0, 0, 20]], 100),  # nothing is sent of what is outside
    ],
)
def test_only_what_is_cut_is_sent(regions, sent):
    regions = torch.tensor(regions, dtype=torch.float64)
    images = [FRAMES[0]] * len(regions)
    squares = DeviceCropper(RULE, CPU)._send(images, regions)
    windows = {tuple(row) for row in squares[:, :3].tolist()}
    assert sum(width * height for _, width, height in windows) == sent
    assert_same_crops(DeviceCropper(RULE, CPU), images, regions)


def test_images_that_lie_in_one_array_are_told_apart():
    images = random.integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    regions = torch.tensor([[20, 20, 16]] * 5, dtype=torch.float64)
    assert_same_crops(DeviceCropper(RULE, CPU), images, regions)


def test_recordings_read_the_buffer_as_it_is_now_and_are_made_again_where_it_grows(monkeypatch):
    monkeypatch.setattr(crops, "LEAST_PIXELS", 1024)
    recorder, records = counting(record_by_calling)
    cropper = DeviceCropper(RULE, CPU, recorder)
    for side, recorded in ((16, 0), (16, 1), (16, 1), (40, 1), (40, 2), (16, 2)):
        image = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        assert_same_crops(cropper, [image], torch.tensor([[40, 30, side]], dtype=torch.float64))
        assert len(records) == recorded

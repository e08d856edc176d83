"""What programs hand to a tracker: refused in the words of what was given, not misread."""

import numpy as np
import pytest
import torch

import relo
from relo.errors import UserError
from relo.tracking.arguments import as_boxes, check_images

IMAGE = np.zeros((120, 160, 3), np.uint8)
BOX_XYWH = [40.0, 30.0, 30.0, 40.0]


@pytest.fixture(scope="module")
def tracker():
    return relo.Tracker.from_pretrained(engine="torch")


@pytest.mark.parametrize(
    "boxes_xywh",
    [
        np.array([BOX_XYWH, BOX_XYWH]).T,
        np.ones((2, 6)),
        np.ones((1, 8)),
        np.ones((2, 2, 2)),
        BOX_XYWH[:3],
        [*BOX_XYWH, 1.0],
        None,
        [10**400, 1, 1, 1],
        [1j, 1, 1, 1],
        "40,30,30,40",
    ],
)
def test_other_than_boxes_are_refused(tracker, boxes_xywh):
    with pytest.raises(ValueError, match="box"):
        tracker.initialize([IMAGE, IMAGE], boxes_xywh)
    with pytest.raises(ValueError, match="box"):
        tracker.run([IMAGE], boxes_xywh)


@pytest.mark.parametrize(
    "given",
    [BOX_XYWH, tuple(BOX_XYWH), np.float32(BOX_XYWH), torch.tensor(BOX_XYWH, dtype=torch.bfloat16),
     torch.tensor(BOX_XYWH, requires_grad=True), [BOX_XYWH]],
)  # fmt: skip
def test_boxes_of_any_kind_of_numbers_are_taken(given):
    np.testing.assert_array_equal(as_boxes(given), [BOX_XYWH])


def test_no_target_has_no_state(tracker):
    assert tracker.initialize([], []) == tracker.initialize([], np.empty((0, 4))) == []
    with pytest.raises(ValueError, match="Give one box"):
        tracker.run([IMAGE], [])


@pytest.mark.parametrize("image", [IMAGE[:0], IMAGE[:, :0], None, "a.jpg", IMAGE.tolist(), torch.from_numpy(IMAGE)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="An image must be"):
        check_images([image], 1)


@pytest.mark.parametrize("precision", ["fp16", "int8", "float64", ""])
def test_another_precision_is_refused(tracker, precision):
    for make in (relo.Tracker.from_pretrained, lambda precision: relo.Tracker(tracker.network, precision=precision)):
        with pytest.raises(UserError, match=r"There is no precision .*; give float32, bfloat16, float16"):
            make(precision=precision)

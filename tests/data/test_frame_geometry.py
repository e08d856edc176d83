"""Boxes between an image and a part of it, as arrays and as tensors."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relo.data.frame_geometry import to_image, to_packed

places = st.floats(-1e4, 1e4)
sizes = st.floats(0.01, 1e4)
boxes = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        arrays(np.float64, (count, 2), elements=places),
        arrays(np.float64, (count, 2), elements=sizes),
        arrays(np.float64, (count, 2), elements=places),
        arrays(np.float64, (count, 2), elements=st.floats(0.05, 20)),
    )
)


@given(boxes)
def test_tensors_and_arrays_give_the_same(drawn):
    corners, extents, offsets, scales = drawn
    boxes_xywh, geometry = np.concatenate([corners, extents], 1), np.concatenate([offsets, scales], 1)
    tensor_xywh, tensor_geometry = torch.from_numpy(boxes_xywh), torch.from_numpy(geometry)
    for way in (to_packed, to_image):
        expected, found = way(boxes_xywh, geometry), way(tensor_xywh, tensor_geometry)
        assert isinstance(expected, np.ndarray)
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_allclose(to_packed(boxes_xywh, geometry)[:, :2], (corners - offsets) * scales)
    back = to_image(to_packed(tensor_xywh, tensor_geometry), tensor_geometry)
    torch.testing.assert_close(back, tensor_xywh, atol=1e-6, rtol=1e-9)


def test_a_box_of_its_own_and_one_geometry_for_many_boxes():
    box_xywh, geometry = np.array([10.0, 20.0, 30.0, 40.0]), np.array([4.0, 8.0, 0.5, 0.25])
    expected = np.array([3.0, 3.0, 15.0, 10.0])
    np.testing.assert_array_equal(to_packed(box_xywh, geometry), expected)
    np.testing.assert_array_equal(to_image(expected, geometry), box_xywh)
    np.testing.assert_array_equal(to_packed(np.tile(box_xywh, (2, 3, 1)), geometry), np.tile(expected, (2, 3, 1)))
    assert to_image(torch.from_numpy(expected), torch.from_numpy(geometry)).tolist() == box_xywh.tolist()


def test_tensors_keep_their_device_and_gradients():
    boxes_xywh = torch.ones(2, 4, device="meta")
    assert to_packed(boxes_xywh, torch.ones(2, 4, device="meta")).is_meta
    learning = torch.tensor([[1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    to_image(learning, torch.tensor([[5.0, 5.0, 2.0, 4.0]])).sum().backward()
    torch.testing.assert_close(learning.grad, torch.tensor([[0.5, 0.25, 0.5, 0.25]]))

import math
import platform
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from relo import geometry
from relo.geometry import CropRule

corners = st.floats(-300, 300)
sizes = st.floats(0.5, 300)
boxes = st.builds(lambda *v: torch.tensor(v, dtype=torch.float64), corners, corners, sizes, sizes)


def assert_same_crops(crops, expected) -> None:
    """OpenCV's own arithmetic differs from processor to processor by less than a grey level."""
    is_exact = platform.machine().lower() in ("x86_64", "amd64")
    np.testing.assert_allclose(crops, expected, rtol=0, atol=0 if is_exact else 1)


def box(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestFormats:
    def test_hand_worked(self):
        xywh = box(10, 20, 30, 50)
        assert geometry.xywh_to_xyxy(xywh).tolist() == [10, 20, 40, 70]
        assert geometry.xywh_to_cxcywh(xywh).tolist() == [25, 45, 30, 50]
        assert geometry.xyxy_to_xywh(box(10, 20, 40, 70)).tolist() == [10, 20, 30, 50]
        assert geometry.cxcywh_to_xywh(box(25, 45, 30, 50)).tolist() == [10, 20, 30, 50]
        assert geometry.cxcywh_to_xyxy(box(25, 45, 30, 50)).tolist() == [10, 20, 40, 70]

    @given(boxes)
    def test_round_trips(self, xywh: Tensor):
        torch.testing.assert_close(geometry.xyxy_to_xywh(geometry.xywh_to_xyxy(xywh)), xywh)
        torch.testing.assert_close(geometry.cxcywh_to_xywh(geometry.xywh_to_cxcywh(xywh)), xywh)

    def test_keeps_leading_dimensions(self):
        assert geometry.xywh_to_xyxy(torch.rand(2, 3, 5, 4)).shape == (2, 3, 5, 4)
        assert geometry.xywh_to_cxcywh(torch.rand(2, 3, 5, 4)).shape == (2, 3, 5, 4)


class TestOverlap:
    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
            ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
            ((0, 0, 10, 10), (2, 2, 7, 7), 25 / 100),
            ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch
            ((0, 0, 10, 10), (12, 12, 20, 20), 0.0),
            ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),  # two empty boxes
            ((5, 5, 2, 2), (0, 0, 10, 10), 0.0),  # corners the wrong way round
        ],
    )
    def test_iou_hand_worked(self, first, second, expected):
        assert geometry.iou(box(*first), box(*second)).item() == pytest.approx(expected, abs=1e-12)

    def test_areas_of_xywh_boxes_are_exact(self):
        # 0.1 + 0.2 - 0.1 is not 0.2: with areas from corners this overlap would be a little less.
        assert geometry.iou_xywh(box(0.125, 0, 0.0625, 1), box(0.1, 0, 0.2, 1)).item() == 0.3125
        assert geometry.iou_xywh(box(5, 5, 0, 0), box(5, 5, 0, 0)).item() == 0
        assert geometry.iou_xywh(box(5, 5, -3, 4), box(0, 0, 10, 10)).item() == 0

    @given(boxes, boxes)
    def test_iou_of_both_formats_agree(self, first: Tensor, second: Tensor):
        expected = geometry.iou(geometry.xywh_to_xyxy(first), geometry.xywh_to_xyxy(second))
        torch.testing.assert_close(geometry.iou_xywh(first, second), expected, atol=1e-9, rtol=1e-9)

    def test_generalized_iou_hand_worked(self):
        # Areas 4 and 4, no overlap, hull 6 x 2 = 12: 0 - (12 - 8) / 12.
        assert geometry.generalized_iou(box(0, 0, 2, 2), box(4, 0, 6, 2)).item() == pytest.approx(-1 / 3)

    def test_iou_broadcasts(self):
        many = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]])
        assert geometry.iou(many, many[:1]).tolist() == pytest.approx([1.0, 1 / 3])

    @given(boxes, boxes)
    def test_against_torchvision(self, first: Tensor, second: Tensor):
        first, second = geometry.xywh_to_xyxy(first), geometry.xywh_to_xyxy(second)
        torch.testing.assert_close(geometry.iou(first, second), box_iou(first[None], second[None])[0, 0])
        torch.testing.assert_close(
            geometry.generalized_iou(first, second), generalized_box_iou(first[None], second[None])[0, 0]
        )

    @given(boxes, boxes, st.floats(0.1, 10), corners)
    def test_scale_and_shift_change_nothing(self, first: Tensor, second: Tensor, scale: float, shift: float):
        first, second = geometry.xywh_to_xyxy(first), geometry.xywh_to_xyxy(second)
        moved = geometry.iou(first * scale + shift, second * scale + shift)
        torch.testing.assert_close(moved, geometry.iou(first, second), atol=1e-9, rtol=1e-9)

    def test_gradients_are_finite_for_boxes_apart(self):
        first = torch.tensor([0.0, 0, 0.1, 0.1], requires_grad=True)
        geometry.generalized_iou(first, torch.tensor([0.5, 0.5, 0.6, 0.6])).backward()
        assert first.grad is not None
        assert first.grad.isfinite().all()
        assert first.grad[2] > 0  # growing towards the other box raises GIoU


class TestClipToImage:
    def test_inside_is_untouched(self):
        assert geometry.clip_to_image(box(20, 30, 40, 50), 320, 240, margin=10).tolist() == [20, 30, 40, 50]

    @pytest.mark.parametrize(
        ("xywh", "expected"),
        [
            ((-30, 5, 50, 50), (0, 5, 20, 50)),  # cut at the left
            ((300, 220, 50, 50), (300, 220, 20, 20)),  # cut at the right and the bottom
            ((-100, -100, 20, 20), (0, 0, 10, 10)),  # gone: 10 px stay inside
            ((400, 300, 20, 20), (310, 230, 10, 10)),
            ((50, 50, 3, 4), (50, 50, 10, 10)),  # too small
        ],
    )
    def test_released_margin(self, xywh, expected):
        assert geometry.clip_to_image(box(*xywh), 320, 240, margin=10).tolist() == list(expected)

    @given(boxes)
    def test_keeps_the_margin_inside(self, xywh: Tensor):
        x1, y1, x2, y2 = geometry.xywh_to_xyxy(geometry.clip_to_image(xywh, 320, 240, margin=10)).tolist()
        assert x2 - x1 >= 10 - 1e-9
        assert y2 - y1 >= 10 - 1e-9
        assert min(x2, 320) - max(x1, 0) >= 10 - 1e-9
        assert min(y2, 240) - max(y1, 0) >= 10 - 1e-9


class TestCropRule:
    def test_region_hand_worked(self):
        # sqrt(20 * 45) = 30, side 120; centre (110, 122.5): the corner 62.5 goes to 62, half to even.
        rule = CropRule(factor=4.0, size=256)
        assert rule.region(box(100, 100, 20, 45)).tolist() == [110, 122, 120]
        assert CropRule(4.0, 256, released=True).region(box(100, 100, 20, 45)).tolist() == [110, 122.5, 120]

    def test_side_is_rounded_up(self):
        # sqrt(10 * 11) * 2 = 20.976.
        assert CropRule(factor=2.0, size=128).region(box(0, 0, 10, 11))[2] == 21

    def test_released_numbers(self):
        # Side 120 about (110, 122.5) to 256 px: scale 256/120. A box 15 px to the right and 6 px up, of 30 x 12:
        # centre (127.5 + 32, 127.5 - 12.8) / 255, size (64, 25.6) / 255.
        rule = CropRule(factor=4.0, size=256, released=True)
        region = rule.region(box(100, 100, 20, 45))
        crop_xywh = rule.to_crop(box(110, 110.5, 30, 12), region)
        expected_cxcywh = box(159.5, 114.7, 64, 25.6) / 255
        torch.testing.assert_close(geometry.xywh_to_cxcywh(crop_xywh), expected_cxcywh)
        # Back: 256 / scale = 120 px a share, about the previous centre.
        image_xywh = rule.to_image(box(0.75, 0.5, 0.25, 0.1), region)
        torch.testing.assert_close(geometry.xywh_to_cxcywh(image_xywh), box(110 + 30, 122.5, 30, 12))

    @given(boxes, boxes, st.sampled_from([2.0, 4.0, 5.0]))
    def test_round_trip_is_exact(self, around: Tensor, xywh: Tensor, factor: float):
        rule = CropRule(factor, size=128)
        region = rule.region(around)
        back = rule.to_image(geometry.xywh_to_cxcywh(rule.to_crop(xywh, region)), region)
        torch.testing.assert_close(back, xywh, atol=1e-9, rtol=1e-9)

    @given(boxes, st.sampled_from([2.0, 4.0]), st.booleans())
    def test_region_is_as_large_as_the_rule_says(self, xywh: Tensor, factor: float, released: bool):
        center_x, center_y, side = CropRule(factor, 128, released).region(xywh).tolist()
        wanted = math.sqrt(xywh[2] * xywh[3]) * factor
        assert side == int(side)
        assert wanted - 1e-6 <= max(side, wanted) < wanted + 1 + 1e-6
        if released:
            assert [center_x, center_y] == geometry.xywh_to_cxcywh(xywh)[:2].tolist()
        else:  # on the pixel grid, at most half a pixel off
            assert center_x - side / 2 == int(center_x - side / 2)
            assert abs(center_x - geometry.xywh_to_cxcywh(xywh)[0]) <= 0.5 + 1e-6

    def test_empty_box_still_has_a_region(self):
        assert CropRule(4.0, 256).region(box(10, 10, 0, 5))[2] == 1

    def test_batched(self):
        rule = CropRule(4.0, 256)
        batch = torch.rand(3, 5, 4, dtype=torch.float64) * 50 + 1
        region = rule.region(batch)
        assert region.shape == (3, 5, 3)
        torch.testing.assert_close(
            rule.to_crop(batch, region)[1, 2], rule.to_crop(batch[1, 2], rule.region(batch[1, 2]))
        )


class TestCut:
    image = np.random.default_rng(0).integers(1, 255, (60, 80, 3), dtype=np.uint8)

    def test_inside_without_scaling_is_a_slice(self):
        crop = CropRule(2.0, 20).cut(self.image, box(30, 25, 20))
        np.testing.assert_array_equal(crop, self.image[15:35, 20:40])

    def test_corner_rounds_half_to_even(self):
        # Corners 20.5 -> 20 and 15.5 -> 16.
        crop = CropRule(2.0, 20, released=True).cut(self.image, box(30.5, 25.5, 20))
        np.testing.assert_array_equal(crop, self.image[16:36, 20:40])

    @pytest.mark.parametrize(
        ("center", "rows", "columns"),
        [((0, 30), slice(0, 20), slice(0, 10)), ((80, 30), slice(0, 20), slice(10, 20)),
         ((40, 0), slice(0, 10), slice(0, 20)), ((40, 60), slice(10, 20), slice(0, 20))],
    )  # fmt: skip
    def test_outside_is_black_and_inside_is_not(self, center, rows, columns):
        crop = CropRule(2.0, 20).cut(self.image, box(*center, 20))
        outside = np.zeros((20, 20), bool)
        outside[rows, columns] = True
        assert (crop[outside] == 0).all()
        assert (crop[~outside] > 0).all()

    @pytest.mark.parametrize("center", [(-50, 30), (200, 30), (40, -50), (40, 300), (-10, 30), (90, 30)])
    def test_wholly_outside_is_black(self, center):
        crop = CropRule(2.0, 20).cut(self.image, box(*center, 20))
        assert crop.shape == (20, 20, 3)
        assert crop.dtype == np.uint8
        assert not crop.any()

    def test_region_larger_than_the_image(self):
        crop = CropRule(2.0, 100).cut(self.image, box(40, 30, 100))
        np.testing.assert_array_equal(crop[20:80, 10:90], self.image)
        assert crop.sum(dtype=np.int64) == self.image.sum(dtype=np.int64)

    @settings(max_examples=30)
    @given(st.floats(-20, 100), st.floats(-20, 80), st.integers(6, 60))
    def test_a_box_lies_where_to_crop_says(self, x: float, y: float, side: int):
        # A white square on black, cut around another box, is found again at its written place.
        image = np.zeros((120, 160, 3), np.uint8)
        image[40:80, 60:100] = 255
        rule = CropRule(4.0, 192)
        region = rule.region(box(x + 40, y + 20, side, side))
        x1, y1, x2, y2 = (geometry.xywh_to_xyxy(rule.to_crop(box(60, 40, 40, 40), region)) * 192).tolist()
        expected = max(0, min(x2, 192) - max(x1, 0)) * max(0, min(y2, 192) - max(y1, 0))
        # Bilinear resizing blurs the edge over one source pixel, but keeps the area when all of it is inside.
        tolerance = 4 * 192 * (192 / float(region[2]) + 1) if not (x1 > 2 and y1 > 2 and x2 < 190 and y2 < 190) else 200
        assert rule.cut(image, region)[..., 0].sum(dtype=np.int64) / 255 == pytest.approx(expected, abs=tolerance)


class TestReleasedBorder:
    """The release's square loses the image's last row and column wherever it reaches them."""

    image = np.random.default_rng(2).integers(1, 255, (60, 80, 3), dtype=np.uint8)

    @pytest.mark.parametrize("on_device", [False, True])
    @pytest.mark.parametrize(
        ("center", "kept_rows", "kept_columns"),
        [
            ((69, 49), 20, 20),  # ends one pixel before the border
            ((70, 50), 19, 19),  # ends at the border
            ((75, 45), 20, 14),  # sticks out on the right
            ((65, 58), 11, 20),  # sticks out below
            ((85, 65), 4, 4),
        ],
    )
    def test_last_row_and_column_are_black(self, center, kept_rows, kept_columns, on_device):
        x, y = center[0] - 10, center[1] - 10
        expected = np.zeros((20, 20, 3), np.uint8)
        expected[:kept_rows, :kept_columns] = self.image[y : y + kept_rows, x : x + kept_columns]
        rule, region = CropRule(2.0, 20, released=True), box(*center, 20)
        if on_device:
            crop = rule.cut_on_device(torch.from_numpy(self.image).permute(2, 0, 1)[None], region[None])[0]
            crop = crop.permute(1, 2, 0).numpy()
        else:
            crop = rule.cut(self.image, region)
        np.testing.assert_array_equal(crop, expected)

    def test_of_a_crop_that_will_be_mirrored_it_is_where_the_mirrored_image_ends(self):
        rule, mirrored = CropRule(2.0, 20, released=True), np.ascontiguousarray(self.image[:, ::-1])
        crop = rule.cut(self.image, box(5, 55, 20), is_mirrored=True)
        np.testing.assert_array_equal(crop[:, ::-1], rule.cut(mirrored, box(75, 55, 20)))

    def test_of_our_own_rule_nothing_is_lost(self):
        crop = CropRule(2.0, 20).cut(self.image, box(70, 50, 20))
        np.testing.assert_array_equal(crop, self.image[40:60, 60:80])

    def test_a_side_is_rounded_up_without_allowance(self):
        # 2 sqrt(w h) is 11 to the last digit but one.
        boxes_xywh = box(0, 0, 5.5, 5.5 + 1e-14)
        assert CropRule(2.0, 64).region(boxes_xywh)[2] == 11
        assert CropRule(2.0, 64, released=True).region(boxes_xywh)[2] == 12


def test_a_huge_square_takes_no_more_memory_than_the_image():
    """40 GB as one array; what is seen of it is a handful of pixels."""
    image = np.random.default_rng(3).integers(1, 255, (60, 80, 3), dtype=np.uint8)
    tracemalloc.start()
    crop = CropRule(4.0, 64).cut(image, torch.tensor([40.0, 30, 120_000], dtype=torch.float64))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert crop.shape == (64, 64, 3)
    assert not crop.any()  # output pixels look at places 1,875 px apart, none of which lies in the image


def test_squares_that_are_looked_up_are_those_held_whole(monkeypatch: pytest.MonkeyPatch):
    image = np.random.default_rng(4).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    squares = [(-30, -20, 150), (10, 5, 100), (-200, 3, 400)]
    expected = [geometry.cut_square(image, x, y, side, 48) for x, y, side in squares]
    monkeypatch.setattr(geometry, "LARGEST_SQUARE_PX", 1)
    for (x, y, side), crop in zip(squares, expected, strict=True):
        assert_same_crops(geometry.cut_square(image, x, y, side, 48), crop)


class TestCutOnDevice:
    """To the last bit what OpenCV cuts."""

    images = np.random.default_rng(1).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)

    def planar(self, count: int = 3) -> Tensor:
        return torch.from_numpy(self.images[:count]).permute(0, 3, 1, 2)

    def assert_as_cut(self, crops: Tensor, rule: CropRule, images, regions: Tensor) -> None:
        expected = np.stack([rule.cut(image, region) for image, region in zip(images, regions, strict=True)])
        assert crops.dtype == torch.uint8
        assert crops.shape == (len(images), 3, rule.size, rule.size)
        assert_same_crops(crops.permute(0, 2, 3, 1), expected)

    @settings(max_examples=60)
    @given(
        st.lists(st.tuples(st.floats(-60, 140), st.floats(-60, 120), st.integers(1, 150)), min_size=3, max_size=3),
        st.integers(1, 70),
        st.booleans(),
    )
    def test_is_the_crop(self, regions: list[tuple[float, float, int]], size: int, released: bool):
        rule, around = CropRule(4.0, size, released), torch.tensor(regions, dtype=torch.float64)
        self.assert_as_cut(rule.cut_on_device(self.planar(), around), rule, self.images, around)

    @settings(max_examples=30)
    @given(boxes, boxes, st.sampled_from([2.0, 4.0]))
    def test_is_the_crop_of_a_box(self, first: Tensor, second: Tensor, factor: float):
        rule = CropRule(factor, 32)
        regions = rule.region(torch.stack([first, second]))
        self.assert_as_cut(rule.cut_on_device(self.planar(2), regions), rule, self.images[:2], regions)
        # Whole and half numbers of this size are exact in float32 too.
        assert torch.equal(
            rule.cut_on_device(self.planar(2), regions.float()), rule.cut_on_device(self.planar(2), regions)
        )

    def test_wholly_outside_is_black(self):
        regions = torch.tensor([[-50, 30, 20], [200.0, 30, 20], [40, 300, 20]])
        assert not CropRule(2.0, 20).cut_on_device(self.planar(), regions).any()

    def test_without_scaling_it_is_a_slice(self):
        crop = CropRule(2.0, 20).cut_on_device(self.planar(1), torch.tensor([[30.0, 25, 20]]))
        assert torch.equal(crop, self.planar(1)[:, :, 15:35, 20:40])

    def test_corner_rounds_half_to_even(self):
        crop = CropRule(2.0, 20, released=True).cut_on_device(self.planar(1), torch.tensor([[30.5, 25.5, 20]]))
        assert torch.equal(crop, self.planar(1)[:, :, 16:36, 20:40])

    def test_of_any_memory_format(self):
        rule, regions = CropRule(4.0, 24), torch.tensor([[30.0, 25, 37]]).expand(3, 3)
        expected = rule.cut_on_device(self.planar(), regions)
        assert torch.equal(rule.cut_on_device(self.planar().contiguous(), regions), expected)

    def test_padding_an_image_with_black_changes_nothing(self):
        rule = CropRule(4.0, 24)
        regions = torch.tensor([[75.0, 55, 37], [2, 3, 50], [90, 30, 31]])
        padded = torch.nn.functional.pad(self.planar(), (0, 13, 0, 21))
        assert torch.equal(rule.cut_on_device(padded, regions), rule.cut_on_device(self.planar(), regions))

    def test_many_images_in_one_buffer(self):
        """Images of several sizes, one of them cut twice."""
        small, large = self.images[0, :20, :30], self.images[1]
        pixels = torch.from_numpy(np.concatenate([small.reshape(-1, 3), large.reshape(-1, 3)]))
        squares = torch.tensor([[600, 80, 60, 50, 40, 33], [0, 30, 20, -5, -4, 40], [600, 80, 60, -8, 20, 25]])
        crops = geometry.cut_squares(pixels, squares, 48).permute(0, 2, 3, 1)
        for crop, image, (x, y, side) in zip(crops, (large, small, large), squares[:, 3:].tolist(), strict=True):
            assert_same_crops(crop, geometry.cut_square(image, x, y, side, 48))

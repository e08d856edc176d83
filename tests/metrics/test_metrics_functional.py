import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relo.metrics import functional

overlaps = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1))


def reference_auc(iou: np.ndarray, integration: str, strict: bool) -> float:
    """Threshold by threshold, in plain Python."""
    curve = []
    for step in range(21):
        hits = [value > step / 20 if strict else value >= step / 20 for value in iou]
        curve.append(sum(hits) / len(hits))
    if integration == "mean":
        return sum(curve) / 21
    return sum((left + right) / 2 for left, right in itertools.pairwise(curve)) / 20


class TestSuccess:
    def test_perfect_clip(self):
        iou = torch.ones(8, dtype=torch.float64)
        assert functional.success_auc(iou).item() == pytest.approx(20 / 21)
        assert functional.success_auc(iou, integration="trapezoid").item() == pytest.approx(0.975)
        assert functional.success_auc(iou, strict=False).item() == 1
        assert functional.success_auc(iou, strict=False, integration="trapezoid").item() == 1

    def test_hand_worked(self):
        # 0.5 exceeds 0 .. 0.45 (10 thresholds), 0.07 exceeds 0 and 0.05, 0 none: (10 + 2 + 0) / 3 / 21.
        iou = torch.tensor([0.5, 0.07, 0.0], dtype=torch.float64)
        assert functional.success_auc(iou).item() == pytest.approx(12 / 63)
        # With >= they reach 11, 2 and 1.
        assert functional.success_auc(iou, strict=False).item() == pytest.approx(14 / 63)
        rates = functional.success_rates(iou, torch.tensor([0.0, 0.05, 0.5]))
        assert rates.tolist() == pytest.approx([2 / 3, 2 / 3, 0])

    def test_misses(self):
        iou = torch.tensor([-1.0, float("nan"), 0.0])
        assert functional.success_auc(iou).item() == 0
        assert functional.success_rates(iou, torch.tensor([0.0]), strict=False).tolist() == pytest.approx([1 / 3])

    def test_thresholds_are_met_in_single_precision_too(self):
        # 0.15 in float32 is a little more than 0.15 in float64: it must not exceed the threshold 0.15.
        for dtype in (torch.float32, torch.float64):
            iou = torch.arange(21, dtype=dtype) / 20
            rates = functional.success_rates(iou, functional.success_thresholds())
            assert rates.tolist() == pytest.approx([(20 - step) / 21 for step in range(21)])

    def test_mask(self):
        iou = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.3]])
        mask = torch.tensor([[True, False, True], [False, False, False], [True, False, True]])
        scores = functional.success_auc(iou, mask=mask)
        assert scores.tolist() == pytest.approx([20 / 21, 0, (20 + 6) / 2 / 21])

    @given(overlaps, st.sampled_from(["mean", "trapezoid"]), st.booleans())
    def test_against_plain_python(self, iou, integration, strict):
        score = functional.success_auc(torch.from_numpy(iou), integration=integration, strict=strict)
        assert score.item() == pytest.approx(reference_auc(iou, integration, strict), abs=1e-12)

    @given(overlaps, st.floats(0, 1))
    def test_monotone_and_bounded(self, iou, gain):
        better = np.minimum(iou + gain, 1)
        for integration in ("mean", "trapezoid"):
            low = functional.success_auc(torch.from_numpy(iou), integration=integration)
            high = functional.success_auc(torch.from_numpy(better), integration=integration)
            assert 0 <= low <= high <= 0.975 + 1e-12
        curve = functional.success_rates(torch.from_numpy(iou), functional.success_thresholds())
        assert (curve.diff() <= 0).all()

    @given(overlaps)
    def test_auc_is_near_the_mean_overlap(self, iou):
        # The trapezoid counts each overlap to half a threshold step.
        score = functional.success_auc(torch.from_numpy(iou), integration="trapezoid")
        assert abs(score.item() - iou.mean()) <= 0.025 + 1e-9

    def test_leading_dimensions(self):
        iou = torch.rand(2, 3, 7, dtype=torch.float64)
        scores = functional.success_auc(iou)
        assert scores.shape == (2, 3)
        assert scores[1, 2].item() == pytest.approx(reference_auc(iou[1, 2].numpy(), "mean", True))


class TestPrecision:
    truth_xywh = torch.tensor([[100.0, 50, 20, 40]], dtype=torch.float64)

    def test_center_errors_hand_worked(self):
        # Centre (110, 70) against (113, 74): 3 px of 20 across, 4 px of 40 down.
        predicted_xywh = torch.tensor([[103.0, 59, 20, 30]], dtype=torch.float64)
        assert functional.center_error(predicted_xywh, self.truth_xywh).item() == pytest.approx(5)
        expected = np.hypot(3 / 20, 4 / 40)
        assert functional.normalized_center_error(predicted_xywh, self.truth_xywh).item() == pytest.approx(expected)

    def test_threshold_counts_as_hit(self):
        errors = torch.tensor([20.0, 20.001, 0.0, float("inf"), float("nan"), -1.0])
        assert functional.precision_rates(errors, torch.tensor([20.0, 50.0])).tolist() == pytest.approx([3 / 6, 4 / 6])

    def test_mask(self):
        errors = torch.tensor([[0.0, 99.0], [0.0, 0.0]])
        mask = torch.tensor([[True, False], [False, False]])
        assert functional.precision_rates(errors, torch.tensor([20.0]), mask).flatten().tolist() == [1, 0]

    @given(st.floats(-100, 100), st.floats(-100, 100), st.floats(0.1, 10))
    def test_normalized_error_ignores_scale(self, dx, dy, scale):
        moved_xywh = self.truth_xywh + torch.tensor([dx, dy, 0, 0])
        small = functional.normalized_center_error(moved_xywh, self.truth_xywh)
        large = functional.normalized_center_error(moved_xywh * scale, self.truth_xywh * scale)
        torch.testing.assert_close(small, large)

    def test_curve_thresholds(self):
        assert functional.precision_thresholds()[20] == 20
        assert functional.normalized_precision_thresholds()[20] == 0.2


def test_one_flag_does_not_stand_for_many_frames():
    with pytest.raises(ValueError, match="1 flags for 3 frames"):
        functional.success_auc(torch.ones(3), mask=torch.ones(1, dtype=torch.bool))

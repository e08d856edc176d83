import pytest
import torch

from relo.geometry import xyxy_to_xywh
from relo.learning.rewards import AUCReward, CenterPrecisionReward, GIoUReward, IoUReward, reward_terms
from relo.metrics import NormalizedPrecision


def reward_of(ious: list[list[float]], terms: list, present: list[list[bool]] | None = None) -> torch.Tensor:
    iou = torch.tensor(ious)
    mask = torch.ones_like(iou, dtype=torch.bool) if present is None else torch.tensor(present)
    boxes = torch.zeros(*iou.shape, 4)
    return sum(reward_terms(terms, boxes, boxes, iou, mask).values())


def test_a_perfect_clip_earns_one_and_the_trapezoid_area() -> None:
    # The success rate is 1 at thresholds 0 .. 0.95 and 0 at 1: the trapezoid rule gives 1 - 0.05 / 2.
    reward = reward_of([[1.0, 1.0]], [IoUReward(), AUCReward()])
    assert reward[0].tolist() == [pytest.approx(1.975), pytest.approx(1.975)]


def test_the_mean_rule_gives_twenty_of_twenty_one() -> None:
    assert reward_of([[1.0]], [AUCReward(integration="mean")]).item() == pytest.approx(20 / 21)


def test_a_clip_by_hand() -> None:
    # IoU 0.52 exceeds 0 .. 0.5 (11 thresholds); IoU 0 exceeds none. Rates: 1/2 eleven times, then 0.
    # Trapezoid over spacing 0.05: 0.05 * (0.5 * 11 - 0.25) = 0.2625.
    reward = reward_of([[0.52, 0.0]], [IoUReward(weight=2.0), AUCReward(weight=3.0)])
    assert reward[0].tolist() == [pytest.approx(2 * 0.52 + 3 * 0.2625), pytest.approx(3 * 0.2625)]


def test_strict_and_not_strict_differ_at_a_threshold() -> None:
    strict = reward_of([[0.5]], [AUCReward(integration="mean")]).item()
    loose = reward_of([[0.5]], [AUCReward(integration="mean", strict=False)]).item()
    assert loose - strict == pytest.approx(1 / 21)


def test_absent_frames_earn_nothing_and_leave_the_curve() -> None:
    reward = reward_of([[1.0, 0.0]], [IoUReward(), AUCReward()], present=[[True, False]])
    assert reward[0].tolist() == [pytest.approx(1.975), 0.0]


def test_terms_of_one_class_are_told_apart() -> None:
    iou, present = torch.tensor([[0.5, 0.7]]), torch.ones(1, 2, dtype=torch.bool)
    boxes = torch.zeros(1, 2, 4)
    terms = reward_terms([IoUReward(), AUCReward(), IoUReward(2.0)], boxes, boxes, iou, present)
    assert list(terms) == ["IoUReward", "AUCReward", "IoUReward_2"]
    torch.testing.assert_close(terms["IoUReward_2"], 2 * iou)


def test_clips_of_a_batch_are_scored_apart() -> None:
    together = reward_of([[1.0, 0.2], [0.4, 0.4]], [AUCReward()])
    assert torch.equal(together[1:], reward_of([[0.4, 0.4]], [AUCReward()]))


def boxes_earn(term, boxes: list[list[float]], truth: list[float], present: list[bool] | None = None) -> list[float]:
    boxes_xyxy = torch.tensor(boxes)
    mask = torch.ones(len(boxes), dtype=torch.bool) if present is None else torch.tensor(present)
    (earned,) = reward_terms(
        [term], boxes_xyxy, torch.tensor(truth).expand_as(boxes_xyxy), torch.zeros(len(boxes)), mask
    ).values()
    return earned.tolist()


def test_generalized_iou_by_hand() -> None:
    truth = [0.2, 0.2, 0.4, 0.4]
    boxes = [
        truth,
        [0.3, 0.2, 0.5, 0.4],  # half of each: 0.02 of 0.06, and the hull holds nothing else
        [0.6, 0.2, 0.8, 0.4],  # apart: the union is 2/3 of the hull
        [0.6, 0.6, 0.8, 0.8],  # farther apart: 2/9
    ]
    assert boxes_earn(GIoUReward(), boxes, truth) == [pytest.approx(v, abs=1e-5) for v in (1, 1 / 3, -1 / 3, -7 / 9)]


def test_center_precision_by_hand() -> None:
    truth = [0.25, 0.25, 0.5, 0.75]  # 0.25 wide, 0.5 high
    boxes = [
        [0.125, 0.375, 0.625, 0.625],  # its centre, in another shape: all 51 thresholds
        [0.28125, 0.25, 0.53125, 0.75],  # an eighth of the width aside: all but 0 .. 0.12
        [0.25, 0.3125, 0.5, 0.8125],  # an eighth of the height
        [0.326875, 0.25, 0.576875, 0.75],  # 0.3075 of the width: from 0.31 on
        [0.25, 0.525, 0.5, 1.025],  # 0.55 of the height: none
    ]
    expected = [1, 38 / 51, 38 / 51, 20 / 51, 0]
    assert boxes_earn(CenterPrecisionReward(), boxes, truth) == [pytest.approx(v) for v in expected]
    # By trapezoid the curve of a step at 0.13 has its area from there on, and half a step before.
    trapezoid = boxes_earn(CenterPrecisionReward(integration="trapezoid"), boxes[:2], truth)
    assert trapezoid == [pytest.approx(1), pytest.approx((37 + 0.5) / 50)]


def test_center_precision_is_the_metric_of_its_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    truth_xyxy = torch.tensor([0.3, 0.3, 0.7, 0.6])
    boxes_xyxy = truth_xyxy + 0.1 * torch.randn(5, 1, generator=generator)
    earned = boxes_earn(CenterPrecisionReward(), boxes_xyxy.tolist(), truth_xyxy.tolist())
    for box_xyxy, found in zip(boxes_xyxy, earned, strict=True):
        curve = []
        for threshold in range(51):
            metric = NormalizedPrecision(threshold / 100)
            metric.update(xyxy_to_xywh(box_xyxy[None]), xyxy_to_xywh(truth_xyxy[None]))
            curve.append(float(metric.compute()))
        assert found == pytest.approx(sum(curve) / 51)


def test_weights_multiply_and_absent_frames_earn_nothing_whatever_stands_there() -> None:
    nothing = [0.0, 0.0, 0.0, 0.0]
    for term in (GIoUReward(weight=2.0), CenterPrecisionReward(weight=2.0)):
        assert boxes_earn(term, [nothing, nothing], nothing, [False, False]) == [0, 0]
        truth = [0.2, 0.2, 0.4, 0.4]
        assert boxes_earn(term, [truth, truth], truth, [True, False]) == [pytest.approx(2, abs=1e-5), 0]
        assert boxes_earn(term, [[float("nan")] * 4, truth], truth, [False, True])[0] == 0

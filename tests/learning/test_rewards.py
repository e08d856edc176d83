import pytest
import torch

from relo.learning.rewards import AUCReward, IoUReward, reward_terms


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


def test_clips_of_a_batch_are_scored_apart() -> None:
    together = reward_of([[1.0, 0.2], [0.4, 0.4]], [AUCReward()])
    assert torch.equal(together[1:], reward_of([[0.4, 0.4]], [AUCReward()]))

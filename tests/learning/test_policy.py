import numpy as np
import pytest
import torch

from bandit import Bandit, bandit_clip
from relo.errors import UserError
from relo.learning.policy import ActorCritic, normalise
from relo.learning.rewards import IoUReward
from relo.learning.rollout import TeacherForced

WIDTHS = [0.1, 0.4, 0.2, 0.3]  # IoU 0.25, 1, 0.5, 0.75: cell 1 is best


def test_a_step_raises_the_probability_of_the_better_cell() -> None:
    bandit = Bandit(WIDTHS)
    optimizer = torch.optim.SGD(bandit.parameters(), lr=0.5)
    before = bandit.logits.softmax(0)
    result = ActorCritic()(bandit, bandit_clip(), torch.Generator().manual_seed(0))
    result.loss.backward()
    optimizer.step()
    after = bandit.logits.softmax(0)
    assert after[1] > before[1]
    assert after[0] < before[0]


def test_the_policy_finds_the_best_cell() -> None:
    bandit = Bandit(WIDTHS)
    optimizer = torch.optim.Adam(bandit.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        result = ActorCritic()(bandit, bandit_clip(), generator)
        result.loss.backward()
        optimizer.step()
    assert bandit.logits.argmax() == 1
    assert bandit.logits.softmax(0)[1] > 0.9
    # One action repeated: IoU 1 and AUC 0.975 is what the critic has to predict.
    assert bandit.baseline.item() == pytest.approx(1.975, abs=0.15)


def test_the_gradient_is_that_of_the_log_probability_times_advantage() -> None:
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.2, 0.1, 0.0])
    clip = bandit_clip(batch=3)
    objective = ActorCritic(rewards=[IoUReward()])
    objective(bandit, clip, torch.Generator().manual_seed(5)).loss.backward()

    rollout = TeacherForced()(bandit, clip, [IoUReward()], torch.Generator().manual_seed(5))
    actions = rollout.actions.flatten().numpy()
    rewards = np.array([0.25, 1.0, 0.5, 0.75])[actions]
    advantages = (rewards - rewards.mean()) / rewards.std()
    probabilities = np.exp(bandit.logits.detach().numpy())
    probabilities /= probabilities.sum()
    gradient = -np.mean([(np.eye(4)[a] - probabilities) * adv for a, adv in zip(actions, advantages, strict=True)], 0)
    np.testing.assert_allclose(bandit.logits.grad.numpy(), gradient, atol=1e-6)
    assert bandit.baseline.grad.item() == pytest.approx(0.5 * 2 * (0 - rewards.mean()), rel=1e-5)


def test_absent_frames_move_the_critic_but_not_the_policy() -> None:
    bandit = Bandit(WIDTHS)
    bandit.baseline.data.fill_(1.0)
    clip = bandit_clip(batch=4)
    clip.present = torch.zeros_like(clip.present)
    ActorCritic()(bandit, clip, torch.Generator().manual_seed(0)).loss.backward()
    assert torch.equal(bandit.logits.grad, torch.zeros(4))
    assert bandit.baseline.grad.item() == pytest.approx(0.5 * 2 * 1.0)


def test_rollout_samples_from_the_policy_and_repeats_with_its_generator() -> None:
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.0, 2.0, -1.0, 0.5])
    clip = bandit_clip(batch=2000)
    rollout = TeacherForced()(bandit, clip, [IoUReward()], torch.Generator().manual_seed(1))
    shares = torch.bincount(rollout.actions.flatten(), minlength=4) / rollout.actions.numel()
    expected = bandit.logits.detach().softmax(0)
    deviation = (expected * (1 - expected) / rollout.actions.numel()).sqrt()
    assert ((shares - expected).abs() < 4 * deviation).all()
    assert torch.allclose(rollout.log_probs, bandit.logits.log_softmax(0)[rollout.actions])
    again = TeacherForced()(bandit, clip, [IoUReward()], torch.Generator().manual_seed(1))
    assert torch.equal(rollout.actions, again.actions)


def test_overlap_is_taken_with_the_truth_inside_the_crop() -> None:
    bandit = Bandit([0.4, 0.4, 0.4, 0.4])
    bandit.boxes_cxcywh = torch.tensor([0.1, 0.5, 0.2, 0.4]).expand(2, 2, 4)  # from 0 to 0.2 across
    clip = bandit_clip(batch=1)
    clip.search_boxes_xywh = torch.tensor([-0.2, 0.3, 0.4, 0.4]).expand(1, 2, 4)  # the left half is outside
    rollout = TeacherForced()(bandit, clip, [IoUReward()], torch.Generator().manual_seed(0))
    assert rollout.cell_ious.flatten().tolist() == [pytest.approx(1.0)] * 8


def test_advantages_are_normalised_over_the_frames_that_count() -> None:
    advantages = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    mask = torch.tensor([[True, True], [True, False]])
    normal = normalise(advantages, mask)
    assert normal[1, 1] == 0
    assert normal[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert normal[mask].std(unbiased=False).item() == pytest.approx(1, rel=1e-5)


def test_released_advantages_have_unit_unbiased_deviation() -> None:
    advantages = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    mask = torch.tensor([[True, True], [True, False]])
    normal = normalise(advantages, mask, released=True)
    assert normal[1, 1] == 0
    torch.testing.assert_close(normal[mask], torch.tensor([-1.0, 0.0, 1.0]))
    assert not normalise(advantages, mask & False, released=True).any()
    alone = torch.tensor([[False, True], [False, False]])
    assert not normalise(advantages, alone, released=True).any()


def test_released_policy_gradient_is_the_smaller_by_the_unbiased_deviation() -> None:
    gradients = []
    for released in (False, True):
        bandit = Bandit(WIDTHS)
        ActorCritic(released=released)(bandit, bandit_clip(batch=3), torch.Generator().manual_seed(5)).loss.backward()
        gradients.append(bandit.logits.grad)
    frames = bandit_clip(batch=3).present.numel()
    torch.testing.assert_close(gradients[1], gradients[0] * ((frames - 1) / frames) ** 0.5)


def test_no_critic_is_a_clear_error() -> None:
    bandit = Bandit(WIDTHS)
    bandit.critic = None
    with pytest.raises(UserError, match="needs a critic"):
        ActorCritic().check(bandit)


def test_the_entropy_bonus_pulls_towards_the_uniform_policy() -> None:
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([1.0, 0.0, 0.0, 0.0])
    clip = bandit_clip(batch=2)
    gradients = []
    for weight in (0.0, 1.0):
        bandit.zero_grad()
        ActorCritic(entropy_weight=weight)(bandit, clip, torch.Generator().manual_seed(0)).loss.backward()
        gradients.append(bandit.logits.grad.clone())
    log_p = bandit.logits.detach().log_softmax(0)
    p = log_p.exp()
    # d(-H)/d(logit_i) = p_i (log p_i + H)
    torch.testing.assert_close(gradients[1] - gradients[0], p * (log_p - (p * log_p).sum()))

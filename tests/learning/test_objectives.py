"""Every policy objective on a problem that can be solved by hand, and against its textbook form."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from bandit import Bandit, bandit_clip
from relo.errors import UserError
from relo.learning.clipped import GRPO, PPO, group_advantages
from relo.learning.expected import ExpectedGradient, RewardAugmentedLikelihood, cell_rewards
from relo.learning.policy import ActorCritic, generalized_advantages, surrogate_loss, trained_boxes_xyxy
from relo.learning.prior_training import PriorLikelihood, PriorObjective
from relo.learning.priors import BinaryPrior, GaussianPrior
from relo.learning.rewards import AUCReward, IoUReward
from relo.learning.rollout import TeacherForced, reevaluate
from relo.learning.warmup import WarmupObjective
from small_networks import make_clip, make_network

WIDTHS = [0.1, 0.4, 0.2, 0.3]  # IoU 0.25, 1, 0.5, 0.75: cell 1 is best
OBJECTIVES = {
    "actor-critic": lambda **shared: ActorCritic(**shared),
    "ppo": lambda **shared: PPO(epochs=2, minibatches=2, **shared),
    "grpo": lambda **shared: GRPO(group_size=8, **shared),
    "grpo in passes": lambda **shared: GRPO(group_size=4, epochs=2, minibatches=2, **shared),
    "expected": lambda **shared: ExpectedGradient(**shared),
    "reward-augmented": lambda **shared: RewardAugmentedLikelihood(**shared),
}


def train(bandit, objective, steps, seed=0, lr=0.1):
    optimizer = torch.optim.Adam(bandit.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for result in objective.losses(bandit, bandit_clip(), generator):
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
    return result


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_policy_finds_the_best_cell(name):
    bandit = Bandit(WIDTHS)
    objective = OBJECTIVES[name]()
    result = train(bandit, objective, 150 // objective.updates + 60)
    assert bandit.logits.softmax(0)[1] > 0.9
    assert result.logs["best_iou"] == pytest.approx(1)
    assert result.logs["greedy_iou"] == pytest.approx(1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_updates_are_as_many_as_promised(name):
    objective = OBJECTIVES[name]()
    assert len(list(objective.losses(Bandit(WIDTHS), bandit_clip(), torch.Generator()))) == objective.updates


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_entropy_bonus_keeps_the_policy_open(name):
    """With reward r and bonus w, the best policy is softmax(r / w) of the (scaled) rewards: never one cell alone."""
    bandit = Bandit(WIDTHS)
    train(bandit, OBJECTIVES[name](entropy_weight=5.0), 100)
    assert bandit.logits.softmax(0).max() < 0.6


def gradient_of(bandit, loss):
    bandit.logits.grad = None
    loss.backward()
    return bandit.logits.grad.clone()


def test_the_expected_gradient_is_the_mean_of_sampled_ones():
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    generator = torch.Generator().manual_seed(1)
    exact = gradient_of(bandit, ExpectedGradient(normalise_advantages=False)(bandit, bandit_clip(1, 3), generator).loss)
    sampler = ActorCritic(normalise_advantages=False, value_weight=0.0)
    samples = torch.stack(
        [gradient_of(bandit, sampler(bandit, bandit_clip(64, 3), generator).loss) for _ in range(400)]
    )
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - exact).abs() < 4 * error).all()
    assert error.max() < 0.1 * exact.abs().max()  # the comparison means something


def test_the_expected_gradient_of_iou_is_the_gradient_of_the_mean():
    """d/dz of sum(p r) by hand: p (r - sum(p r))."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    objective = ExpectedGradient(rewards=[IoUReward()], normalise_advantages=False)
    gradient = gradient_of(bandit, objective(bandit, bandit_clip(5, 3), torch.Generator()).loss)
    policy, iou = bandit.logits.detach().softmax(0), torch.tensor(WIDTHS) / 0.4
    torch.testing.assert_close(gradient, -policy * (iou - policy @ iou))


def test_reward_augmented_likelihood_pulls_a_good_cell_however_unlikely_it_is():
    """By hand: the gradient is the policy minus softmax(r / temperature); a policy gradient vanishes where p does."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([20.0, 0.0, 0.0, 0.0])  # sure of the worst cell
    policy, iou = bandit.logits.detach().softmax(0), torch.tensor(WIDTHS) / 0.4
    objective = RewardAugmentedLikelihood(0.2, rewards=[IoUReward()])
    gradient = gradient_of(bandit, objective(bandit, bandit_clip(5, 3), torch.Generator()).loss)
    torch.testing.assert_close(gradient, policy - (iou / 0.2).softmax(0))
    expected = ExpectedGradient(rewards=[IoUReward()], normalise_advantages=False)
    assert gradient_of(bandit, expected(bandit, bandit_clip(5, 3), torch.Generator()).loss).abs().max() < 1e-7


def test_reward_augmented_likelihood_and_an_entropy_bonus_have_one_optimum():
    settings = {"rewards": [IoUReward()]}
    expected = ExpectedGradient(entropy_weight=0.3, normalise_advantages=False, **settings)
    for objective in (RewardAugmentedLikelihood(0.3, **settings), expected):
        bandit = Bandit(WIDTHS)
        train(bandit, objective, 300, lr=0.05)
        optimum = (torch.tensor(WIDTHS) / 0.4 / 0.3).softmax(0)
        torch.testing.assert_close(bandit.logits.detach().softmax(0), optimum, atol=1e-3, rtol=0)


def test_prior_likelihood_fits_the_policy_to_the_map():
    """By hand: of four cells the upper two have their centres in the box, so half the probability each is due them."""
    clip = replace(bandit_clip(5, 3), search_boxes_xywh=torch.tensor([0.2, 0.2, 0.7, 0.4]).expand(5, 3, 4))
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    gradient = gradient_of(bandit, PriorLikelihood(BinaryPrior())(bandit, clip, torch.Generator()).loss)
    torch.testing.assert_close(gradient, bandit.logits.detach().softmax(0) - torch.tensor([0.5, 0.5, 0.0, 0.0]))


@pytest.mark.parametrize("make", [RewardAugmentedLikelihood, partial(PriorLikelihood, GaussianPrior())])
@pytest.mark.parametrize("box_cell", ["sampled", "greedy", "target"])
def test_a_target_outside_the_crop_teaches_nothing(make, box_cell):
    """In a closed loop a target may be seen by the camera, not lost yet, and still lie beside the search region."""
    network, clip = make_network().eval(), make_clip(2, 2)  # BatchNorm would let clips see each other
    clip.search_boxes_xywh[0] = torch.tensor([1.2, 0.4, 0.5, 0.3])
    objective = make(rewards=[IoUReward()], box_weight=1.0, box_cell=box_cell)
    losses = [
        objective(network, clips, torch.Generator().manual_seed(0)).logs
        for clips in (clip, clip.select(torch.tensor([1])))
    ]
    assert losses[0]["policy_loss"] == pytest.approx(losses[1]["policy_loss"].item(), rel=1e-4)
    if box_cell != "sampled":  # which draws other cells for other batches
        assert losses[0]["box_loss"] == pytest.approx(losses[1]["box_loss"].item(), rel=1e-4)


def test_a_temperature_must_be_positive():
    with pytest.raises(UserError, match="temperature = 0"):
        RewardAugmentedLikelihood(0.0)


def test_rewards_of_cells_are_those_of_clips_with_one_cell_changed():
    rollout = TeacherForced()(make_network(), make_clip(3, 3), [IoUReward()], torch.Generator().manual_seed(0))
    terms = [IoUReward(0.7), AUCReward(2.0)]
    rewards = cell_rewards(rollout, terms)
    ious = rollout.cell_ious.flatten(2)
    for clip, frame, cell in ((0, 0, 5), (1, 2, 40), (2, 1, 63)):
        row = rollout.ious[clip].clone()
        row[frame] = ious[clip, frame, cell]
        successes = [(row > threshold).double().mean() for threshold in torch.linspace(0, 1, 21, dtype=torch.float64)]
        auc = torch.trapezoid(torch.stack(successes), dx=0.05)
        assert rewards[clip, frame, cell].item() == pytest.approx(0.7 * row[frame].item() + 2 * auc.item(), abs=1e-5)


def test_the_clipped_loss_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    new, old, advantages = torch.randn(3, 5, 7, generator=generator).unbind(0)
    present = torch.rand(5, 7, generator=generator) > 0.3
    loss, moved = surrogate_loss(new - old, advantages, present, 0.2)
    terms, outside = [], 0
    for n, o, a in zip(new[present].tolist(), old[present].tolist(), advantages[present].tolist(), strict=True):
        ratio = math.exp(n - o)
        terms.append(min(ratio * a, max(0.8, min(1.2, ratio)) * a))
        outside += not 0.8 <= ratio <= 1.2
    assert loss.item() == pytest.approx(-sum(terms) / len(terms), rel=1e-5)
    assert moved["clip_share"].item() == pytest.approx(outside / len(terms))
    assert moved["kl"] >= 0


def test_the_first_step_of_ppo_is_that_of_actor_critic():
    network, clip = make_network(), make_clip(4, 3)
    network.eval()
    gradients = []
    for objective in (ActorCritic(), PPO(epochs=1, minibatches=1)):
        network.zero_grad()
        next(objective.losses(network, clip, torch.Generator().manual_seed(3))).loss.backward()
        gradients.append(network.policy.tower[0][0].weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_ppo_stops_pushing_where_the_ratio_is_clipped():
    """Good actions whose probability has risen by more than the range, and bad ones that have fallen, pull no more."""
    log_ratio = torch.tensor([[0.5, -0.5]], requires_grad=True)
    present = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = surrogate_loss(log_ratio, torch.tensor([[1.0, -1.0]]), present, clip_ratio=0.2)
    loss.backward()
    assert log_ratio.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("objective", [PPO(minibatches=3), GRPO(group_size=4, epochs=2, minibatches=3)])
def test_a_policy_that_has_not_moved_is_not_clipped(objective):
    """Though BatchNorm's statistics are those of the clips it sees."""
    network, clip = make_network().train(), make_clip(6, 2)
    with torch.no_grad():
        network.policy.tower[-1].weight.mul_(30)  # a peaked policy, whose probabilities change at a touch
    for result in objective.losses(network, clip, torch.Generator().manual_seed(0)):
        assert result.logs["kl"] == pytest.approx(0, abs=1e-5)
        assert result.logs["clip_share"] == 0
        assert len(result.rollout.actions) == 6 * objective.samples, "figures count every walk"


def test_later_steps_of_ppo_compare_with_the_policy_that_acted():
    """Two passes over one rollout in plain Python: only the ratio moves; advantages and returns stay."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    bandit.baseline.data = torch.tensor(0.4)
    objective = PPO(clip_ratio=0.1, epochs=2, minibatches=1, rewards=[IoUReward()], normalise_advantages=False)
    results = objective.losses(bandit, bandit_clip(8, 2), torch.Generator().manual_seed(0))
    first = next(results)
    actions = first.rollout.actions.flatten().tolist()
    old = bandit.logits.detach().log_softmax(0).tolist()
    bandit.logits.data = torch.tensor([0.6, -0.2, 0.5, 0.1])
    bandit.baseline.data = torch.tensor(0.7)
    second = next(results)
    new = bandit.logits.detach().log_softmax(0).tolist()
    total = 0.0
    for cell in actions:
        reward = WIDTHS[cell] / 0.4
        ratio = math.exp(new[cell] - old[cell])
        surrogate = min(ratio * (reward - 0.4), max(0.9, min(1.1, ratio)) * (reward - 0.4))
        total += -surrogate + 0.5 * (0.7 - reward) ** 2
    assert sorted(second.rollout.actions.flatten().tolist()) == sorted(actions)
    assert second.loss.item() == pytest.approx(total / len(actions), rel=1e-5)


def test_the_loss_of_grpo_is_that_of_the_paper():
    """Its second pass in plain Python: standard scores within a group of walks of one clip, frame by frame; clipped."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    objective = GRPO(group_size=4, clip_ratio=0.1, epochs=2, rewards=[IoUReward()])
    results = objective.losses(bandit, bandit_clip(3, 2), torch.Generator().manual_seed(0))
    next(results)
    old = bandit.logits.detach().log_softmax(0).tolist()
    bandit.logits.data = torch.tensor([0.6, -0.2, 0.5, 0.1])
    second = next(results)
    new = bandit.logits.detach().log_softmax(0).tolist()
    walks = second.rollout.actions.tolist()
    total = 0.0
    for group in range(3):
        for frame in range(2):
            cells = [walk[frame] for walk in walks[4 * group : 4 * group + 4]]
            rewards = [WIDTHS[cell] / 0.4 for cell in cells]
            mean = sum(rewards) / 4
            deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 4)
            for cell, reward in zip(cells, rewards, strict=True):
                advantage = (reward - mean) / (deviation + 1e-6)
                ratio = math.exp(new[cell] - old[cell])
                total -= min(ratio * advantage, max(0.9, min(1.1, ratio)) * advantage)
    assert second.loss.item() == pytest.approx(total / 24, rel=1e-4)


def test_ppo_explains_the_returns_that_its_critic_learns():
    network, clip = make_network().eval(), make_clip(4, 3)
    told = [
        next(objective.losses(network, clip, torch.Generator().manual_seed(3))).logs["explained_variance"]
        for objective in (ActorCritic(discount=0.9), PPO(minibatches=1, discount=0.9))
    ]
    torch.testing.assert_close(told[0], told[1], rtol=1e-4, atol=1e-6)


def test_a_constant_reward_leaves_nothing_to_explain():
    bandit, clip = Bandit([0.4] * 4), bandit_clip()
    assert ActorCritic()(bandit, clip, torch.Generator()).logs["explained_variance"] == 0


@pytest.mark.parametrize(
    ("make", "parts", "reason"),
    [
        (ActorCritic, ["policy", "critic", "box"], "box_weight above 0"),
        (ExpectedGradient, ["policy", "critic"], "no critic as it is set"),
        (GRPO, ["policy", "prior"], "trains no prior"),
        (PPO, ["policy", "presence"], "trains no presence head"),
    ],
)
def test_parts_that_no_loss_reaches_are_refused(make, parts, reason):
    with pytest.raises(UserError, match=reason):
        make(trained_parts=parts)


@pytest.mark.parametrize("make", [ActorCritic, PPO, partial(GRPO, epochs=2), ExpectedGradient])
def test_a_picture_that_is_no_number_shows_in_the_loss(make):
    """So that the run stops with the names of the clips, and not where cells are drawn."""
    network, clip = make_network(), make_clip(4, 2)
    clip.search_images[1, 0, 0, 3, 5] = torch.nan
    result = next(make().losses(network, clip, torch.Generator().manual_seed(0)))
    assert result.loss.isnan()


@pytest.mark.parametrize("objective", [ActorCritic(), ExpectedGradient()])
def test_what_a_step_keeps_does_not_grow_with_the_encoder(objective):
    kept = []
    for depth in (2, 6):
        network, clip = make_network(depth=depth), make_clip(2, 3)
        for name, part in network.named_children():
            part.requires_grad_(name in objective.trained_parts)
        sizes = []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            objective(network, clip, torch.Generator().manual_seed(0))
        kept.append(sorted(sizes))
    assert kept[0] == kept[1]


def test_group_advantages_are_standard_scores_within_each_group():
    rewards = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    advantages = group_advantages(rewards, 3)
    for group in range(2):
        for frame in range(4):
            values = rewards[3 * group : 3 * group + 3, frame].tolist()
            mean = sum(values) / 3
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 3)
            expected = [(v - mean) / deviation for v in values]
            assert advantages[3 * group : 3 * group + 3, frame].tolist() == pytest.approx(expected, abs=1e-3)


def test_grpo_draws_a_group_of_actions_for_every_state():
    network, clip = make_network(), make_clip(2, 3)
    rollout = GRPO(group_size=16).collect(network, clip, torch.Generator().manual_seed(0))
    assert rollout.actions.shape == (32, 3)
    assert len(rollout.actions[:16, 0].unique()) > 1
    torch.testing.assert_close(rollout.logits[0], rollout.logits[15])
    assert not torch.equal(rollout.logits[15], rollout.logits[16])


def test_grpo_needs_no_critic():
    bandit = Bandit(WIDTHS)
    bandit.critic = None
    assert GRPO()(bandit, bandit_clip(), torch.Generator()).loss.isfinite()
    with pytest.raises(UserError, match="PPO needs a critic"):
        PPO().check(bandit)


def test_what_follows_an_action_counts_with_a_discount():
    """Expected rewards of the frame and sampled ones of later frames: in the mean, the gradient of the whole return."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    bandit.baseline.data = torch.tensor(0.4)
    generator = torch.Generator().manual_seed(1)
    settings = {"rewards": [IoUReward()], "normalise_advantages": False, "discount": 0.8, "value_weight": 0.0}
    means, errors = [], []
    for objective in (ExpectedGradient(**settings), ActorCritic(**settings)):
        samples = torch.stack(
            [gradient_of(bandit, objective(bandit, bandit_clip(64, 3), generator).loss) for _ in range(300)]
        )
        means.append(samples.mean(0))
        errors.append(samples.std(0) / math.sqrt(len(samples)))
    assert ((means[0] - means[1]).abs() < 4 * (errors[0].square() + errors[1].square()).sqrt()).all()
    assert errors[0].max() < 0.1 * means[0].abs().max()  # the comparison means something


def test_a_critic_that_is_wrong_everywhere_alike_does_no_harm():
    """As one is that has not learned yet: it would call whatever followed the chosen cells good."""
    bandit = Bandit(WIDTHS)
    bandit.logits.data = torch.tensor([0.3, -0.5, 0.8, 0.1])
    objective = ExpectedGradient(discount=0.9, value_weight=0.0)
    gradients = []
    for baseline in (0.0, 7.0):
        bandit.baseline.data = torch.tensor(baseline)
        loss = objective(bandit, bandit_clip(8, 3), torch.Generator().manual_seed(0)).loss
        gradients.append(gradient_of(bandit, loss))
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.01


@pytest.mark.parametrize("setting", [{"minibatches": 0}, {"epochs": 0}])
def test_empty_passes_are_refused(setting):
    with pytest.raises(UserError, match="= 0; it must be a whole number from 1"):
        PPO(**setting)


def test_more_minibatches_than_walks_are_refused():
    with pytest.raises(UserError, match="cannot be split into 5 minibatches"):
        list(PPO(minibatches=5).losses(Bandit(WIDTHS), bandit_clip(4), torch.Generator()))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("frames_per_group", [None, 2])
def test_looking_again_at_a_rollout_sees_the_same(frozen, mode, frames_per_group):
    network, clip = make_network().train(mode == "train"), make_clip(3, 2 if frames_per_group is None else 4)
    network.encoder.requires_grad_(not frozen)
    network.propagator.requires_grad_(not frozen)
    rollout = TeacherForced(frames_per_group)(network, clip, [IoUReward()], torch.Generator().manual_seed(0), samples=2)
    rows = torch.tensor([5, 0, 2])
    again = reevaluate(network, clip, rollout).select(rows)
    torch.testing.assert_close(again.log_probs, rollout.log_probs[rows])
    torch.testing.assert_close(again.values, rollout.values[rows])
    torch.testing.assert_close(again.rewards, rollout.rewards[rows])
    if not frozen:
        again.log_probs.sum().backward()
        assert network.encoder.embed.weight.grad.abs().sum() > 0


def groups_as_clips(clip, frames):
    """Each group of so many frames as a clip of its own, group after group."""
    return [
        replace(
            clip,
            search_images=clip.search_images[:, start : start + frames],
            search_boxes_xywh=clip.search_boxes_xywh[:, start : start + frames],
            present=clip.present[:, start : start + frames],
        )
        for start in range(0, clip.search_images.shape[1], frames)
    ]


@torch.no_grad()
def test_every_group_of_frames_begins_without_memory():
    network, clip = make_network().eval(), make_clip(2, 6)

    def roll_out(rule, clip):
        return rule(network, clip, [IoUReward(), AUCReward()], torch.Generator().manual_seed(0))

    grouped, whole = roll_out(TeacherForced(2), clip), roll_out(TeacherForced(), clip)
    alone = [roll_out(TeacherForced(), part) for part in groups_as_clips(clip, 2)]
    for name in ("logits", "values", "cells_xyxy", "truth_xyxy", "search_images"):
        torch.testing.assert_close(getattr(grouped, name), torch.cat([getattr(r, name) for r in alone], 1))
    torch.testing.assert_close(grouped.logits[:, 1], whole.logits[:, 1])
    assert not torch.equal(grouped.logits[:, 2], whole.logits[:, 2])
    torch.testing.assert_close(roll_out(TeacherForced(6), clip).logits, whole.logits)
    auc = grouped.terms["AUCReward"]
    assert torch.equal(auc, auc[:, :1].expand_as(auc)), "of the clip, not of each group"


@torch.no_grad()
def test_warmup_and_prior_learn_from_groups_as_from_clips():
    network, clip = make_network().eval(), make_clip(2, 6)
    clip.present[0, 1] = clip.present[1, 4] = clip.present[0, 5] = False
    for make in (partial(WarmupObjective, prior=GaussianPrior()), partial(PriorObjective, GaussianPrior())):
        grouped, whole = (make(frames_per_group=frames)(network, clip, torch.Generator()).loss for frames in (2, None))
        parts = groups_as_clips(clip, 2)
        alone = torch.stack([make()(network, part, torch.Generator()).loss for part in parts])
        counts = torch.stack([part.present.sum() for part in parts])
        torch.testing.assert_close(grouped, (alone * counts).sum() / counts.sum())
        assert grouped != whole


@pytest.mark.parametrize("frames", [4, 8])
def test_frames_that_do_not_form_groups_are_refused(frames):
    network, clip = make_network(), make_clip(1, 6)
    for objective in (ActorCritic(rollout=TeacherForced(frames)), WarmupObjective(frames_per_group=frames)):
        with pytest.raises(UserError, match=f"6 search frames of a clip do not form groups of {frames}:.*divisor"):
            objective(network, clip, torch.Generator())


def test_a_target_whose_released_map_is_empty_teaches_nothing():
    network, clip = make_network().eval(), make_clip(2, 1)
    objective = PriorLikelihood(GaussianPrior(released=True))
    clip.search_boxes_xywh[0, 0] = torch.tensor([0.98, 0.4, 0.01, 0.01])  # its nearest corner is beyond the map
    both = objective(network, clip, torch.Generator().manual_seed(0)).loss
    assert both.isfinite()
    clip.present[0, 0] = False
    torch.testing.assert_close(objective(network, clip, torch.Generator().manual_seed(0)).loss, both)


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.0, 1.0), (0.9, 1.0), (0.9, 0.5), (1.0, 0.0)])
def test_advantages_are_the_weighted_sum_of_differences(discount, gae_lambda):
    """Sum over l of (discount lambda)^l delta_(t + l), cut at restarts (Schulman et al., equation 16)."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 6, generator=generator).unbind(0)
    restarts = torch.zeros(3, 6, dtype=torch.bool)
    restarts[1, 2] = restarts[2, 4] = True
    advantages, returns = generalized_advantages(rewards, values, restarts, discount, gae_lambda)
    for walk in range(3):
        for t in range(6):
            total, factor = 0.0, 1.0
            for s in range(t, 6):
                ends = s == 5 or bool(restarts[walk, s])
                following = 0.0 if ends else values[walk, s + 1].item()
                total += factor * (rewards[walk, s].item() + discount * following - values[walk, s].item())
                factor *= discount * gae_lambda
                if ends:
                    break
            assert advantages[walk, t].item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(returns, advantages + values)


def test_without_discount_the_return_is_the_reward():
    rewards, values = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    advantages, returns = generalized_advantages(rewards, values, None, 0.0, 1.0)
    torch.testing.assert_close(advantages, rewards - values)
    torch.testing.assert_close(returns, rewards)


def test_a_divergence_from_the_prior_pulls_the_policy_to_it():
    network, clip = make_network(), make_clip(2, 2)
    network.requires_grad_(False)
    network.policy.requires_grad_(True)
    objective = ExpectedGradient(rewards=[IoUReward(weight=0.0)], prior_weight=1.0)
    optimizer = torch.optim.Adam(network.policy.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        result = objective(network, clip, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.logs["prior_loss"].item())
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] >= 0


@pytest.mark.parametrize("box_cell", ["sampled", "greedy", "target"])
def test_boxes_learn_at_the_cell_that_is_named(box_cell):
    generator = torch.Generator().manual_seed(0)
    rollout = TeacherForced()(make_network(), make_clip(3, 2), [IoUReward()], generator)
    for walk in range(3):
        for t in range(2):
            x1, y1, x2, y2 = rollout.truth_xyxy[walk, t].tolist()
            side = rollout.logits.shape[-1]
            cell = {
                "sampled": rollout.actions[walk, t].item(),
                "greedy": rollout.logits[walk, t].argmax().item(),
                "target": int((y1 + y2) / 2 * side) * side + int((x1 + x2) / 2 * side),
            }[box_cell]
            expected = rollout.cells_xyxy[walk, t].flatten(0, 1)[cell]
            assert torch.equal(trained_boxes_xyxy(rollout, box_cell)[walk, t], expected)


def test_boxes_learn_along():
    network, clip = make_network(), make_clip(2, 2)
    objective = ExpectedGradient(box_weight=1.0, trained_parts=["policy", "box"])
    objective(network, clip, torch.Generator().manual_seed(0)).loss.backward()
    assert network.box.size[0][0].weight.grad.abs().sum() > 0
    network.zero_grad()
    ExpectedGradient()(network, clip, torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in network.box.parameters())

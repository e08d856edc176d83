"""Numbers of objectives, rewards, priors, rollouts and figures are refused where they enter, by the setting's name."""

from functools import partial

import pytest
import torch

from relo.errors import UserError
from relo.learning.clipped import GRPO, PPO
from relo.learning.closed_loop import ClosedLoop
from relo.learning.expected import ExpectedGradient, RewardAugmentedLikelihood
from relo.learning.policy import ActorCritic
from relo.learning.presence import PresenceObjective, TrackedPresence
from relo.learning.prior_training import PriorLikelihood, PriorObjective
from relo.learning.priors import CornerExpectation, GaussianPrior
from relo.learning.rewards import AUCReward, CenterPrecisionReward, GIoUReward, IoUReward
from relo.learning.rollout import TeacherForced
from relo.learning.warmup import WarmupObjective
from relo.models.presence import ConvPresence, best_peaks
from relo.training.monitoring import HealthTable, PolicyFigures
from small_networks import make_network

NAN, INFINITY = float("nan"), float("inf")
NO_WEIGHT = (-1, NAN, INFINITY, 1e300, True)
NO_SHARE = (-0.1, 1.1, NAN)
NO_COUNT = (0, -1, 2**70, 1.5)
ADDED = ("entropy_weight", "prior_weight", "box_weight")  # to a policy's loss

REFUSED = [
    (GaussianPrior, ("min_overlap",), (NAN, -1, 0, 1, INFINITY)),
    (GaussianPrior, ("alpha", "beta"), (-1, 1e9, 1e12, NAN)),
    (CornerExpectation, ("giou_weight", "l1_weight"), NO_WEIGHT),
    *((reward, ("weight",), NO_WEIGHT) for reward in (IoUReward, GIoUReward, CenterPrecisionReward, AUCReward)),
    (AUCReward, ("thresholds",), (-1, 0, 1, 10**30, 2.5)),
    (TeacherForced, ("frames_per_group",), NO_COUNT),
    (ClosedLoop, ("jitter",), (NAN, -1, 1e300, INFINITY)),
    (ClosedLoop, ("size_limit",), (NAN, -1, 1, INFINITY)),
    (ClosedLoop, ("drift_limit",), (NAN, -1, 0, INFINITY)),
    (ClosedLoop, ("restart_cost",), NO_WEIGHT),
    (WarmupObjective, ("giou_weight", "l1_weight", "prior_weight", "presence_weight"), NO_WEIGHT),
    (WarmupObjective, ("frames_per_group",), NO_COUNT),
    (partial(PriorObjective, GaussianPrior()), ("prior_weight", "box_weight"), NO_WEIGHT),
    (partial(PriorObjective, GaussianPrior()), ("frames_per_group",), NO_COUNT),
    (partial(PriorLikelihood, GaussianPrior()), ADDED, NO_WEIGHT),
    (ActorCritic, (*ADDED, "value_weight"), NO_WEIGHT),
    *((objective, ("discount", "gae_lambda"), NO_SHARE) for objective in (ActorCritic, PPO, ExpectedGradient)),
    *((objective, ("clip_ratio",), (0, *NO_SHARE)) for objective in (PPO, GRPO)),
    *((objective, ("epochs", "minibatches"), (*NO_COUNT, 10**6)) for objective in (PPO, GRPO)),
    (GRPO, ("group_size",), (-1, 0, 1, 10**6, 2.5)),
    (RewardAugmentedLikelihood, ("temperature",), (0, -1, NAN, INFINITY)),
    (PresenceObjective, ("peaks", "frames_per_group"), NO_COUNT),
    (TrackedPresence, ("updates", "peaks"), NO_COUNT),
    (TrackedPresence, ("jitter",), (NAN, -1, 1e300)),
    (HealthTable, ("every_n_steps",), (0, -1, 2**70)),
    (PolicyFigures, ("every_n_steps",), (0, -1, 2**70)),
    (PolicyFigures, ("frames",), (*NO_COUNT, 65)),
]


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        pytest.param(make, setting, value, id=f"{getattr(make, 'func', make).__name__}-{setting}-{value}")
        for make, settings, values in REFUSED
        for setting in settings
        for value in values
    ],
)
def test_a_number_out_of_range(make, setting, value):
    with pytest.raises(UserError, match=setting) as error:
        make(**{setting: value})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (GaussianPrior, {"min_overlap": 0.01, "alpha": 0, "beta": 100}),
        (CornerExpectation, {"giou_weight": 0, "l1_weight": 0}),
        (AUCReward, {"weight": 0, "thresholds": 2}),
        (TeacherForced, {"frames_per_group": 1}),
        (ClosedLoop, {"jitter": 0, "size_limit": 1.01, "drift_limit": 0.01, "restart_cost": 0}),
        (WarmupObjective, {"giou_weight": 0, "l1_weight": 0, "prior_weight": 0}),
        (PPO, {"clip_ratio": 1, "epochs": 1, "minibatches": 1, "discount": 1, "gae_lambda": 0, "value_weight": 0}),
        (GRPO, {"group_size": 2, "entropy_weight": 0, "prior_weight": 0, "box_weight": 0}),
        (TrackedPresence, {"updates": 1, "peaks": 1, "jitter": 0}),
        (PolicyFigures, {"every_n_steps": 1, "frames": 1}),
    ],
)
def test_the_ends_of_the_ranges_are_taken(make, settings):
    made = make(**settings)
    for setting, value in settings.items():
        assert getattr(made, "samples" if setting == "group_size" else setting) == value


@pytest.mark.parametrize("objective", [PresenceObjective, TrackedPresence])
def test_more_peaks_than_cells(objective):
    network = make_network()
    network.presence = ConvPresence(16)
    objective(peaks=64).check(network)
    with pytest.raises(UserError, match="peaks = 65, but the network's map has 64 cells"):
        objective(peaks=65).check(network)


def test_a_map_of_one_cell_has_as_many_peaks_as_are_read():
    values, cells = best_peaks(torch.tensor([[[2.0]], [[3.0]]]), 3)
    assert values.tolist() == [[2, 2, 2], [3, 3, 3]]
    assert cells.tolist() == [[0, 0, 0]] * 2
    odds = ConvPresence(4)(torch.randn(2, 4, 1, 1), torch.randn(2, 1, 1), torch.rand(2, 1, 1, 4))
    assert odds.shape == (2, 1, 1)
    assert odds.isfinite().all()

"""What the module sets up: first weights and learning rates."""

import math
from functools import partial

import pytest
import torch

from relo.errors import UserError
from relo.learning.policy import ActorCritic
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.heads import ConvCritic, ConvPrior
from relo.training.module import RELOModule
from small_networks import make_network

make_adamw = partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4)


def rates(module):
    """The learning rate of every parameter that learns, by its part."""
    names = {id(p): name.partition(".")[0] for name, p in module.network.named_parameters()}
    optimizer = module.configure_optimizers()
    found = {(names[id(p)], group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    return dict(sorted(found))


@pytest.mark.parametrize(("parts", "tokens"), [(("encoder",), 1e-3), (("encoder", "propagator"), 1e-4)])
def test_parts_that_learn_at_the_encoders_rate(parts, tokens):
    objective = WarmupObjective(prior=GaussianPrior())
    settings = {"optimizer": make_adamw, "encoder_lr_factor": 0.1, "encoder_lr_parts": parts}
    found = rates(RELOModule(make_network(), objective, **settings))
    assert found == pytest.approx({"box": 1e-3, "encoder": 1e-4, "prior": 1e-3, "propagator": tokens})
    found = rates(RELOModule(make_network(), ActorCritic(), **settings))
    assert found == {"critic": 1e-3, "policy": 1e-3}


ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, total_steps=10)
CYCLIC = partial(torch.optim.lr_scheduler.CyclicLR, cycle_momentum=False)


@pytest.mark.parametrize(
    ("scheduler", "trained_parts"),
    [
        (partial(ONE_CYCLE, max_lr=1e-3), None),
        (partial(ONE_CYCLE, max_lr=1e-3), ("encoder",)),
        (partial(CYCLIC, base_lr=1e-4, max_lr=1e-3), None),
        (partial(CYCLIC, base_lr=[1e-4, 1e-5], max_lr=1e-3), None),
    ],
)
def test_a_schedule_that_would_train_the_encoder_at_another_rate_is_refused(scheduler, trained_parts):
    objective = WarmupObjective(prior=GaussianPrior())
    objective.trained_parts = trained_parts or objective.trained_parts
    settings = {"optimizer": make_adamw, "scheduler": scheduler}
    with pytest.raises(UserError, match=r"model\.encoder_lr_factor 0\.1 does not reach"):
        RELOModule(make_network(), objective, encoder_lr_factor=0.1, **settings).configure_optimizers()
    RELOModule(make_network(), objective, **settings).configure_optimizers()  # with a factor of 1


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(ONE_CYCLE, max_lr=[1e-3, 1e-4]),
        partial(CYCLIC, base_lr=[1e-4, 1e-5], max_lr=[1e-3, 1e-4]),
        partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.5),
        torch.optim.lr_scheduler.ReduceLROnPlateau,
    ],
)
def test_schedules_that_keep_the_encoders_rate(scheduler):
    settings = {"optimizer": make_adamw, "scheduler": scheduler, "encoder_lr_factor": 0.1}
    module = RELOModule(make_network(), WarmupObjective(prior=GaussianPrior()), **settings)
    others, encoder = module.configure_optimizers()["optimizer"].param_groups
    assert encoder["lr"] == pytest.approx(0.1 * others["lr"])


def test_a_part_that_there_is_not_has_no_rate():
    with pytest.raises(UserError, match="no part 'tokens'"):
        RELOModule(make_network(), ActorCritic(), encoder_lr_parts=["tokens"])


def test_first_weights_of_the_release():
    network = make_network()
    network.prior = ConvPrior(16, hidden=(256, 128))
    network.critic = ConvCritic(16, hidden=(256, 128))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    RELOModule(network, ActorCritic(), released_start=True)
    assert not network.propagator.learned_tokens.any()
    assert not any(vector.any() for vector in network.encoder.types.parameters())
    for layer in (network.prior.tower[1][0], network.critic.convolutions[1][0]):  # 256 -> 128 channels, 3 x 3
        bound = math.sqrt(6 / (9 * (256 + 128)))
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=1e-2)
    heads = ("policy", "box", "critic", "prior")
    for name, tensor in network.state_dict().items():
        starts = tensor.dim() > 1 and name.startswith(heads)
        starts = starts or name == "propagator.learned_tokens" or name.startswith("encoder.types.")
        assert torch.equal(tensor, before[name]) != starts, name


def test_first_weights_stay_the_networks_own_unless_asked():
    network = make_network()
    RELOModule(network, ActorCritic())
    assert all(torch.equal(tensor, network.state_dict()[n]) for n, tensor in make_network().state_dict().items())

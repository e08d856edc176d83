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

"""Layers that are computed anew in the backward pass: the same gradients from less memory."""

import copy

import pytest
import torch
from torch import nn

from relo.data.clip_batch import ClipBatch
from relo.learning.policy import ActorCritic
from relo.learning.warmup import WarmupObjective
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.nano import Nano
from relo.models.encoders.timm_vit import TimmViT
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.training.module import RELOModule
from small_networks import make_clip

ENCODERS = {
    "fast-itpn": lambda: FastITPN(
        width=32, depth=3, heads=2, stage1=1, stage2=1, search_size=64, template_size=32, drop_path=0.5
    ),
    "nano": lambda: Nano(
        width=32,
        depth=3,
        heads=2,
        stem=(8, 16, 16),
        correlation_groups=4,
        channels=32,
        search_size=64,
        template_size=32,
    ),
    "timm": lambda: TimmViT("vit_tiny_patch16_224", search_size=64, template_size=32, depth=3, drop_path=0.5),
}


def make_network(encoder: str) -> LocalizationNetwork:
    torch.manual_seed(0)
    made = ENCODERS[encoder]()
    heads = {"channels": made.channels, "hidden": (8, 8)}
    propagator = LayerAligned(made.width, 2, 3, detach=False)
    return LocalizationNetwork(made, propagator, ConvPolicy(**heads), ConvBox(**heads), ConvCritic(**heads))


def step(network: LocalizationNetwork, objective, checkpoint: bool, clip: ClipBatch):
    """Loss, gradients by name, and the bytes that were kept for the backward pass."""
    module = RELOModule(network, objective, checkpoint_activations=checkpoint, localizations=["policy"])
    module.train()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective(network, clip, torch.Generator().manual_seed(1)).loss
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_losses_and_gradients_stay(encoder):
    plain, frugal = make_network(encoder), make_network(encoder)
    clip = make_clip(frames=3)
    loss, gradients, kept = step(plain, WarmupObjective(), False, clip)
    other_loss, other_gradients, other_kept = step(frugal, WarmupObjective(), True, clip)
    torch.testing.assert_close(other_loss, loss, rtol=0, atol=1e-6)
    assert gradients.keys() == other_gradients.keys()
    assert any(name.startswith("encoder.blocks.2") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=0, atol=1e-6)
    assert other_kept < 0.7 * kept


def test_frozen_layers_run_once(monkeypatch):
    network = make_network("fast-itpn")
    runs = []
    monkeypatch.setattr(nn.Linear, "forward", counted(nn.Linear.forward, runs))
    step(copy.deepcopy(network), ActorCritic(), False, make_clip())
    plain = len(runs)
    step(network, ActorCritic(), True, make_clip())
    assert len(runs) == 2 * plain


def counted(function, runs):
    def run(*arguments):
        runs.append(function)
        return function(*arguments)

    return run

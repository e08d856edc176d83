"""Training steps against the public release's: the same weights and clips, the same losses and gradients.

`training_step.json` holds what the release's own actors, networks and losses gave for a network of its architecture
with 3 main blocks of 64 channels on search regions of 128 px, stochastic depth off, float32 on a CPU. Its warm-up has
neither policy nor critic.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded_tensors import seeded_inputs, seeded_targets, seeded_weight
from test_released_outputs import network_of
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.learning import rollout
from relo.learning.policy import ActorCritic
from relo.learning.priors import GaussianPrior
from relo.learning.rollout import TeacherForced
from relo.learning.warmup import WarmupObjective
from relo.models.checkpoints.released import released_names
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.fast_itpn_names import to_published_shape
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.tracking.rule import TrackingRule
from relo.training.module import RELOModule

RECORDED = json.loads(Path(__file__).with_name("training_step.json").read_text())

CASES: dict[str, dict[str, Any]] = {
    "warm-up": {"frames": 2, "templates": 2, "batch": 3, "reach": 0.3, "seed": 1},
    "warm-up, targets at the border": {"frames": 2, "templates": 1, "batch": 6, "reach": 0.6, "seed": 2},
    "warm-up, groups, two layers": {
        "frames": 6,
        "templates": 2,
        "batch": 2,
        "reach": 0.6,
        "seed": 3,
        "frames_per_group": 3,
        "layers": [0, 2],
    },
    "RL": {"frames": 8, "templates": 2, "batch": 2, "reach": 0.3, "seed": 4},
    "RL, groups, one layer": {
        "frames": 8,
        "templates": 1,
        "batch": 3,
        "reach": 0.6,
        "seed": 5,
        "frames_per_group": 4,
        "layers": [1],
    },
}


def small_network(layers: list[int] | None = None) -> LocalizationNetwork:
    heads = {"channels": 64, "hidden": (32, 16, 8, 4)}
    encoder = FastITPN(64, 3, heads=4, stage1=1, stage2=1, search_size=128, template_size=64, drop_path=0.0)
    propagator = LayerAligned(64, tokens=3, depth=3, layers=layers)
    return LocalizationNetwork(
        encoder, propagator, ConvPolicy(**heads), ConvBox(**heads), ConvCritic(**heads), ConvPrior(**heads)
    )


def released_objective(stage: str, frames_per_group: int | None = None) -> WarmupObjective | ActorCritic:
    if stage == "RL":
        return ActorCritic(released=True, rollout=TeacherForced(frames_per_group))
    return WarmupObjective(prior=GaussianPrior(released=True), box_cell="prior", frames_per_group=frames_per_group)


def released_step(
    network: LocalizationNetwork, objective: WarmupObjective | ActorCritic, clip: ClipBatch, weights_seed: int
) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Loss, logs and the norm of every gradient, by its released name, from weights drawn from a seed."""
    encoder = network.encoder
    rule = TrackingRule(released=True, template_size=encoder.template_size, search_size=encoder.search_size)
    module = RELOModule(network, objective, rule).train()
    names = released_names(network)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            shape = tuple(to_published_shape(name, tensor).shape)
            tensor.copy_(seeded_weight(names[name], shape, weights_seed).reshape(tensor.shape))
    result = module.objective(network, clip, torch.Generator())
    result.loss.backward()
    learned = {names[name]: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
    return result.loss.item(), result.logs, learned


def clip_of(inputs: tuple[Tensor, Tensor, Tensor], boxes_xywh: Tensor) -> ClipBatch:
    template_images, template_boxes_xywh, search_images = inputs
    batch, frames = len(template_images), len(search_images)
    return ClipBatch(
        template_images,
        template_boxes_xywh,
        search_images.transpose(0, 1),
        boxes_xywh.transpose(0, 1),
        torch.ones(batch, frames, dtype=torch.bool),
        ["made/clip"] * batch,
        torch.arange(frames).expand(batch, -1),
    )


def assert_same_gradients(found: dict[str, float], recorded: dict[str, float], relative: float = 1e-4) -> None:
    """Within a share of it, or what float32 leaves of sums that all but cancel beside a head's largest gradient."""
    assert found.keys() == recorded.keys()
    largest: defaultdict[str, float] = defaultdict(float)
    for name, norm in recorded.items():
        largest[name.split(".")[0]] = max(norm, largest[name.split(".")[0]])
    for name, norm in recorded.items():
        assert found[name] == pytest.approx(norm, rel=relative, abs=1e-5 * largest[name.split(".")[0]]), name


@pytest.mark.parametrize("case", CASES)
def test_step_matches_the_release(case, monkeypatch):
    settings = dict(CASES[case])
    frames, batch, seed = settings["frames"], settings["batch"], settings["seed"]
    boxes_xywh, actions = seeded_targets(frames, batch, cells=64, reach=settings["reach"], seed=seed)
    inputs = seeded_inputs(frames, settings["templates"], batch, seed, template_size=64, search_size=128)
    monkeypatch.setattr(rollout, "draw_cells", lambda logits, generator: actions.T)
    objective = released_objective(case.split(",")[0], settings.get("frames_per_group"))
    network = small_network(settings.get("layers"))
    loss, logs, learned = released_step(network, objective, clip_of(inputs, boxes_xywh), seed)
    recorded = RECORDED[case]
    assert loss == pytest.approx(recorded["loss"], abs=1e-5, rel=1e-6)
    for name, value in recorded["parts"].items():
        assert logs[name].item() == pytest.approx(value, abs=1e-5, rel=1e-5), name
    assert_same_gradients(learned, recorded["gradient_norms"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["warmup", "rl"])
def test_the_paper_networks_step_matches_the_release(stage, shared, monkeypatch):
    """T256's, against numbers that lie beside the project.

    Of its millions of ReLUs, one that rounding puts on the other side of zero moves all norms by up to 6e-4: the
    release's own step does so between one thread and two.
    """
    recorded = json.loads((shared / "reference/training_parity/t256.json").read_text())[stage]
    actions = torch.from_numpy(np.random.default_rng(9).integers(0, 256, (8, 3)))
    monkeypatch.setattr(rollout, "draw_cells", lambda logits, generator: actions.T)
    boxes_xywh = torch.tensor(recorded["search_boxes_xywh"], dtype=torch.float32)
    clip = clip_of(seeded_inputs(len(boxes_xywh), templates=1, batch=3, seed=5), boxes_xywh)
    network = network_of("t256")
    for module in network.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    loss, _, learned = released_step(network, released_objective(stage.upper()), clip, weights_seed=0)
    assert loss == pytest.approx(recorded["loss"], abs=1e-5)
    assert_same_gradients(learned, recorded["gradient_norms"], relative=1e-3)

"""The configs of the repository run, or at least build."""

import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from relo.data.clip_batch import ClipBatch
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.module import RELOModule
from relo.plugin import build
from relo.released import VARIANTS, read_variant, resolve_reference
from relo.tracking.rule import load_rule
from training_runs import WARMUP, config, losses, relo_here, write_config

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(CONFIGS.glob("model/*.yaml"))
STAGES = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if {"trainer", "model", "data"} <= (yaml.safe_load(path.read_text()) or {}).keys()
)


def name(path):
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_networks_build(path):
    with torch.device("meta"):
        network = build(resolve_reference(yaml.safe_load(path.read_text())))
    assert isinstance(network, LocalizationNetwork)
    assert network.policy is not None


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("tracking/*.yaml")), ids=name)
def test_tracking_rules_load(path):
    load_rule(path)


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_stages_parse(path, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, "--print_config", cwd=tmp_path)
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["network"]["class_path"].startswith("relo.models.")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_may_name_a_variant_of_the_release(data, variant, tmp_path, monkeypatch, capsys):
    content = config(data, WARMUP, rule=str(CONFIGS / f"tracking/{variant}.yaml"))
    content["model"]["network"] = str(CONFIGS / f"model/{variant}.yaml")
    path = write_config(tmp_path / "config.yaml", content)
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, "--print_config", cwd=tmp_path)
    assert stop.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    facts = read_variant(variant)
    encoder = facts["network"]["init_args"]["encoder"]["init_args"]
    assert encoder.items() <= model["network"]["init_args"]["encoder"]["init_args"].items()
    assert facts["tracking"].items() <= model["rule"].items()


def on_synthetic_data(data, steps=2):
    """Data paths and machine, and nothing else of a recipe."""
    return (
        f"--trainer.max_steps={steps}",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        f"--data.train=[{{path: {data.train}}}]",
        f"--data.validation=[{{path: {data.test}}}]",
        "--data.workers=0",
    )


def check_two_steps(folder):
    (run,) = (folder / "runs").glob("*")
    (last,) = run.glob("last.ckpt")
    assert last.stat().st_size > 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["warmup", "relo"])
def test_papers_recipe_takes_two_steps(data, stage, tmp_path, monkeypatch):
    path = CONFIGS / f"{stage}.yaml"
    batch = "--data.batch_size=1"
    relo_here(monkeypatch, "fit", "--config", path, *on_synthetic_data(data), batch, cwd=tmp_path)
    shutil.rmtree(check_two_steps(tmp_path))  # gigabytes of checkpoints


@pytest.mark.parametrize("stage", ["warmup", "relo"])
def test_papers_recipe_takes_two_steps_with_a_shallow_network(data, stage, tmp_path, monkeypatch):
    shallow = [
        "--model.network.init_args.encoder.init_args.depth=1",
        "--model.network.init_args.encoder.init_args.stage1=1",
        "--model.network.init_args.encoder.init_args.stage2=1",
        "--model.network.init_args.propagator.init_args.depth=1",
        "--data.batch_size=1",
        "--trainer.log_every_n_steps=1",
    ]
    if stage == "relo":
        shallow.append("--data.sampler.init_args.search_frames=2")
    path = CONFIGS / f"{stage}.yaml"
    relo_here(monkeypatch, "fit", "--config", path, *on_synthetic_data(data), *shallow, cwd=tmp_path)
    learned = losses(check_two_steps(tmp_path))
    assert len(learned) == 2
    assert all(math.isfinite(loss) for loss in learned.values())


@pytest.mark.parametrize("frames", [1, 2])
def test_every_learning_parameter_gets_a_gradient(frames):
    """As plain DDP demands."""
    heads = {"channels": 32, "hidden": (8, 8)}
    encoder = FastITPN(width=32, depth=2, heads=2, stage1=1, stage2=1, search_size=64, template_size=32)
    network = LocalizationNetwork(
        encoder, LayerAligned(32, 2, 2), ConvPolicy(**heads), ConvBox(**heads), ConvCritic(**heads), ConvPrior(**heads)
    )
    module = RELOModule(network, WarmupObjective(prior=GaussianPrior()))
    boxes_xywh = torch.tensor([0.3, 0.3, 0.4, 0.4]).expand(1, frames, 4)
    clip = ClipBatch(
        template_images=torch.randn(1, 1, 3, 32, 32),
        template_boxes_xywh=boxes_xywh[:, :1],
        search_images=torch.randn(1, frames, 3, 64, 64),
        search_boxes_xywh=boxes_xywh,
        present=torch.ones(1, frames, dtype=torch.bool),
        sequence_id=["made/clip"],
        frame_index=torch.arange(frames)[None],
    )
    module.objective(network, clip, torch.Generator()).loss.backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without

"""The configs of the repository run, or at least build."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from relo.data.clip_batch import ClipBatch
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.released import VARIANTS, read_variant, resolve_reference
from relo.models.checkpoints.weights import SHIPPED_FOLDER, load_network
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.tracking.rule import read_rule_file
from relo.tracking.tracker import Tracker
from relo.training.module import RELOModule
from training_runs import WARMUP, config, losses, relo_here, write_config

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(CONFIGS.glob("model/*.yaml"))


def command(path):
    """The arguments of `relo fit` that a config's first lines give."""
    header = path.read_text().partition("\ntrainer:")[0]
    line = header.replace("#", "").replace("\\\n", "").rpartition("relo fit")[2]
    return line.replace("configs/", f"{CONFIGS}/").split()


def is_whole(path):
    content = yaml.safe_load(path.read_text())
    return isinstance(content, dict) and {"trainer", "model", "data"} <= content.keys()


CHANGES = sorted(CONFIGS.glob("?256/*.yaml"))
OVERRIDES = sorted(path for path in CONFIGS.rglob("*.yaml") if command(path).count("--config") == 2)
"""They are named behind the stage that they change."""
STAGES = sorted(path for path in CONFIGS.rglob("*.yaml") if is_whole(path) and path not in OVERRIDES)


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
    read_rule_file(path)


@pytest.fixture
def parse(tmp_path, monkeypatch, capsys):
    """What `relo fit` makes of its arguments."""

    def parsed(*arguments):
        with pytest.raises(SystemExit) as stop:
            relo_here(monkeypatch, "fit", *arguments, "--print_config", cwd=tmp_path)
        assert stop.value.code == 0
        return yaml.safe_load(capsys.readouterr().out)

    return parsed


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_stages_parse(path, parse):
    assert parse("--config", path)["model"]["network"]["class_path"].startswith("relo.models.")


@pytest.mark.parametrize("path", OVERRIDES, ids=name)
def test_overrides_parse_and_have_a_folder_of_their_own(path, parse):
    trainer = parse(*command(path))["trainer"]
    assert trainer["default_root_dir"] == trainer["logger"]["init_args"]["save_dir"]
    assert str(path.parent.name) in trainer["default_root_dir"]
    assert path.stem in trainer["default_root_dir"]


def differences(one, other, path=()):
    """Where two configs differ: the path of each setting, and its value in the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = ((one.get(key), other.get(key), (*path, str(key))) for key in {**one, **other})
        return {place: value for a, b, p in pairs for place, value in differences(a, b, p).items()}
    return {} if one == other else {".".join(path): other}


def holds(settings, part):
    """Whether a config has all the settings that a part of it names."""
    if isinstance(part, dict):
        return all(holds(settings[key], value) for key, value in part.items())
    return settings == part


@pytest.mark.parametrize("path", CHANGES, ids=name)
def test_variants_are_trained_as_b256_but_for_what_the_release_changes(path, parse):
    found = parse(*command(path))
    variant, stage = path.parent.name, path.stem
    facts = read_variant(variant)
    assert holds(found["model"], {"network": facts["network"], "rule": facts["tracking"]})
    assert found["data"]["sampler"]["init_args"]["templates"] == facts["tracking"]["templates"]

    changed = differences(parse("--config", CONFIGS / f"{stage}.yaml"), found)
    places = {place for place in changed if not place.startswith(("model.network.", "model.rule."))}
    folders = {"trainer.default_root_dir", "trainer.logger.init_args.save_dir"}
    assert {changed[place] for place in folders} == {f"runs/{stage}_{variant}"}
    assert places - folders <= {"model.init_from", "data.sampler.init_args.templates"}
    assert changed.get("model.init_from") == (f"runs/warmup_{variant}/last.ckpt" if stage == "relo" else None)


@pytest.mark.parametrize("stage", ["warmup", "relo"])
def test_recipes_train_as_the_release_does(stage, parse):
    """On its five sets at equal odds, and by the settings that depart from the paper's text."""
    found = parse("--config", CONFIGS / f"{stage}.yaml")
    names = ("lasot", "got10k", "coco", "trackingnet", "vasttrack")
    assert [source["path"] for source in found["data"]["train"]] == [f"data/{name}_train" for name in names]
    assert len({source["weight"] for source in found["data"]["train"]}) == 1
    model = found["model"]
    objective = model["objective"]["init_args"]
    assert model["released_start"] is True
    if stage == "relo":
        assert objective["released"] is True
    else:
        assert objective["prior"]["init_args"]["released"] is True
        assert objective["box_cell"] == "prior"
        assert (model["encoder_lr_factor"], model["encoder_lr_parts"]) == (0.1, ["encoder", "propagator"])


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
    run = check_two_steps(tmp_path)
    learned = losses(run)
    assert len(learned) == 2
    assert all(math.isfinite(loss) for loss in learned.values())
    if stage == "relo":
        settings = (*on_synthetic_data(data, steps=3), *shallow, "--ckpt_path=last")
        relo_here(monkeypatch, "fit", "--config", path, *settings, cwd=tmp_path)
        assert losses(run).keys() == {2}


def test_the_weights_of_the_package_are_adapted_to_a_store(data, tmp_path, monkeypatch):
    """What tracks afterwards has new boxes, the rule that came with the weights, and their presence head."""
    settings = (*on_synthetic_data(data), "--data.batch_size=2", "--data.clips_per_epoch=4")
    relo_here(monkeypatch, "fit", "--config", CONFIGS / "adapt.yaml", *settings, cwd=tmp_path)
    run = check_two_steps(tmp_path)

    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    states = []
    for model in ("relo-small", run / "last.ckpt"):
        tracker = Tracker.from_pretrained(model, device="cpu", engine="torch")
        assert tracker.rule == read_rule_file(SHIPPED_FOLDER / "tracking.yaml").rule
        states += tracker.step([image], tracker.initialize([image], [[60.0, 40.0, 30.0, 30.0]]))
    before, after = states
    assert not torch.equal(before.box_xywh, after.box_xywh)

    shipped, adapted = (load_network(model).state_dict() for model in ("relo-small", run / "last.ckpt"))
    differ = [name for name in shipped if not torch.allclose(shipped[name], adapted[name], 1e-6, 0)]  # averages round
    changed = {name.partition(".")[0] for name in differ}
    assert changed == {"encoder", "propagator", "box", "prior"}


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

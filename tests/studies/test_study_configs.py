"""The repository's studies: every row differs from the base in what it names, and in nothing else."""

from pathlib import Path

import pytest
import yaml
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from relo.data.datamodule import TrackingDataModule
from relo.studies.plan import make_plan, steps_of
from relo.studies.steps import Training
from relo.studies.study import read_study
from relo.tracking.rule import TrackingRule, read_rule_file
from relo.training.module import RELOModule
from training_runs import write_config

CONFIGS = Path(__file__).parents[2] / "configs" / "studies"
STUDIES = {name: read_study(CONFIGS / f"{name}.yaml") for name in ("study", "claim", "policy_or_prior")}
# The changes of each stage of all rows, once for each config that they change.
CHANGED = list(
    {
        (study.stage(stage).stem, *row.changes(stage)): (study, stage, row.changes(stage))
        for study in STUDIES.values()
        for row in study.rows.values()
        for stage in row.stages
        if row.changes(stage)
    }.items()
)


def test_no_change_is_left_out_of_the_studies():
    used = {name for _, (_, _, names) in CHANGED for name in names}
    assert used == STUDIES["study"].changes.keys()


def test_changes_are_merged_in_their_order():
    study = STUDIES["claim"]
    init_args = {"trained_parts": ["encoder", "propagator", "policy", "box"], "box_cell": "target", "box_weight": 5.0}
    assert study.changed(["everything", "heavier_boxes"]) == {"model": {"objective": {"init_args": init_args}}}
    assert study.changed(["heavier_boxes", "everything"])["model"]["objective"]["init_args"]["box_weight"] == 3.0


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml") if "rows:" in path.read_text()))
def test_every_study_has_a_plan(name, tmp_path):
    study = read_study(CONFIGS / f"{name}.yaml")
    plan = make_plan(study, [0], tmp_path)
    assert [row for row, _ in plan] == list(study.rows)
    assert all(step.is_finished() or step.command() for step in steps_of(plan) if isinstance(step, Training))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_window.yaml")), ids=lambda path: path.stem)
def test_rules_of_studies_can_be_read(path):
    assert read_rule_file(path).rule != TrackingRule()


@pytest.fixture(scope="module")
def parser():
    """Reads configs as `relo fit` does; it is built once, which takes most of the time."""
    parser = LightningArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(RELOModule, "model")
    parser.add_lightning_class_args(TrackingDataModule, "data")
    return parser


def merged(parser, study, stage, names, folder):
    """A stage's config with changes over it."""
    changes = write_config(folder / "changes.yaml", study.changed(names))
    settings = parser.parse_args([f"--config={study.stage(stage)}", f"--config={changes}"])
    return yaml.safe_load(parser.dump(settings))


@pytest.mark.parametrize(
    "changed", [entry for entry in CHANGED if "warmup" not in entry[0]], ids=lambda entry: "+".join(entry[0])
)
def test_rows_change_what_they_name_and_nothing_else(changed, parser, tmp_path):
    (config, *names), changes = changed
    settings = merged(parser, *changes, tmp_path)
    objective, data = settings["model"]["objective"], settings["data"]
    steps = data["clips_per_epoch"] / data["batch_size"]
    assert steps == settings["model"]["scheduler"]["init_args"]["total_steps"]
    assert data["batch_size"] * data["sampler"]["init_args"]["search_frames"] == 64, (
        "as many frames per step as the base"
    )
    name = objective["class_path"].rpartition(".")[2]
    if not {"reward_iou", "reward_auc"} & set(names) and name not in ("PriorObjective", "WarmupObjective"):
        rewards = [reward["class_path"].rpartition(".")[2] for reward in objective["init_args"]["rewards"]]
        assert rewards == ["IoUReward", "AUCReward"]
        # A likelihood has its temperature, or the prior's map, in place of the bonus.
        assert objective["init_args"]["entropy_weight"] == (0.0 if name.endswith("Likelihood") else 0.05)
    width = settings["model"]["network"]["init_args"]["encoder"]["init_args"]["width"]
    assert width == {"rl": 160, "rl_small": 192}[config]


def frames_seen(data):
    return data["clips_per_epoch"] * data["sampler"]["init_args"]["search_frames"]


def test_learning_without_warmup_sees_as_many_frames(parser, tmp_path):
    stages = [yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text())["data"] for stage in ("warmup", "rl")]
    alone = merged(parser, STUDIES["study"], "rl", ["no_warmup"], tmp_path)["data"]
    assert frames_seen(alone) == sum(map(frames_seen, stages))


@pytest.mark.parametrize("name", ["no_propagation", "deep_to_shallow"])
def test_rows_of_both_stages_fit_the_warmup(name, parser, tmp_path):
    settings = merged(parser, STUDIES["study"], "warmup", [name], tmp_path)
    propagator = settings["model"]["network"]["init_args"]["propagator"]["class_path"]
    assert propagator.endswith({"no_propagation": "NoPropagation", "deep_to_shallow": "DeepToShallow"}[name])
    assert settings["model"]["objective"]["class_path"].endswith("WarmupObjective")


def leaves(settings, place=()):
    """The settings by their places."""
    if not isinstance(settings, dict):
        return {place: settings}
    return {key: value for name, inner in settings.items() for key, value in leaves(inner, (*place, name)).items()}


def test_the_small_networks_settings_are_varied_one_by_one(parser, tmp_path):
    study = read_study(CONFIGS / "small_settings.yaml")
    base = leaves(merged(parser, study, "warmup", ["imagenet"], tmp_path))
    for name, row in study.rows.items():
        settings = leaves(merged(parser, study, "warmup", row.changes("warmup"), tmp_path))
        changed = {place[-1] for place, value in settings.items() if base.get(place) != value}
        setting = {"search": "search_size", "template": "template_size", "trained": "trained_stages"}
        kind = name.split("_")[0]
        assert changed == (set() if name == "reference" else {setting.get(kind, kind)})
    compared = {row for group in study.groups.values() for row in group.rows}
    assert compared == study.rows.keys()

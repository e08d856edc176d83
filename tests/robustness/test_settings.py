"""Settings of the wrong type or size are refused where they enter, in one sentence, before memory is taken."""

import copy
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from relo.data.datamodule import TrackingDataModule
from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.weights import load_network, save_network
from relo.settings import check_arguments, check_number, check_whole, is_of
from relo.training.recipe import Recipe
from small_networks import make_network
from training_runs import NETWORK, WARMUP, config, refused, write_config


def optimizer(**settings: object) -> dict:
    return {"class_path": "torch.optim.AdamW", "init_args": settings}


def part(name: str, **settings: object) -> dict:
    network = copy.deepcopy(NETWORK)
    network["init_args"][name]["init_args"].update(settings)
    return network


@pytest.mark.parametrize(
    ("section", "setting", "value", "word"),
    [
        ("data", "batch_size", 0, "batch_size = 0"),
        ("data", "workers", -1, "workers = -1"),
        ("data", "absence", -1, "data.absence: -1, where settings by name belong"),
        ("model", "optimizer", optimizer(lr=-1), "learning rate: -1"),
        ("model", "optimizer", optimizer(lr=float("inf")), "lr = inf"),
        ("model", "optimizer", optimizer(betas=[0.9, {}]), "model.optimizer refuses its settings"),
        ("model", "network", part("encoder", heads=3), "3 heads"),
        ("model", "rule", {"templates": 1.0}, "{'templates': 1.0}"),
        ("trainer", "accumulate_grad_batches", 0, "accumulate_grad_batches = 0"),
        ("trainer", "devices", 10**9, "devices = 1000000000"),
        ("trainer", "gradient_clip_val", -1.0, "gradient_clip_val = -1.0"),
        ("trainer", "precision", "bf16-true", "trainer.precision is bf16-true"),
        (
            "trainer",
            "accumulate_grad_batches",
            None,
            "trainer.accumulate_grad_batches: null, where a whole number belongs",
        ),
        ("model", "fresh_parts", None, "model.fresh_parts: null"),
        (
            "model",
            "optimizer",
            optimizer(differentiable=None),
            "model.optimizer.init_args.differentiable: null, where true",
        ),
        ("model", "network", part("encoder", stem=None), "model.network.init_args.encoder.init_args.stem: null"),
        ("data", "augmentation", {"still_motion": None}, "data.augmentation.still_motion: null"),
    ],
)
def test_a_number_out_of_range(section, setting, value, word, data, tmp_path, monkeypatch, capsys):
    content = copy.deepcopy(config(data, WARMUP))
    content[section][setting] = value
    path = write_config(tmp_path / "config.yaml", content)
    assert word in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)
    assert not (tmp_path / "run/checkpoints").exists() or not list((tmp_path / "run/checkpoints").iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("where", ["option", "config"])
def test_a_pipe_in_the_place_of_settings_is_not_waited_for(where, data, tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "pipe")
    content = config(data, WARMUP)
    if where == "config":
        content["model"]["rule"] = "pipe"
    path = write_config(tmp_path / "config.yaml", content)
    option = ["--model.rule=pipe"] if where == "option" else []
    said = refused(monkeypatch, capsys, tmp_path, "fit", "--config", path, *option)
    assert "'pipe' is a pipe or a device" in said


@pytest.mark.parametrize(
    "objective",
    [
        {"class_path": "relo.learning.warmup.WarmupObjective", "init_args": {"prior": {}}},
        {"class_path": "relo.learning.policy.ActorCritic", "init_args": {"rewards": [{}]}},
        {"class_path": "relo.learning.policy.ActorCritic", "init_args": {"rollout": {}}},
    ],
    ids=["prior", "reward", "rollout"],
)
def test_a_part_without_its_class_is_refused(objective, data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, objective))
    (name,) = objective["init_args"]
    assert name in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (part("encoder", depth=0), "depth = 0"),
        (part("encoder", depth=10**9), "depth = 1000000000"),
        (part("encoder", heads=0), "heads = 0"),
        (part("encoder", width=0), "width = 0"),
        (part("encoder", width=16384, depth=512), "billion"),
        (part("encoder", correlation_groups=0), "correlation_groups = 0"),
        (part("encoder", correlation_groups=3), "correlation_groups 3"),
        (part("encoder", stem=[8]), "three stages"),
        (part("encoder", stem=[8, -16, 16]), "stem = -16"),
        (part("encoder", search_size=72), "multiples of 16"),
        (part("encoder", search_size=0), "search_size = 0"),
        (part("encoder", search_size=2**20), "8192"),
        (part("encoder", template_size=17), "multiples of 16"),
        (part("encoder", max_templates=-1), "max_templates = -1"),
        (part("propagator", tokens=-1), "tokens = -1"),
        (part("propagator", depth=0), "depth = 0"),
        (part("policy", hidden=[]), "no hidden layer"),
        (part("policy", hidden=[-4]), "hidden = -4"),
    ],
)
def test_a_part_that_cannot_be_made(network, word):
    with pytest.raises(UserError) as error:
        build(network)
    assert word in str(error.value)


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("batch_size", -1, "batch_size = -1"),
        ("validation_batch", 0, "validation_batch = 0"),
        ("clips_per_epoch", -1, "clips_per_epoch = -1"),
        ("seed", -1, "seed = -1"),
        ("surroundings", 1e9, "at most 64"),
    ],
)
def test_a_number_of_the_data_out_of_range(setting, value, word):
    with pytest.raises(UserError) as error:
        TrackingDataModule(**{setting: value})
    assert word in str(error.value)


@pytest.mark.parametrize("factor", [-1, float("nan")])
def test_a_learning_rate_out_of_range(factor):
    with pytest.raises(UserError, match="encoder_lr_factor"):
        Recipe(encoder_lr_factor=factor)


@pytest.mark.parametrize("part", ["trainer", "model", "data"])
@pytest.mark.parametrize("value", [[1], None, 3])
def test_a_part_of_a_config_that_is_no_mapping(part, value, data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP) | {part: value})
    assert f"has {part}: {value}" in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)


@pytest.mark.parametrize("seed", [2**40])
def test_a_seed_out_of_range(seed, data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP) | {"seed_everything": seed})
    assert f"seed_everything = {seed}" in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)


@pytest.mark.parametrize("place", ["logger", "checkpoints", "root"])
def test_a_folder_that_is_a_file(place, data, tmp_path, monkeypatch, capsys):
    content = copy.deepcopy(config(data, WARMUP))
    (tmp_path / "file").write_text("")
    settings, name = {
        "logger": (content["trainer"]["logger"]["init_args"], "save_dir"),
        "checkpoints": (content["trainer"]["callbacks"][0]["init_args"], "dirpath"),
        "root": (content["trainer"], "default_root_dir"),
    }[place]
    settings[name] = str(tmp_path / "file")
    path = write_config(tmp_path / "config.yaml", content)
    assert str(tmp_path / "file") in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("encoder",), [1], "encoder = [1]; it must be a Encoder"),
        (("encoder",), 3, "encoder = 3"),
        (("propagator",), None, "propagator = None"),
        (("encoder", "init_args"), [3], "init_args"),
        (("encoder", "init_args", "width"), [3], "width = [3]"),
        (("encoder", "init_args", "stem"), "abc", "stem = 'abc'"),
        (("encoder", "init_args", "depth"), 10**9, "depth = 1000000000"),
        (("policy", "init_args", "hidden"), [10**6] * 3, "hidden = 1000000"),
        (("policy", "init_args", "hidden"), {"a": 1}, "hidden = {'a': 1}"),
        (("encoder", "class_path"), "relo.models.encoders.base.Encoder", "name one of its subclasses"),
        (("encoder", "class_path"), "relo." + "x" * 10**6, "relo.xxx"),
    ],
)
def test_a_models_config_with_something_else(place, value, word, tmp_path, monkeypatch, capsys):
    save_network(make_network(), tmp_path / "model")
    path = tmp_path / "model/config.yaml"
    content = yaml.safe_load(path.read_text())
    target = content["init_args"]
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        load_network(tmp_path / "model")
    assert word in str(error.value)
    assert len(str(error.value)) < 600


def test_what_a_validator_takes():
    check_whole("It", 0, 3, a=0, b=3)
    check_number("It", 0, 1, a=1, b=0.5)
    for wrong in (True, 1.0, "1", 4, None, 10**400):
        with pytest.raises(UserError, match="It has a = "):
            check_whole("It", 0, 3, a=wrong)
    for wrong in (True, float("nan"), float("inf"), "1", -0.1):
        with pytest.raises(UserError, match="It has a = "):
            check_number("It", 0, 1, a=wrong)


def test_arguments_are_held_against_their_annotations():
    def function(a: int | None, b: list[str], c: Path | None = None) -> None: ...

    check_arguments(function, {"a": None, "b": ["x"], "other": 3}, "It")
    for wrong in ({"a": "1"}, {"b": "x"}, {"b": [1]}, {"c": 3}):
        with pytest.raises(UserError, match="it must be"):
            check_arguments(function, wrong, "It")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (np.int64(3), int),
        (np.float32(0.5), float),
        (3, float),
        (2**62, int),
        ((1, 2), list[int]),
        (np.array([1.5, 2.0]), Sequence[float]),
        (range(3), Sequence[int]),
        ({"a", "b"}, Collection[str]),
        ([], Collection[str]),
    ],
)
def test_what_python_and_yaml_give_is_taken(value, hint):
    assert is_of(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (2**64, int),
        (1e13, float),
        ("ab", Sequence[str]),
        ({"a": 1}, Collection[str]),
        (np.array(1), list[int]),
    ],
)
def test_what_is_of_another_type_is_not(value, hint):
    assert not is_of(value, hint)


def test_seeds_have_63_bits():
    check_whole("The model", 0, 2**63 - 1, seed=2**63 - 1)


def test_names_that_are_there_for_type_checkers_alone_are_no_error():
    def part(width: "Unknown", depth: int) -> None:  # noqa: F821
        """As a module with imports under `TYPE_CHECKING` has it."""

    check_arguments(part, {"width": 3, "depth": 2}, "The part")

"""Clip stores that are absent are named in one sentence, which says how to make them and how to do without."""

import re
from pathlib import Path

import pytest
import yaml

from relo.data.clip_dataset import StoreSource
from relo.data.datamodule import SequenceSource
from relo.data.recipe_stores import RECIPE_STORES, require_stores
from relo.data.sequences import DATASETS
from relo.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
TRAIN = [f"data/{name}_train" for name in ("lasot", "got10k", "coco", "trackingnet", "vasttrack")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(*present, train=(), validation=(), stage="fit"):
    for path in present:
        Path(path).mkdir(parents=True)
    named = {"data.train": train} if stage == "fit" else {}
    with pytest.raises(UserError) as refusal:
        require_stores(named | {"data.validation": validation})
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def settings(told):
    """The settings that a sentence proposes."""
    return {name: yaml.safe_load(value) for name, value in re.findall(r"--(\S+) '([^']*)'", told)}


def test_three_of_five_sets_go_on_by_what_the_sentence_says():
    told = sentence(
        "data/lasot_train", "data/got10k_train", "data/trackingnet_train", "data/got10k_val",
        train=[StoreSource(path) for path in TRAIN], validation=[SequenceSource("data/got10k_val")],
    )  # fmt: skip
    assert told.startswith("There is no clip store data/coco_train or data/vasttrack_train: ")
    assert "`make data COCO=/path VASTTRACK=/path`" in told
    assert settings(told) == {
        "data.train": [{"path": path} for path in TRAIN if "coco" not in path and "vast" not in path]
    }


def test_other_settings_of_the_sources_are_kept():
    train = [StoreSource("here", weight=2.0), StoreSource("gone", 1.0), StoreSource("here", start=3, stop=9)]
    validation = [SequenceSource("gone"), SequenceSource("root", dataset="lasot", split="test")]
    told = sentence("here", train=train, validation=validation)
    assert told.count("no clip store gone:") == 1  # named once
    assert "`relo data pack DATASET ROOT gone`" in told
    assert settings(told) == {
        "data.train": [{"path": "here", "weight": 2.0}, {"path": "here", "start": 3, "stop": 9}],
        "data.validation": [{"path": "root", "dataset": "lasot", "split": "test"}],
    }


def test_nothing_to_train_on_is_left():
    told = sentence(train=[StoreSource(path) for path in TRAIN], validation=[SequenceSource("data/got10k_val")])
    assert all(path in told for path in [*TRAIN, "data/got10k_val"])
    assert "`make data LASOT=/path GOT10K=/path COCO=/path TRACKINGNET=/path VASTTRACK=/path`" in told
    assert told.endswith("or name others in data.train and data.validation.")


def test_validation_can_be_left_out_of_a_training_only():
    train, validation = [StoreSource("here")], [SequenceSource("data/got10k_val"), SequenceSource("elsewhere/val")]
    told = sentence("here", train=train, validation=validation)
    assert settings(told) == {"data.validation": []}
    assert "`make data GOT10K=/path` and `relo data pack DATASET ROOT elsewhere/val`" in told
    assert sentence(validation=validation, stage="validate").endswith("or name others in data.validation.")


def test_stores_that_are_there_and_roots_of_datasets_pass(folder):
    (folder / "here").mkdir()
    require_stores({"data.train": [StoreSource("here")], "data.validation": [SequenceSource("root", dataset="lasot")]})
    require_stores({})


def paths_in(content):
    """The paths of the sources that a config holds."""
    if isinstance(content, dict):
        return {content["path"]} if "path" in content else set().union(*map(paths_in, content.values()))
    return set().union(*map(paths_in, content)) if isinstance(content, list) else set()


def test_recipes_and_make_data_speak_of_the_same_stores():
    own = CONFIGS / "adapt.yaml"  # its store is of the user's videos
    files = {*CONFIGS.glob("*.yaml"), *CONFIGS.glob("data/*.yaml")} - {own}
    named = set().union(*(paths_in(yaml.safe_load(path.read_text())) for path in files))
    of_recipes = {Path(path).name for path in named if Path(path).parent == Path("data") and "synthetic" not in path}
    assert of_recipes == RECIPE_STORES.keys()
    assert {dataset for dataset, _ in RECIPE_STORES.values()} <= DATASETS.keys()

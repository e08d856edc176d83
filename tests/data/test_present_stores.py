"""`make weights`: each stage is trained on the stores that are there."""

import importlib.util
import sys
from pathlib import Path

import pytest

from relo.files import read_yaml

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "configs/weights" / f"{stage}.yaml" for stage in ("warmup", "presence")]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "data_prep"))
    specification = importlib.util.spec_from_file_location("present_stores", ROOT / "data_prep/present_stores.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    sys.modules.pop("get_photographs", None)


def named(config):
    data = read_yaml(config, "The config")["data"]
    return [Path(entry["path"]).name for part in ("train", "validation") for entry in data.get(part, [])]


def test_photo_sets_that_are_missing_are_left_out_and_named(script, tmp_path, capsys):
    stores = tmp_path / "elsewhere"
    for name in {name for config in CONFIGS for name in named(config)} - {"fod_a", "kangaroo"}:
        (stores / name).mkdir(parents=True)
    arguments = [f"--output={tmp_path / 'x.yaml'}", f"--stores={stores}"]
    script.main([f"--configs+={CONFIGS[0]}", *arguments])
    assert capsys.readouterr().err == f"Trained without photo sets that are not in {stores}: fod_a, kangaroo.\n"
    assert named(tmp_path / "x.yaml") == [name for name in named(CONFIGS[0]) if name not in ("fod_a", "kangaroo")]
    script.main([*(f"--configs+={config}" for config in CONFIGS), *arguments])
    written = read_yaml(tmp_path / "x.yaml", "It")["data"]
    assert written["train"][0] == {"path": str(stores / "composites_long_occluded"), "weight": 4.5}
    assert [entry["path"] for entry in written["validation"]] == [
        str(stores / "composites_val"), str(stores / "composites_val_occluded"),
    ]  # fmt: skip


def test_composites_that_are_missing_are_not_done_without(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main([f"--configs+={CONFIGS[0]}", f"--output={tmp_path / 'x.yaml'}", f"--stores={tmp_path}"])
    assert stop.value.code == 2
    assert "composites: run data_prep/make_composites.py first" in capsys.readouterr().err

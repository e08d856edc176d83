"""The stages of `make weights`: their schedules end when they do, and their stores are made before."""

import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = sorted((ROOT / "configs/weights").glob("*.yaml"))
SCRIPT = ROOT / "data_prep/make_composites.py"


def settings_of(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_schedule_ends_with_its_stage(path):
    settings = settings_of(path)
    scheduler = settings["model"]["scheduler"]["init_args"]
    total = scheduler.get("total_steps", scheduler.get("total_iters"))
    steps = settings["trainer"]["max_steps"]
    if path.stem == "warmup":  # it only begins slowly; the next stage brings the rate down
        assert total < steps
        return
    batches = settings["data"].get("clips_per_epoch", 0) // settings["data"].get("batch_size", 1)
    assert total == (steps if steps > 0 else batches * settings["trainer"]["max_epochs"])


def test_composites_are_rendered_for_every_stage_and_for_no_other():
    specification = importlib.util.spec_from_file_location("make_composites", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    used = set()
    for settings in map(settings_of, STAGES):
        data = settings.get("data") or {}
        for key in ("train", "train+", "validation"):
            used |= {Path(source["path"]).name for source in data.get(key) or []}
    made = set(module.COMPOSITES)
    assert {name for name in used if name.startswith("composites")} <= made
    assert {name for name in made - used if not name.startswith(("composites_test", "composites_val"))} == set()

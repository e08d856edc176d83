"""The parts of one's own that README and docs show run as printed."""

import csv
import re
import sys
from pathlib import Path

import yaml

from training_runs import config, losses, relo_here, write_config

ROOT = Path(__file__).parents[2]


def blocks(page: str, section: str, language: str) -> list[str]:
    """The fenced blocks of a language under a heading."""
    text = re.split(r"^## ", (ROOT / page).read_text(), flags=re.MULTILINE)
    (found,) = [part for part in text if part.startswith(f"{section}\n")]
    return re.findall(rf"^```{language}\n(.*?)^```", found, flags=re.MULTILINE | re.DOTALL)


def fit_with(page: str, section: str, data, folder: Path, monkeypatch) -> Path:
    """Run `relo fit` with the section's class in a file and its YAML as the objective; gives the log."""
    (code,), (settings,) = (blocks(page, section, language) for language in ("python", "yaml"))
    file_name = re.match(r"# (\w+\.py)\n", code)[1]
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, file_name.removesuffix(".py"), raising=False)
    (folder / file_name).write_text(code)
    path = write_config(folder / "config.yaml", config(data, yaml.safe_load(settings)["objective"]))
    relo_here(monkeypatch, "fit", "--config", path, cwd=folder)
    assert len(losses(folder / "run")) == 4
    return folder / "run/log/metrics.csv"


def test_a_reward_of_ones_own_trains_from_its_file_and_lines_of_yaml(data, tmp_path, monkeypatch):
    log = fit_with("README.md", "Swap a part", data, tmp_path, monkeypatch)
    with log.open() as file:
        earned = [float(row["train/reward_CenterReward"]) for row in csv.DictReader(file)]
    assert all(0 < value <= 0.5 for value in earned)


def test_an_objective_of_ones_own_trains_from_its_file_and_a_line_of_yaml(data, tmp_path, monkeypatch):
    log = fit_with("docs/experiments.md", "An objective of your own", data, tmp_path, monkeypatch)
    with log.open() as file:
        told = list(csv.DictReader(file))
    assert all(float(row["train/policy_loss"]) > 0 for row in told)
    assert all(0 <= float(row["train/greedy_iou"]) <= float(row["train/best_iou"]) for row in told)

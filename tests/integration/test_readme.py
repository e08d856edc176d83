"""The README's parts of one's own run as printed."""

import csv
import re
import sys
from pathlib import Path

import yaml

from training_runs import config, losses, relo_here, write_config

README = Path(__file__).parents[2] / "README.md"


def blocks(section: str, language: str) -> list[str]:
    """The fenced blocks of a language under a heading."""
    text = re.split(r"^## ", README.read_text(), flags=re.MULTILINE)
    (found,) = [part for part in text if part.startswith(f"{section}\n")]
    return re.findall(rf"^```{language}\n(.*?)^```", found, flags=re.MULTILINE | re.DOTALL)


def test_a_reward_of_ones_own_trains_from_its_file_and_lines_of_yaml(data, tmp_path, monkeypatch):
    (code,), (settings,) = (blocks("Swap a part", language) for language in ("python", "yaml"))
    file_name = re.match(r"# (\w+\.py)\n", code)[1]
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, file_name.removesuffix(".py"), raising=False)
    (tmp_path / file_name).write_text(code)
    path = write_config(tmp_path / "config.yaml", config(data, yaml.safe_load(settings)["objective"]))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert len(losses(tmp_path / "run")) == 4
    with (tmp_path / "run/log/metrics.csv").open() as file:
        earned = [float(row["train/reward_CenterReward"]) for row in csv.DictReader(file)]
    assert all(0 < value <= 0.5 for value in earned)

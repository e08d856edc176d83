"""The README's classes of one's own, as a reader would copy them: into files, and into a config."""

import csv
import math
import re
import sys
from pathlib import Path

import pytest
import yaml

from training_runs import config, relo_here, write_config

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", ["my_rewards.py", "my_objectives.py"])
def test_a_class_from_the_readme_learns(file, data, tmp_path, monkeypatch):
    [code] = [block for block in blocks("python") if block.startswith(f"# {file}\n")]
    [settings] = [yaml.safe_load(block) for block in blocks("yaml") if f"{file.removesuffix('.py')}." in block]
    (tmp_path / file).write_text(code)
    path = write_config(tmp_path / "config.yaml", config(data, settings["objective"]))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    with (tmp_path / "run/log/metrics.csv").open() as log:
        rows = list(csv.DictReader(log))
    assert len(rows) == 4
    assert all(math.isfinite(float(row["train/loss"])) for row in rows)
    if file == "my_rewards.py":
        assert all(0 < float(row["train/reward_CenterReward"]) < 0.5 for row in rows)

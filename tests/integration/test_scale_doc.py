"""The commands of docs/scale.md are ones that `relo` takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from training_runs import relo_here

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/scale.md").read_text().replace("\\\n", " ")
COMMANDS = [match.partition("#")[0].strip() for match in re.findall(r"relo(?:\.cli)? (fit +--config .*)", TEXT)]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command, monkeypatch, tmp_path, capsys):
    arguments = [argument.replace("configs/", f"{ROOT}/configs/") for argument in shlex.split(command)]
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, *arguments, "--print_config", cwd=tmp_path)
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    nodes, devices = (re.search(rf"--trainer\.{name} (\d+)", command) for name in ("num_nodes", "devices"))
    if devices is not None:
        assert printed["trainer"]["devices"] in (8, "8")
        assert printed["trainer"]["strategy"] == "ddp"
    ranks = (int(nodes[1]) if nodes else 1) * (int(devices[1]) if devices else 1)
    clips = printed["data"]["batch_size"] * ranks * printed["trainer"]["accumulate_grad_batches"]
    assert clips == (64 if "warmup.yaml" in command else 16), "as the page says"


def test_every_launch_is_there():
    assert len(COMMANDS) == 9

"""Every `relo` command of the README and the pages of docs/ is one that `relo` takes."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from relo.commands.main import COMMANDS
from training_runs import relo_here

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands_of(page):
    """The commands in a page's indented and fenced blocks, without comments, continued lines as one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"^(?: {4}|srun ).*", text, re.MULTILINE)
    found = [re.search(r"(?:^ {4}|-m |^srun .* )relo ((?:[a-z]+ )+.*?)(?:\s+#.*)?$", line) for line in code]
    return [match[1] for match in found if match]


ALL = [pytest.param(command, id=f"{page.stem}-{command[:60]}") for page in PAGES for command in commands_of(page)]
FITS = [command for command in commands_of(ROOT / "docs/training.md") if command.startswith("fit")]


def parse(command, monkeypatch, folder):
    """Run a command up to the point where its work would begin."""
    arguments = [argument.replace("configs/", f"{ROOT}/configs/") for argument in shlex.split(command)]
    if arguments[0] in ("fit", "validate"):
        with pytest.raises(SystemExit) as stop:
            relo_here(monkeypatch, *arguments, "--print_config", cwd=folder)
        assert stop.value.code == 0
        return
    entry = COMMANDS[arguments[0]]
    target = (entry[arguments[1]] if isinstance(entry, dict) else entry)[0]
    module_name, _, function_name = target.partition(":")
    module = importlib.import_module(module_name)
    function, calls = getattr(module, function_name), []

    @functools.wraps(function)
    def recorded(*values, **settings):
        calls.append((values, settings))

    monkeypatch.setattr(module, function_name, recorded)
    relo_here(monkeypatch, *arguments, cwd=folder)
    assert len(calls) == 1


@pytest.mark.parametrize("command", ALL)
def test_a_command_of_the_docs_parses(command, monkeypatch, tmp_path):
    parse(command, monkeypatch, tmp_path)


@pytest.mark.parametrize("command", FITS)
def test_a_fit_sees_as_many_clips_per_step_as_the_page_says(command, monkeypatch, tmp_path, capsys):
    parse(command, monkeypatch, tmp_path)
    printed = yaml.safe_load(capsys.readouterr().out)
    nodes, devices = (re.search(rf"--trainer\.{name} (\d+)", command) for name in ("num_nodes", "devices"))
    if devices is not None:
        assert printed["trainer"]["devices"] in (8, "8")
        assert printed["trainer"]["strategy"] == "ddp"
        ranks = (int(nodes[1]) if nodes else 1) * int(devices[1])
    else:  # one device, where the command says how many clips it takes or is made for one, else the recipe's eight
        ranks = 1 if "--data.batch_size" in command or "adapt.yaml" in command else 8
    clips = printed["data"]["batch_size"] * ranks * printed["trainer"]["accumulate_grad_batches"]
    assert clips == (64 if "warmup.yaml" in command else 16), "as the page says"


def test_the_pages_show_every_command():
    shown = {command.split()[0] for param in ALL for command in param.values}
    assert shown >= {"fit", "validate", *COMMANDS} - {"report"}
    assert len(FITS) >= 9

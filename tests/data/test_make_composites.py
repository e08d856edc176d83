"""`make weights`: which photo sets its composites are rendered of, and how its mistakes end."""

import importlib.util
from pathlib import Path

import pytest

from relo.commands.main import _parse
from relo.data.synthetic.command import synthesize

SCRIPT = Path(__file__).parents[2] / "data_prep" / "make_composites.py"


@pytest.fixture
def commands(monkeypatch):
    """The script as a module, and the commands that it runs."""
    specification = importlib.util.spec_from_file_location("make_composites", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    run = []
    monkeypatch.setattr(module, "relo", run.append)
    return module, run


def test_sets_that_are_folders_and_sets_that_were_tars_are_found(commands, tmp_path):
    module, run = commands
    output, photos = tmp_path / "data", tmp_path / "photos"
    unpacked = output / "downloads" / "sets"
    for folder in (
        output / "photographs",
        output / "cutouts",
        photos / "ecssd",
        unpacked / "ecssd",
        unpacked / "bsds500",
    ):
        folder.mkdir(parents=True)
    module.main([f"--output={output}", f"--photos={photos}"])
    sets = [unpacked / "bsds500", photos / "ecssd"]
    parsed = _parse("synthesize", synthesize, run[0][2:])
    assert parsed["photographs"] == [output / "photographs", *sets]
    assert parsed["cutouts"] == [output / "cutouts", *reversed(sets)]
    assert parsed["output"] == output / "rendered" / "composites"
    run.clear()
    module.main([f"--output={output}"])
    assert _parse("synthesize", synthesize, run[0][2:])["photographs"] == [output / "photographs"]


def test_missing_photographs_end_in_a_sentence(commands, tmp_path, capsys):
    module, run = commands
    with pytest.raises(SystemExit) as stop:
        module.main([f"--output={tmp_path}"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: There is no {tmp_path / 'photographs'} and no ")
    assert not run

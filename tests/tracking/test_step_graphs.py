import sys
from pathlib import Path

import pytest

from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.tracking.engine import StepGraph, stored_graphs, write_graph


def test_the_same_graph_is_the_same_bytes_in_a_readable_file(tmp_path):
    for name in ("a.zip", "b.zip"):
        write_graph(tmp_path / name, StepGraph(b"model" * 100, ["one", "two"]))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    (tmp_path / "other").touch()
    assert (tmp_path / "a.zip").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "taken.zip").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_graph(tmp_path / "taken.zip", StepGraph(b"", []))
    assert [path.name for path in tmp_path.iterdir()] == ["taken.zip"]


def test_the_script_writes_the_package_graphs_of_both_maps(tmp_path, network, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "data_prep"))
    import pack_step_graph

    asked = []

    def make(network, templates, heads):
        asked.append((templates, heads))
        return b"model", ["network.weight"]

    monkeypatch.setattr(pack_step_graph, "step_graph", make)
    monkeypatch.setattr(pack_step_graph, "PACKAGED", tmp_path / "graphs")
    monkeypatch.setattr("relo.tracking.engine.PACKAGED", tmp_path / "graphs")
    save_network(network, tmp_path / "model")
    (tmp_path / "model" / "tracking.yaml").write_text("templates: 2\n")
    pack_step_graph.pack_step_graphs(str(tmp_path / "model"))
    assert asked == [(2, ("policy", "box")), (2, ("prior", "box"))]
    files = [Path(line.partition(": ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert sorted(files) == sorted((tmp_path / "graphs").iterdir())
    assert [list(stored_graphs(file.name)) for file in files] == [[StepGraph(b"model", ["network.weight"])]] * 2
    sys.modules.pop("pack_step_graph")


def test_a_model_that_is_not_there_ends_the_script_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "data_prep"))
    import pack_step_graph

    with pytest.raises(SystemExit) as stop:
        pack_step_graph.main([str(tmp_path / "nowhere")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "nowhere" in error
    assert len(error.splitlines()) == 1
    sys.modules.pop("pack_step_graph")

import json

import pytest
import torch

from relo.models.checkpoints.weights import save_network


@pytest.fixture
def engines(script):
    return script("engines")


def test_a_row_is_an_engine_and_its_parts_make_a_step(tmp_path, network, engines, capsys, monkeypatch):
    save_network(network, tmp_path / "small")
    monkeypatch.setattr("relo.models.export.find_spec", lambda package: None)
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    options = ["--model", str(tmp_path / "small"), "--engines", "torch", "torch bfloat16", "onnxruntime"]
    threads = ["--seconds", "0", "--threads", str(torch.get_num_threads())]
    engines.main([*options, *threads, "--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")])
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["engine"] for row in rows] == ["torch", "torch bfloat16"]
    assert rows[0]["of_torch"] == 1
    for row in rows:
        assert min(row[name] for name in ("crop", "network", "box", "templates", "first")) >= 0
        assert row["step"] >= row["network"]
    assert "onnxruntime is left out: " in capsys.readouterr().out
    assert (tmp_path / "a.md").read_text().count("\n| torch") == 2

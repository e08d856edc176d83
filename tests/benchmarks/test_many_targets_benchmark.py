import pytest
import torch

from relo.models.checkpoints.weights import save_network


@pytest.fixture
def many_targets(script):
    return script("many_targets")


def test_a_row_compares_several_targets_with_one(tmp_path, network, many_targets, capsys):
    save_network(network, tmp_path / "small")
    threads = str(torch.get_num_threads())
    options = ["--model", str(tmp_path / "small"), "--engines", "torch", "--targets", "3", "--threads", threads]
    many_targets.main([*options, "--seconds", "0"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    header, row = (line for line in lines if line[:1] in (["engine"], ["torch"]))
    assert header == ["engine", "threads", "1", "3", "of", "cores", "moves"]
    assert row[:2] == ["torch", threads]
    assert row[3] == "ms"
    assert all(cell.endswith("x") for cell in row[4:6])
    assert float(row[6]) < 1e-3


def test_a_model_that_is_not_there_is_one_sentence(tmp_path, many_targets, capsys):
    with pytest.raises(SystemExit) as stop:
        many_targets.main(["--model", str(tmp_path / "none.yaml")])
    assert stop.value.code == 2
    assert "none.yaml cannot be read" in capsys.readouterr().err

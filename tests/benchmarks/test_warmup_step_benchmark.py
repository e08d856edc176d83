import pytest
import torch


@pytest.fixture
def warmup_step(script):
    return script("warmup_step")


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_step_trains_what_the_recipe_trains(warmup_step, precision, capsys):
    device = torch.device("cpu")
    network = warmup_step.open_network("nano")
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    step = warmup_step.Step(network, precision, device)
    step(warmup_step.random_clips(network, 2, 2, device))
    changed = {
        name.split(".")[0] for name, parameter in network.named_parameters() if (parameter != before[name]).any()
    }
    assert changed == {"encoder", "propagator", "box", "prior"}


def test_the_table_has_a_row_for_each_batch(warmup_step, capsys):
    warmup_step.main(["--models", "nano", "--batches", "1", "2", "--precisions", "32-true", "--rounds", "2"])
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "nano" in line]
    assert [[cell.strip() for cell in row][:3] for row in rows] == [["nano", "32-true", "1"], ["nano", "32-true", "2"]]
    assert all(float(row[4]) > 0 for row in rows)


def test_a_device_that_is_not_there(warmup_step, capsys):
    with pytest.raises(SystemExit) as stop:
        warmup_step.main(["--device", "xpu"])
    assert stop.value.code == 2
    assert "no device 'xpu'" in capsys.readouterr().err

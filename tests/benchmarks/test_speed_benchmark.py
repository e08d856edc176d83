import pytest
import torch

from relo.models.checkpoints.weights import save_network
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.heads import ConvBox, ConvPolicy
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned


@pytest.fixture
def speed(script):
    return script("speed")


def test_a_row_has_its_stages_and_the_same_boxes(tmp_path, capsys, speed):
    torch.manual_seed(0)
    encoder = FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32)
    save_network(
        LocalizationNetwork(encoder, LayerAligned(32, 2, 2), ConvPolicy(32, [8]), ConvBox(32, [8])), tmp_path / "small"
    )
    options = f"--models {tmp_path / 'small'} --batches 2 --seconds 0 --device cpu --precisions float32 bfloat16"
    speed.main([*options.split(), "--threads", str(torch.get_num_threads())])
    lines = capsys.readouterr().out.splitlines()
    columns = lines[1].replace("of p", "of_p").split()
    exact, reduced = (dict(zip(columns, line.split(), strict=True)) for line in lines[2:])
    for row, precision in ((exact, "float32"), (reduced, "bfloat16")):
        assert (row["model"], row["precision"], row["batch"]) == ("small", precision, "2")
        stages = [float(row[name]) for name in ("crop", "encode", "heads", "decode")]
        assert all(stage > 0 for stage in stages)
        assert float(row["ms"]) == pytest.approx(sum(stages), abs=0.05)
        assert float(row["frames/s"]) == pytest.approx(1e3 / float(row["ms"]), rel=0.05)
    assert float(exact["differs"]) < 1e-4
    assert float(exact["differs"]) < float(reduced["differs"]) < 0.1


def test_what_is_wanted_of_an_h200(speed):
    def row(model, precision, batch, step, differs=1e-5):
        return speed.Row(model, precision, batch, [1.0] * 4, step, 10.0, 1e9, differs)

    rows = [
        row("t256", "float32", 1, 2.0),
        row("t256", "bfloat16", 1, 1.4, 0.01),
        row("t256", "float32", 16, 10.0, 2e-4),
        row("t256", "bfloat16", 16, 5.0, 0.01),  # 3200 frames a second
        row("t256", "bfloat16", 4, 2.0, 0.01),
        row("b256", "bfloat16", 1, 2.6, 0.01),
        row("l256", "bfloat16", 16, 40.0, 0.01),  # 400 frames a second
        row("of-mine", "float32", 1, 0.1),
    ]
    assert [(cells[0], *cells[2:]) for cells in speed.judged(rows)] == [
        ("t256", "1.40 ms", "bfloat16", "batch 1", "met"),
        ("t256", "3200 frames/s", "bfloat16", "batch 16", "met"),
        ("t256", "0.0002", "float32", "batch 16", "missed"),
        ("b256", "2.60 ms", "bfloat16", "batch 1", "missed"),
        ("l256", "400 frames/s", "bfloat16", "batch 16", "missed"),
    ]


def test_a_missing_device_is_named(speed, capsys):
    with pytest.raises(SystemExit) as stop:
        speed.main(["--device", "xyz"])
    assert stop.value.code == 2
    assert "There is no device 'xyz' here" in capsys.readouterr().err

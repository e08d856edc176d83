import sys
from pathlib import Path

import pytest
import torch

from relo.models.encoders.fast_itpn import FastITPN
from relo.models.heads import ConvBox, ConvPolicy
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.weights import save_network


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import speed

    yield speed
    sys.modules.pop("speed")


def test_a_row_has_its_stages_and_the_same_boxes(tmp_path, capsys, speed):
    torch.manual_seed(0)
    encoder = FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32)
    save_network(
        LocalizationNetwork(encoder, LayerAligned(32, 2, 2), ConvPolicy(32, [8]), ConvBox(32, [8])), tmp_path / "small"
    )
    threads = str(torch.get_num_threads())
    speed.main(
        [
            "--models",
            str(tmp_path / "small"),
            "--batches",
            "2",
            "--seconds",
            "0",
            "--device",
            "cpu",
            "--threads",
            threads,
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    columns = lines[1].replace("of peak", "of_peak").replace("of plain", "of_plain").replace("box px", "box_px").split()
    row = dict(zip(columns, lines[2].split(), strict=True))
    assert (row["model"], row["precision"], row["batch"]) == ("small", "float32", "2")
    stages = [float(row[name]) for name in ("crop", "encode", "heads", "decode")]
    assert all(stage > 0 for stage in stages)
    assert float(row["ms"]) == pytest.approx(sum(stages), abs=0.05)
    assert float(row["box_px"]) < 1e-3

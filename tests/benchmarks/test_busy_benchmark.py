import pytest


@pytest.fixture
def busy(script):
    return script("busy")


@pytest.mark.parametrize("work", ["training", "tracking"])
def test_a_work_can_be_repeated(work, busy, network):
    step = busy.WORKS[work](network)
    step()
    step()


SERVER = """
import os, sys
print("ready", flush=True)
for turn, line in enumerate(sys.stdin):
    print((1 + turn % 2) * (10 if "GOMP_SPINCOUNT" in os.environ else 1), flush=True)
"""


def test_each_way_of_waiting_is_measured_alone_and_beside_others(tmp_path, monkeypatch, capsys, busy):
    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setattr(busy, "__file__", str(tmp_path / "server.py"))
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")  # the caller's own
    busy.main(["--works", "training", "--beside", "1", "--rounds", "3", "--seconds", "0"])
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "training" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["training", "the commands'", "1.0", "2.0", "2.0"]
    assert cells[1] == ["training", "OpenMP's own", "10.0", "20.0", "2.0"]

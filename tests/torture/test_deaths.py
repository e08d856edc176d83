"""Ranks that die, raise or are stuck, a study that is killed alone, and memory over many frames and steps."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dying import dies
from training_runs import ACTOR_CRITIC, WARMUP, config, losses, relo, start_relo, write_config

pytestmark = pytest.mark.torture

DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"
STEPS, PREFETCHED = 9, 3


@pytest.mark.parametrize("objective", [WARMUP, ACTOR_CRITIC], ids=["warm-up", "RL"])
@pytest.mark.parametrize(
    ("deaths", "code", "said"),
    [
        ([("killed", 0)], -signal.SIGKILL, "has ended, "),
        ([("killed", 1)], 2, "was killed by SIGKILL, possibly out of memory; the other ranks were stopped"),
        ([("killed", 1), ("stuck", 0)], 2, "was killed by SIGKILL, possibly out of memory; the other ranks were"),
        ([("loader", 1)], 2, "which prepared clips, ended before its time"),
        ([("raises", 1)], 2, "ended with exit code 1, and has said why; the other ranks were stopped with it"),
        ([("raises", 0)], 1, "ValueError: raises"),
    ],
)
def test_ranks_end_together_and_the_newest_checkpoint_goes_on(data, tmp_path, generator, objective, deaths, code, said):
    content = config(data, objective)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    content["data"] |= {"clips_per_epoch": 4 * STEPS, "workers": 1}
    path = write_config(tmp_path / "config.yaml", content)
    (tmp_path / "whole").mkdir()
    (tmp_path / "died").mkdir()
    relo("fit", "--config", path, *DDP, cwd=tmp_path / "whole")
    step = generator.randint(1, 4)
    content["trainer"]["callbacks"] += [dies(what, rank=rank, step=step) for what, rank in deaths]
    broken = write_config(tmp_path / "broken.yaml", content)
    process = start_relo("fit", "--config", broken, *DDP, cwd=tmp_path / "died")
    _, err = process.communicate(timeout=240)
    assert time.time() - (tmp_path / "died/died").stat().st_mtime < 60
    assert process.returncode == code, err
    assert said in err, err
    check_none_left(process.pid)
    relo("fit", "--config", path, "--ckpt_path=last", *DDP, cwd=tmp_path / "died")
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "died/run")
    # Batches that a killed loader's process had ready are trained on before it is missed.
    ahead = PREFETCHED if deaths == [("loader", 1)] else 0
    assert step <= min(rest) <= step + ahead
    assert rest == {number: whole[number] for number in range(min(rest), STEPS)}


def check_none_left(group: int) -> None:
    """No process of a group is left; those that have ended and nobody has asked for do not count."""
    deadline = time.monotonic() + 15
    while (left := running(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        os.killpg(group, signal.SIGKILL)
    assert not left


def running(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(entry.name))
    return found


@pytest.mark.timeout(4 * 3600)
def test_memory_is_flat(minutes):
    """A twentieth of the whole, which `benchmarks/memory.py` does alone."""
    share = min(1.0, minutes / 60)
    counts = ["--frames", str(round(5000 * share) + 500), "--steps", str(round(1000 * share) + 100)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *counts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)

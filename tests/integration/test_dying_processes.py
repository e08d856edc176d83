"""A process that is killed, or memory that does not suffice, ends a run in one sentence; what was saved is kept."""

import os
import re
import signal
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils import signal_handling

from dying import dies
from relo.data.datamodule import named_workers
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.models.network import LocalizationNetwork
from small_networks import make_network
from training_runs import WARMUP, config, losses, refused, relo_here, start_relo, write_config

DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)


def settings(data, *callbacks, workers=0):
    content = config(data, WARMUP)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    content["trainer"]["callbacks"] += callbacks
    content["data"]["workers"] = workers
    return content


def check_resumes(data, folder, monkeypatch, steps):
    """The last of these steps are made; a batch that was ready may be trained on before a death is noticed."""
    path = write_config(folder / "again.yaml", settings(data))
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=folder)
    made = sorted(losses(folder / "run"))
    assert made
    assert made == steps[-len(made) :]


@pytest.fixture
def too_large(monkeypatch):
    """After so many calls, a network finds no memory for its maps any more."""

    def fits(calls, monkeypatch=monkeypatch):
        whole, left = LocalizationNetwork.localize, iter(range(calls))

        def localize(self, *arguments, **settings):
            if next(left, None) is None:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return whole(self, *arguments, **settings)

        monkeypatch.setattr(LocalizationNetwork, "localize", localize)

    return fits


def test_a_killed_process_of_a_loader(data, tmp_path, monkeypatch, capsys):
    # Once in a process, torch sets what tells of such a death; Lightning takes it away at the end of a fit.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    path = write_config(tmp_path / "config.yaml", settings(data, dies("loader"), workers=1))
    said = refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)
    assert re.match(r"relo: error: (Process \d+|A process), which prepared clips, was killed", said)
    assert "lower data.workers" in said
    check_resumes(data, tmp_path, monkeypatch, [2, 3])


def test_a_loader_that_is_gone_while_it_hands_over_clips():
    ours, theirs = Pipe()
    theirs.close()
    said = "A process, which prepared clips, was killed, possibly out of memory"
    with pytest.raises(UserError, match=said), named_workers():
        ours.recv()
    with pytest.raises(ConnectionResetError), named_workers():
        raise ConnectionResetError  # of another connection


def test_a_gpu_that_is_full_in_training_and_in_validation(data, tmp_path, monkeypatch, capsys, too_large):
    path = write_config(tmp_path / "config.yaml", settings(data))
    with monkeypatch.context() as patches:
        too_large(5, patches)  # two frames of two steps, and one more
        said = refused(patches, capsys, tmp_path, "fit", "--config", path)
    assert "error: The memory of GPU 1 does not suffice (2.00 GiB more were asked for): lower data.batch_size" in said
    check_resumes(data, tmp_path, monkeypatch, [2, 3])
    too_large(3)
    weights = ("--ckpt_path=last", "--trainer.limit_val_batches=1.0")
    said = refused(monkeypatch, capsys, tmp_path, "validate", "--config", path, *weights)
    assert said.endswith("lower data.validation_batch.")


def test_a_gpu_that_is_full_in_a_benchmark(data, tmp_path, monkeypatch, capsys, too_large):
    save_network(make_network(), tmp_path / "model")
    source = ("--dataset=lasot", "--root", data.test_root, "--device=cpu", "--engine=torch")
    too_large(20)  # sequences are 12 frames long
    command = ("test", "--model", tmp_path / "model", *source, "--batch_size=1", "--workers=1", "--output", "results")
    said = refused(monkeypatch, capsys, tmp_path, *command)
    assert "error: The memory of GPU 1 does not suffice (2.00 GiB more were asked for): on cpu, lower" in said
    assert (tmp_path / "results/run.json").exists()


@pytest.mark.slow
def test_a_killed_rank_ends_the_others(data, tmp_path, monkeypatch):
    path = write_config(tmp_path / "config.yaml", settings(data, dies("killed", step=1, rank=1), workers=1))
    process = start_relo("fit", "--config", path, *DDP, cwd=tmp_path)
    _, err = process.communicate(timeout=240)
    assert time.time() - (tmp_path / "died").stat().st_mtime < 60
    assert process.returncode == 2, err
    assert "Traceback" not in err
    (said,) = [line for line in err.splitlines() if "relo: error: " in line]
    assert said.startswith("relo: error: Rank 1 (process ")
    assert "was killed by SIGKILL" in said
    check_none_left(process.pid)
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_a_terminated_first_rank_ends_the_others(data, tmp_path):
    path = write_config(tmp_path / "config.yaml", settings(data))
    process = start_relo("fit", "--config", path, *DDP, "--trainer.max_epochs=1000", cwd=tmp_path)
    wait_for(tmp_path / "run/checkpoints/last.ckpt")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    check_none_left(process.pid)


def wait_for(file, seconds=120):
    deadline = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert file.exists()


def check_none_left(group):
    """No process of a group is left; those that have ended and nobody has asked for do not count."""
    deadline = time.monotonic() + 10
    while (left := running(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        os.killpg(group, signal.SIGKILL)
    assert not left


def running(group):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(entry.name))
    return found

"""Two processes on the CPU, however they are started: what one process learns and scores, they do."""

import json
import os

import numpy as np
import pytest
import torch
import yaml

from relo.models.checkpoints.weights import read_checkpoint
from training_runs import NETWORK, WARMUP, config, losses, relo, relo_here, start_relo, write_config

DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def network_of(run):
    return read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]


def still(content, lr):
    """With steps that do not depend on the batch but by its gradient."""
    content["model"]["network"] = {**NETWORK, "class_path": "still_network.StillNetwork"}
    content["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}
    content["trainer"]["callbacks"].append({"class_path": "travel.Travel"})
    return content


def check_same_steps(folder):
    """The networks in the folders "two" and "one" are the same, and have learned."""
    two, one = network_of(folder / "two/run"), network_of(folder / "one/run")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    distances = np.loadtxt(folder / "one/travel.txt")[:, 2]
    assert len(distances) == 2
    assert (distances > 1e-2).all()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two steps of two processes with batches of 2, and of one with batches of 4: the folders of both."""
    folder = tmp_path_factory.mktemp("ddp")
    path = write_config(folder / "config.yaml", still(config(data, WARMUP), lr=0.1))
    for name in ("two", "one"):
        (folder / name).mkdir()
    relo("fit", "--config", path, "--trainer.max_steps=2", *DDP, cwd=folder / "two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(
            monkeypatch, "fit", "--config", path, "--trainer.max_steps=2", "--data.batch_size=4", cwd=folder / "one"
        )
    return folder


def test_two_processes_take_the_steps_of_one(trained):
    check_same_steps(trained)


def test_validation_scores_uneven_shares_as_one_process(trained, tmp_path, monkeypatch):
    path, weights = trained / "config.yaml", trained / "two/run/checkpoints/last.ckpt"
    arguments = ("validate", "--config", path, "--ckpt_path", weights, "--trainer.limit_val_batches=1.0")
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    relo(*arguments, *DDP, cwd=tmp_path / "two")
    relo_here(monkeypatch, *arguments, cwd=tmp_path / "one")
    two, one = (json.loads((tmp_path / n / "run/validation/scores.json").read_text()) for n in ("two", "one"))
    assert two["sequences"] == one["sequences"] == 3
    for name in ("policy", "prior"):
        assert two[name] == {key: pytest.approx(value, abs=1e-6) for key, value in one[name].items()}
        assert two["per_sequence"][name] == pytest.approx(one["per_sequence"][name], abs=1e-6)
        assert len(list((tmp_path / "two/run/validation" / name).rglob("*_score.txt"))) == 3


@pytest.mark.slow
def test_a_rank_without_a_sequence_keeps_nobody_waiting(trained, data, tmp_path):
    path, weights = trained / "config.yaml", trained / "two/run/checkpoints/last.ckpt"
    one = f'[{{"path": "{data.test}", "stop": 1}}]'
    arguments = ("--ckpt_path", weights, "--trainer.limit_val_batches=1.0", f"--data.validation={one}")
    relo("validate", "--config", path, *arguments, *DDP, cwd=tmp_path)
    scores = json.loads((tmp_path / "run/validation/scores.json").read_text())
    assert scores["sequences"] == 1
    assert set(scores["per_sequence"]) == {"policy", "prior"}


def test_policy_takes_the_steps_of_one_process(data, tmp_path, monkeypatch):
    """Started by torchrun. Where the gradient is expected and not sampled, ranks that draw otherwise learn the same."""
    objective = {
        "class_path": "relo.learning.expected.ExpectedGradient",
        "init_args": {"rewards": [{"class_path": "relo.learning.rewards.IoUReward"}]},
    }
    path = write_config(tmp_path / "config.yaml", still(config(data, objective), lr=10.0))
    steps = ("fit", "--config", path, "--trainer.max_steps=2")
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    relo(*steps, *DDP, cwd=tmp_path / "two", launcher=TORCHRUN)
    relo_here(monkeypatch, *steps, "--data.batch_size=4", cwd=tmp_path / "one")
    check_same_steps(tmp_path)
    batches = [yaml.safe_load((tmp_path / name / "run/log/hparams.yaml").read_text()) for name in ("two", "one")]
    assert [batch["clips_per_step"] for batch in batches] == [4, 4]
    assert [batch["ranks"] for batch in batches] == [2, 1]


@pytest.mark.slow
def test_several_updates_a_batch_keep_ranks_together(data, tmp_path):
    """As SLURM's `srun` would start it on two nodes; the ranks find their places in its variables."""
    objective = {"class_path": "relo.learning.clipped.PPO", "init_args": {"epochs": 2, "minibatches": 2}}
    content = config(data, objective)
    content["trainer"]["callbacks"].append({"class_path": "travel.Travel"})
    path = write_config(tmp_path / "config.yaml", content)
    places = ("--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp")
    job = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"SLURM_JOB_ID": str(os.getpid() % 10_000), "SLURM_JOB_NAME": "relo", "SLURM_LOCALID": "0"}
    ranks = []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        variables = job | {"SLURM_PROCID": rank, "SLURM_NODEID": rank}
        ranks.append(start_relo("fit", "--config", path, *places, cwd=tmp_path / rank, variables=variables))
    for process in ranks:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert len(losses(tmp_path / "0/run")) == 2
    travelled = [(tmp_path / rank / "travel.txt").read_text().splitlines() for rank in ("0", "1")]
    assert len(travelled[0]) == 2
    assert travelled[0] == travelled[1], "each rank has drawn, but all learn from all"


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_every_rank(data, tmp_path):
    path = write_config(tmp_path / "config.yaml", config(data, {"class_path": "broken_objectives.BrokenLoss"}))
    process = start_relo("fit", "--config", path, *DDP, cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "The loss is nan at step 0, on clips of got10k/" in err
    assert "The norm of the gradient is nan at step 0" in err

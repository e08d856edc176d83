"""SIGKILL at random moments: the same command, run again, ends as an undisturbed run does."""

import csv
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import forked_relo
import lmdb
import pytest

from relo.data.synthetic.command import synthesize
from relo.models.checkpoints.weights import read_checkpoint, save_network
from small_networks import make_network
from training_runs import ACTOR_CRITIC, WARMUP, config, start_relo, write_config

Command = Callable[[Path, random.Random], list[str]]
"""A command's words, to be run in a folder, from what is there; what must not matter is drawn at random."""

STEPS = 12


def kill_again_and_again(
    folder: Path, command: Command, read: Callable[[Path], Any], generator: random.Random, kills: int
) -> None:
    """Kill a command so many times, alone and in a row, finish it, and compare what it leaves with an undisturbed run.

    Args:
        folder: where to work.
        command: what to run.
        read: what there is to compare, in the folder that the command was run in.
        generator: of the moments.
        kills: how many of them.
    """
    whole = folder / "whole"
    whole.mkdir()
    forked_relo.finish(["data", "--help"], whole)  # what is imported once is imported now
    seconds = time.monotonic()
    forked_relo.finish(command(whole, generator), whole)
    seconds = time.monotonic() - seconds
    expected = read(whole)
    done = attempts = 0
    while done < kills:
        attempts += 1
        assert attempts < 4 * kills + 4, "the moments were too late to kill anything"
        cwd = folder / f"killed{attempts}"
        cwd.mkdir()
        moments = []
        while done < kills:
            moment = generator.uniform(0, seconds)
            start = time.monotonic()
            process = forked_relo.start(command(cwd, generator), cwd)
            process.join(moment)
            if process.exitcode is not None:
                assert process.exitcode == 0, forked_relo.printed(cwd)
                if not moments:
                    seconds = min(seconds, time.monotonic() - start)
                break
            forked_relo.kill(process, generator)
            moments.append(round(moment, 3))
            done += 1
            if generator.random() < 0.5:
                break
        forked_relo.finish(command(cwd, generator), cwd)
        assert read(cwd) == expected, f"killed after {moments} s: {forked_relo.printed(cwd)}"
        shutil.rmtree(cwd)
    print(f"{done} kills in runs of {seconds:.1f} s")


# ------------------------------------------------------------------------------------------------- packing and testing


def records(folder: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(folder / "store"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def kill_packing(raw, folder, generator, kills, workers):
    def command(cwd: Path, generator: random.Random) -> list[str]:
        words = ["data", "pack", "got10k", str(raw), "store", "--split=train", f"--workers={generator.choice(workers)}"]
        return [*words, *options]

    options = generator.choice([[], ["--cut=4", "--max_side=64"]])
    kill_again_and_again(folder, command, records, generator, kills)


def boxes(folder: Path) -> dict[str, bytes]:
    """Every file of results by its name, but for the times; nothing that is half-written may be among them."""
    files = [file for file in (folder / "results").iterdir() if not file.name.endswith("_time.txt")]
    return {file.name: file.read_bytes() for file in files}


def kill_testing(data, folder, generator, kills):
    save_network(make_network(), folder / "model")
    raw = data.test_root.with_name("raw_train")

    def command(cwd: Path, generator: random.Random) -> list[str]:
        source = ["--model", str(folder / "model"), "--dataset=got10k", "--root", str(raw), "--split=train"]
        sizes = [f"--batch_size={generator.choice([1, 3, 16])}", f"--workers={generator.choice([1, 3])}"]
        return ["test", *source, "--output=results", "--device=cpu", *sizes]

    kill_again_and_again(folder, command, boxes, generator, kills)


def validated(folder: Path) -> dict[str, bytes]:
    """As `boxes`, of the results of both maps, with their scores."""
    results = folder / "run" / "validation"
    files = [file for file in results.rglob("*.*") if file.suffix != ".png" and not file.name.endswith("_time.txt")]
    return {str(file.relative_to(results)): file.read_bytes() for file in files}


def kill_validating(data, folder, generator, kills):
    save_network(make_network(), folder / "model")
    content = config(data, WARMUP, init_from=str(folder / "model"))
    content["trainer"]["limit_val_batches"] = 1.0
    content["data"]["validation"] = [{"path": str(data.train)}]
    path = write_config(folder / "config.yaml", content)

    def command(cwd: Path, generator: random.Random) -> list[str]:
        return ["validate", f"--config={path}", f"--data.validation_batch={generator.choice([1, 3, 16])}"]

    kill_again_and_again(folder, command, validated, generator, kills)


# ------------------------------------------------------------------------------------------------------------ training


def write_stages(data, folder: Path) -> dict[str, Path]:
    """The configs of both stages, 12 steps each, a checkpoint after each step; the second begins from the first's."""
    paths = {}
    for name, objective, changes in (
        ("warmup", WARMUP, {}),
        ("rl", ACTOR_CRITIC, {"init_from": "../warmup.ckpt", "fresh_parts": ["policy", "critic"]}),
    ):
        content = config(data, objective, **changes)
        content["trainer"]["max_epochs"] = 3
        settings = content["trainer"]["callbacks"][0]["init_args"]
        settings |= {"every_n_train_steps": 1, "enable_version_counter": False}
        schedule = {"max_lr": 1e-3, "total_steps": STEPS}
        content["model"]["scheduler"] = {
            "class_path": "torch.optim.lr_scheduler.OneCycleLR",
            "init_args": schedule,
        }
        content["model"]["scheduler_interval"] = "step"
        paths[name] = write_config(folder / f"{name}.yaml", content)
    return paths


def training_command(path: Path) -> Command:
    def command(cwd: Path, generator: random.Random) -> list[str]:
        checkpoints = cwd / "run" / "checkpoints"
        found = sorted(checkpoints.glob("*.ckpt"))
        for file in found:
            read_checkpoint(file)  # none is half-written
        assert len(found) <= 3
        return ["fit", f"--config={path}", *(["--ckpt_path=last"] if checkpoints / "last.ckpt" in found else [])]

    return command


def logged_losses(run: Path) -> dict[int, set[float]]:
    """The losses of each step, in the logs of all runs; a line that a kill has cut off does not count."""
    found: dict[int, set[float]] = {}
    for log in (run / "log").glob("metrics*.csv"):
        text = log.read_text()
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
            if row["train/loss"]:
                found.setdefault(int(row["step"]), set()).add(float(row["train/loss"]))
    return found


def read_training(expected: dict[int, set[float]], cwd: Path) -> tuple[int, dict[str, Any]]:
    """The step and the weights at the end; each loss on the way is compared with those of the first run."""
    found = logged_losses(cwd / "run")
    expected = expected or found
    assert sorted(expected) == list(range(STEPS))
    assert all(losses == expected[step] for step, losses in found.items()), (found, expected)
    assert STEPS - 1 in found
    assert not list((cwd / "run").rglob(".*"))
    last = read_checkpoint(cwd / "run/checkpoints/last.ckpt")
    return last["global_step"], {name: tensor.tolist() for name, tensor in last["state_dict"].items()}


def kill_training(data, folder, generator, kills, stages=("warmup", "rl")):
    paths = write_stages(data, folder)
    for stage in stages:
        (folder / stage).mkdir()
        command, expected = training_command(paths[stage]), {}

        def read(cwd: Path, expected=expected) -> Any:
            found = read_training(expected, cwd)
            expected.update({} if expected else logged_losses(cwd / "run"))
            return found

        if stage == "rl":
            shutil.copy(folder / "warmup.ckpt", folder / "rl")
        kill_again_and_again(folder / stage, command, read, generator, kills)
        shutil.copy(folder / stage / "whole/run/checkpoints/last.ckpt", folder / f"{stage}.ckpt")


# ------------------------------------------------------------------------------------------------------------- studies


def write_study(data, folder: Path) -> Path:
    """One row with one seed: a warm-up, an RL stage and an evaluation."""
    for name, objective, changes in (
        ("warmup", WARMUP, {}),
        ("rl", ACTOR_CRITIC, {"fresh_parts": ["policy", "critic"]}),
    ):
        content = config(data, objective, **changes)
        content["trainer"] = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "limit_val_batches": 0}
        content["data"] |= {"train": [{"path": "data/clips"}], "validation": []}
        write_config(folder / f"{name}.yaml", content)
    size = {"width": 160, "height": 120}
    study = {
        "warmup": "warmup.yaml",
        "rl": "rl.yaml",
        "seeds": [0],
        "data": {"clips": {"sequences": 4, "frames": 24, **size}},
        "tests": {"short": {"sequences": 3, "frames": 12, **size}},
        "rows": {"policy": {}},
        "groups": {"main": {"title": "Main", "reference": "policy", "rows": {"policy": "RL"}}},
    }
    return write_config(folder / "study.yaml", study)


def read_study_results(output: Path) -> dict[str, Any]:
    """Weights and scores, without what the clock says."""
    found: dict[str, Any] = {"table": (output / "table.csv").read_bytes()}
    for file in output.glob("training/*/*/last.ckpt"):
        weights = read_checkpoint(file)["state_dict"]
        found[str(file.relative_to(output))] = {name: tensor.tolist() for name, tensor in weights.items()}
    assert len(found) == 3
    return found


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = [process]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def kill_study(data, folder, generator, kills):
    study = write_study(data, folder)

    def start(name):
        arguments = ["ablate", study, "--output", folder / name, "--threads", 1]
        return start_relo(*arguments, cwd=folder)

    begin = time.monotonic()
    process = start("whole")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    seconds = time.monotonic() - begin
    for kill in range(kills):
        process = start("killed")
        moment = generator.uniform(0, seconds)
        deadline = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        for member in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(member, signal.SIGKILL)
        process.communicate()
        print(f"kill {kill + 1} after {moment:.1f} s")
        if generator.random() < 0.4 or kill == kills - 1:
            process = start("killed")
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, out + err
            assert read_study_results(folder / "killed") == read_study_results(folder / "whole")
            shutil.rmtree(folder / "killed")


# --------------------------------------------------------------------------------------- the short form, in `make test`


def test_a_few_kills_of_packing(data, tmp_path, generator):
    kill_packing(data.test_root.with_name("raw_train"), tmp_path, generator, 3, workers=[0])


def test_a_kill_of_testing(data, tmp_path, generator):
    kill_testing(data, tmp_path, generator, 1)


def test_a_kill_of_training(data, tmp_path, generator):
    kill_training(data, tmp_path, generator, 1, stages=["warmup"])


# ------------------------------------------------------------------------------------------------------ the whole of it


@pytest.fixture
def kills(minutes) -> int:
    """Of each command, in proportion to the time there is; of a study a fifth."""
    return max(2, round(50 * minutes / 60))


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_kills_of_packing(tmp_path, generator, kills):
    synthesize(tmp_path / "raw", layout="got10k", split="train", sequences=60, frames=30, width=320, height=240)
    kill_packing(tmp_path / "raw", tmp_path, generator, kills, workers=[0, 0, 0, 2])


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_kills_of_testing(data, tmp_path, generator, kills):
    kill_testing(data, tmp_path, generator, kills)


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_kills_of_validating(data, tmp_path, generator, kills):
    kill_validating(data, tmp_path, generator, kills)


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_kills_of_training(data, tmp_path, generator, kills):
    kill_training(data, tmp_path, generator, (kills + 1) // 2)


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_kills_of_a_study(data, tmp_path, generator, kills):
    kill_study(data, tmp_path, generator, (kills + 4) // 5)

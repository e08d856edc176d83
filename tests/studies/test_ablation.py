"""`relo ablate`: a tiny study from data to table, stopped and gone on with; its statistics and its configs."""

import csv
import errno
import fcntl
import itertools
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from refusals import refused
from relo.commands.main import main
from relo.data.sequences import open_reader
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.sequence_scores import sequence_auc
from relo.models.checkpoints.weights import read_checkpoint
from relo.studies.evaluation import evaluate
from relo.studies.evaluation import main as evaluate_step
from relo.studies.figures import differences, scores_over
from relo.studies.plan import make_plan, steps_of
from relo.studies.results import Entry
from relo.studies.run import run_steps
from relo.studies.statistics import Comparison, Summary
from relo.studies.steps import Step
from relo.studies.study import read_study, resolved
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from training_runs import ACTOR_CRITIC, ADAMW, NETWORK, WARMUP, relo_here, start_relo, write_config

CONFIGS = Path(__file__).parents[2] / "configs" / "studies"
SIZE = {"width": 160, "height": 120}


def stage(objective, **model):
    """4 steps."""
    return {
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "limit_val_batches": 0},
        "model": {"network": NETWORK, "objective": objective, "optimizer": ADAMW, **model},
        "data": {
            "train": [{"path": "data/clips"}],
            "sampler": {"class_path": "relo.data.sampler.OrderSampler", "init_args": {"search_frames": 2}},
            "clips_per_epoch": 8,
            "batch_size": 2,
            "workers": 0,
        },
    }


def write_study(folder, **changes):
    write_config(folder / "warmup.yaml", stage(WARMUP, localizations=["prior"]))
    write_config(folder / "rl.yaml", stage(ACTOR_CRITIC, fresh_parts=["policy", "critic"]))
    study = {
        "warmup": "warmup.yaml",
        "rl": "rl.yaml",
        "seeds": [0, 1],
        "data": {"clips": {"sequences": 4, "frames": 24, **SIZE}},
        "tests": {"short": {"sequences": 3, "frames": 12, **SIZE}, "shorter": {"sequences": 2, "frames": 6, **SIZE}},
        "evaluation": {"batch_size": 4},
        "rows": {"policy": {}, "prior": {"stages": ["warmup"], "localization": "prior"}},
        "groups": {"main": {"title": "Main", "reference": "prior", "rows": {"prior": "the prior", "policy": "RL"}}},
    }
    return write_config(folder / "study.yaml", study | changes)


def snapshot(output):
    """When each finished result was written."""
    found = [*output.glob("training/*/*/finished.json"), *output.glob("scores/*/*/*.json")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was stopped in the middle, and gone on with; what was finished before, and its folder."""
    folder = tmp_path_factory.mktemp("study")
    study, output = write_study(folder), folder / "out"
    command = ("ablate", study, "--output", output, "--jobs", 2, "--threads", 1)
    process = start_relo(*command, cwd=folder)
    deadline = time.monotonic() + 200
    while not snapshot(output) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    before = snapshot(output)
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(monkeypatch, *command, cwd=folder)
    return folder, before


def test_stopped_training_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    """From a checkpoint in the middle of its steps, as Ctrl-C leaves one."""
    output = tmp_path / "out"
    shutil.copytree(finished[0] / "out/data", output / "data")
    training = make_plan(read_study(write_study(tmp_path)), [0], output)["prior", 0].training
    weights = training.folder / "last.ckpt"
    for limit, done in (["--trainer.max_steps=2"], 2), ([], 4):
        _, _, _, *arguments = training.command()
        relo_here(monkeypatch, *arguments, *limit, cwd=output)
        assert read_checkpoint(weights)["global_step"] == done
        assert not training.is_finished()
    training.finish(1.0)
    assert training.is_finished()


def test_given_weights_take_the_place_of_every_warm_up(finished, tmp_path, monkeypatch):
    folder = finished[0]
    shutil.copytree(folder / "out/data", tmp_path / "out/data")
    shutil.copytree(folder / "out/tests", tmp_path / "out/tests")
    weights = next(folder.glob("out/training/warmup-*/seed0/last.ckpt"))
    shutil.copy(weights, tmp_path / "weights.ckpt")
    study = write_study(tmp_path, warmup=None, weights="weights.ckpt", seeds=[0])
    steps = steps_of(make_plan(read_study(study), [0], tmp_path / "out"))
    assert [step.is_finished() for step in steps] == [True, False, False, False]
    relo_here(monkeypatch, "ablate", study, "--output", tmp_path / "out", "--threads", 1, cwd=tmp_path)
    assert [path.parent.parent.name.partition("-")[0] for path in tmp_path.glob("out/training/*/*/last.ckpt")] == ["rl"]
    trained, given = (
        read_checkpoint(path)["state_dict"] for path in (*tmp_path.glob("out/training/*/*/*.ckpt"), weights)
    )
    assert torch.equal(trained["network.box.size.0.0.weight"], given["network.box.size.0.0.weight"])
    ours, theirs = (where / "out/scores/prior/seed0/short.json" for where in (tmp_path, folder))
    assert json.loads(ours.read_text())["auc"] == json.loads(theirs.read_text())["auc"]


def test_given_weights_are_evaluated_once(finished, tmp_path):
    weights = next((finished[0] / "out").glob("training/warmup-*/seed0/last.ckpt"))
    study = read_study(write_study(tmp_path, warmup=None, weights=str(weights)))
    plan = make_plan(study, [0, 1], tmp_path)
    assert plan["prior", 1] == plan["prior", 0]
    assert plan["policy", 1] != plan["policy", 0]


def test_rows_that_share_a_stage_by_name_have_not_changed(finished, tmp_path, monkeypatch, capsys):
    rows = {"policy": {}, "other": {"warmup": "slower"}}
    groups = {"main": {"title": "Main", "reference": "policy", "rows": {"policy": "as is", "other": "slower"}}}
    changes = {"slower": {"model": {"optimizer": {**ADAMW, "init_args": {"lr": 1e-5}}}}}
    study = write_study(tmp_path, rows=rows, groups=groups, changes=changes)
    said = dry_run(finished, monkeypatch, capsys, study)
    assert "4 trainings, 2 evaluations" in said
    assert "have changed" not in said


def scores_in(output, row, test):
    """The AUCs [2 seeds, sequences] of a row, read from its files."""
    found = [json.loads((output / f"scores/{row}/seed{seed}/{test}.json").read_text())["auc"] for seed in (0, 1)]
    return np.array([[of_seed[name] for name in sorted(of_seed)] for of_seed in found])


def test_stopped_study_goes_on_without_repeating_itself(finished):
    folder, before = finished
    after = snapshot(folder / "out")
    assert before
    assert {path: after[path] for path in before} == before
    weights = list(folder.glob("out/training/*/*/last.ckpt"))
    assert len(weights) == 2 * 2
    assert {read_checkpoint(path)["global_step"] for path in weights} == {4}
    assert len(list(folder.glob("out/scores/*/*/short*.json"))) == 2 * 2 * 2


def test_table_says_what_was_scored(finished):
    output = finished[0] / "out"
    table = {(row["row"], row["test"]): row for row in csv.DictReader((output / "table.csv").open())}
    assert len(table) == 2 * 3
    for test in ("short", "shorter", "pooled"):
        members = ("short", "shorter") if test == "pooled" else (test,)
        policy, prior = (np.hstack([scores_in(output, row, t) for t in members]) for row in ("policy", "prior"))
        assert 0 <= policy.mean() <= 1
        row = table["policy", test]
        assert row["sequences"] == str(policy.shape[1])
        assert row["seeds"] == "2"
        assert float(row["auc"]) == pytest.approx(policy.mean(), abs=1e-6)
        assert float(row["deviation"]) == pytest.approx(abs(policy[0].mean() - policy[1].mean()) / 2**0.5, abs=1e-6)
        assert float(row["difference"]) == pytest.approx(policy.mean() - prior.mean(), abs=1e-6)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert 0 < float(row["p"]) <= 1
        assert table["prior", test]["difference"] == ""
        shown = f"{100 * policy.mean():.2f} ± "
        assert shown in (output / "table.md").read_text()
        assert shown in (output / "report.html").read_text()
    seconds = json.loads((output / "results.json").read_text())["training_seconds_by_seed"]
    assert {label.partition("-")[0] for label in seconds} == {"warmup", "rl"}


def test_finished_study_has_nothing_to_do(finished, monkeypatch, capsys):
    folder, _ = finished
    before = snapshot(folder / "out")
    relo_here(monkeypatch, "ablate", folder / "study.yaml", "--output", folder / "out", cwd=folder)
    assert "8 steps, 8 of them finished" in capsys.readouterr().out
    assert snapshot(folder / "out") == before


def test_lost_scores_are_made_again(finished, monkeypatch):
    folder, _ = finished
    lost = folder / "out/scores/prior/seed1/shorter.json"
    content, before = lost.read_text(), snapshot(folder / "out")
    lost.unlink()
    relo_here(monkeypatch, "ablate", folder / "study.yaml", "--output", folder / "out", cwd=folder)
    assert json.loads(lost.read_text())["auc"] == json.loads(content)["auc"]
    assert {**snapshot(folder / "out"), lost: before[lost]} == before


def dry_run(finished, monkeypatch, capsys, study, *options):
    """What a dry run says of a study in the folder of the finished one."""
    output = finished[0] / "out"
    before = snapshot(output)
    relo_here(monkeypatch, "ablate", study, "--output", output, "--dry_run", *options, cwd=finished[0])
    assert snapshot(output) == before
    return capsys.readouterr().out


def test_changed_training_is_noticed(finished, tmp_path, monkeypatch, capsys):
    study = write_study(tmp_path)
    assert "0 trainings, 0 evaluations" in dry_run(finished, monkeypatch, capsys, study)
    slower = stage(ACTOR_CRITIC, fresh_parts=["policy", "critic"])
    slower["model"]["optimizer"] = {**ADAMW, "init_args": {"lr": 1e-4}}
    (tmp_path / "rl.yaml").write_text("# a comment changes nothing\n" + (tmp_path / "rl.yaml").read_text())
    assert "0 trainings, 0 evaluations" in dry_run(finished, monkeypatch, capsys, study)
    write_config(tmp_path / "rl.yaml", slower)
    said = dry_run(finished, monkeypatch, capsys, study)
    assert "2 trainings, 2 evaluations" in said
    assert "The settings of rl have changed" in said
    assert "Scores of other settings are written over: policy." in said
    said = dry_run(finished, monkeypatch, capsys, study, "--only", "prior")
    assert "0 trainings, 0 evaluations" in said


def test_changed_evaluation_is_noticed(finished, tmp_path, monkeypatch, capsys):
    study = write_study(tmp_path, evaluation={"batch_size": 4, "precision": "bfloat16"})
    said = dry_run(finished, monkeypatch, capsys, study, "--only", "main", "--seeds", "1")
    assert "0 trainings, 2 evaluations" in said


def test_changed_sequences_are_refused(finished, tmp_path, monkeypatch, capsys):
    study = write_study(tmp_path, data={"clips": {"sequences": 5, "frames": 24, **SIZE}})
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "ablate", study, "--output", finished[0] / "out", cwd=tmp_path)
    assert stop.value.code == 2
    assert "rendered with other settings" in capsys.readouterr().err


def test_failing_row_is_named_and_the_others_are_done(finished, tmp_path, monkeypatch, capsys):
    """In a copy of the finished study's folder, whose warm-up is used."""
    rows = {"broken": {"rl": "broken.yaml"}, "prior": {"stages": ["warmup"], "localization": "prior"}}
    group = {"title": "Main", "reference": "prior", "rows": {name: name for name in rows}}
    write_config(tmp_path / "broken.yaml", {"model": {"objective": {"class_path": "no.such.Objective"}}})
    study = write_study(tmp_path, rows=rows, groups={"main": group})
    output = shutil.copytree(finished[0] / "out", tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "ablate", study, "--output", output, "--seeds", 0, cwd=tmp_path)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "2 of 4 steps failed" in said
    assert "rl.broken, seed 0:" in said
    assert "no.such.Objective" in said
    assert "broken, seed 0: evaluation: it needs rl.broken, seed 0" in said
    assert {row["row"] for row in csv.DictReader((output / "table.csv").open())} == {"prior"}


def test_oracle_and_tracking_rules_are_evaluated(finished, tmp_path):
    """As the evaluating process does it."""
    output = finished[0] / "out"
    (tmp_path / "rule.yaml").write_text("{localization: prior, window_exponent: 0.0}")
    scores = {}
    for localization, rule in itertools.product(("prior", "oracle"), (None, "rule.yaml")):
        rows = {"policy": {}, "prior": {"stages": ["warmup"], "localization": localization, "rule": rule}}
        evaluation = make_plan(read_study(write_study(tmp_path, rows=rows)), [0], output)["prior", 0]
        assert evaluation.training.is_finished()
        evaluation = replace(evaluation, folder=tmp_path / f"{localization}, {rule}")
        evaluate(evaluation)
        scores[localization, rule is None] = evaluation.scores("short").read()["auc"]
    assert scores["prior", True] == json.loads((output / "scores/prior/seed0/short.json").read_text())["auc"]
    assert scores["prior", False] != scores["prior", True] != scores["oracle", True]
    assert scores["oracle", False] == scores["oracle", True], "an oracle has no use for a window"


def test_a_step_of_a_study_that_has_changed_is_refused(finished, tmp_path):
    study, output = write_study(tmp_path), finished[0] / "out"
    with pytest.raises(UserError, match="has changed since this step was planned"):
        evaluate_step(str(study), str(output), "prior", "0", "another")


def test_window_is_the_best_on_the_validation_sets(finished, tmp_path, monkeypatch):
    output, exponents = tmp_path / "out", [0.0, 1.0]
    shutil.copytree(finished[0] / "out", output)
    validation = {name: {"sequences": 3, "frames": 12, "seed": seed, **SIZE} for name, seed in (("one", 5), ("two", 6))}
    study = write_study(tmp_path, validation=validation, evaluation={"batch_size": 4, "window_exponents": exponents})
    command = ("ablate", study, "--output", output, "--only", "prior", "--seeds", 0)
    relo_here(monkeypatch, *command, cwd=tmp_path)

    (weights,) = output.glob("training/warmup-*/seed0/last.ckpt")

    def mean_auc(folder, exponent):
        rule = TrackingRule(localization="prior", window_exponent=exponent)
        results = run_one_pass(Tracker.from_pretrained(weights, rule), open_reader("lasot", folder, "test"))
        return np.mean([sequence_auc(result) for result in results])

    own = {
        exponent: np.mean([mean_auc(output / "validation" / name, exponent) for name in validation])
        for exponent in exponents
    }
    assert len(set(own.values())) == len(exponents)
    best = max(own, key=own.get)
    scores = output / "scores/prior/seed0"
    found = json.loads((scores / "short.json").read_text())
    assert found["window_exponent"] == best
    assert found["auc_mean"] == pytest.approx(mean_auc(output / "tests/short", best), abs=1e-5)
    table = {row["row"]: row for row in csv.DictReader((output / "table.csv").open())}
    assert table["prior"]["window_exponents"] == f"{best:g}"
    assert f" {best:g} |" in (output / "table.md").read_text()

    choice = scores / ".window.json"
    chosen_at = choice.stat().st_mtime_ns
    (scores / "short.json").unlink()
    relo_here(monkeypatch, *command, cwd=tmp_path)
    assert json.loads((scores / "short.json").read_text())["auc"] == found["auc"]
    assert choice.stat().st_mtime_ns == chosen_at, "what was chosen is not chosen again"


def test_second_run_in_the_same_folder_is_refused(finished, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.setattr("relo.commands.ablate._PATIENCE", 0.2)
    with (folder / "out/.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit) as stop:
            relo_here(monkeypatch, "ablate", folder / "study.yaml", "--output", folder / "out", cwd=folder)
    assert stop.value.code == 2
    assert "is at work in" in capsys.readouterr().err


# The runner.


@dataclass(frozen=True)
class ShellStep(Step):
    """Runs a script in its folder's parent, and leaves the file `done` in its folder if it ends well."""

    script: str

    def is_finished(self):
        return (self.folder / "done").exists()

    def command(self):
        return ["sh", "-c", self.script]

    def finish(self, seconds):
        (self.folder / "done").touch()


def shell(folder, name, script, *needs):
    return ShellStep(name, folder / name, needs, script)


def run_shell(output, *steps, jobs=2):
    with (output / "lock").open("w") as lock:
        return run_steps(steps, output, jobs=jobs, threads=1, lock=lock.fileno(), console=Console(quiet=True))


def test_steps_wait_for_those_they_need_and_for_room(tmp_path):
    first = shell(tmp_path, "first", "echo begin 1 >> order; sleep 0.3; echo end 1 >> order")
    other = shell(tmp_path, "other", "echo begin 2 >> order; sleep 0.6; echo end 2 >> order")
    third = shell(tmp_path, "third", "echo $OMP_NUM_THREADS >> order", first)
    assert run_shell(tmp_path, first, other, third) == {}
    begun, *ended = (tmp_path / "order").read_text().splitlines()[1:]
    assert begun.startswith("begin")
    assert ended == ["end 1", "1", "end 2"]
    assert run_shell(tmp_path, first, other, third) == {}, "finished steps are not run again"
    assert len((tmp_path / "order").read_text().splitlines()) == 5


def test_failed_steps_are_named_and_those_after_them_not_begun(tmp_path):
    failing = shell(tmp_path, "failing", "echo why; echo; exit 3")
    killed = shell(tmp_path, "killed", "kill -9 $$")
    after, good = shell(tmp_path, "after", "touch begun", failing), shell(tmp_path, "good", "true")
    failed = run_shell(tmp_path, failing, killed, after, good)
    assert failed.keys() == {failing, killed, after}
    assert failed[failing] == f"why (see {tmp_path / 'failing/output.log'})"
    assert failed[killed].startswith("killed by SIGKILL")
    assert failed[after] == "it needs failing"
    assert good.is_finished()
    assert not (tmp_path / "begun").exists()


def test_steps_that_cannot_be_begun_or_noted_are_named_and_the_others_are_done(tmp_path, monkeypatch):
    blocked, good = shell(tmp_path, "blocked", "true"), shell(tmp_path, "good", "true")
    unlogged = shell(tmp_path, "unlogged", "rm unlogged/output.log; exit 1")
    unnoted = shell(tmp_path, "unnoted", "rm -r unnoted")
    after = shell(tmp_path, "after", "true", blocked)
    (tmp_path / "blocked").write_text("a file in the place of a folder")
    failed = run_shell(tmp_path, blocked, after, unlogged, unnoted, good)
    assert failed == {
        blocked: f"it cannot be started ({tmp_path / 'blocked'}: File exists)",
        after: "it needs blocked",
        unlogged: f"it has ended, but {tmp_path / 'unlogged/output.log'}: No such file or directory",
        unnoted: f"it has ended, but {tmp_path / 'unnoted/done'}: No such file or directory",
    }
    assert good.is_finished()

    def too_many(*_, **settings):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", too_many)
    another = shell(tmp_path, "another", "true")
    assert run_shell(tmp_path, another) == {another: "it cannot be started (Resource temporarily unavailable)"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("auc"),
        lambda content: content.update(auc={}),
        lambda content: content.update(auc={"a": "x"}),
        lambda content: content.update(auc={"a": 7.0}),
        lambda content: content.update(auc=[0.5]),
    ],
)
def test_damaged_scores_are_missing(damage, tmp_path):
    evaluation = make_plan(read_study(write_study(tmp_path)), [0], tmp_path)["prior", 0]
    evaluation.scores("short").write(auc={"a": 0.5})
    assert evaluation.missing() == ["shorter"]
    content = json.loads(evaluation.scores("short").path.read_text())
    damage(content)
    evaluation.scores("short").path.write_text(json.dumps(content))
    assert evaluation.missing() == ["short", "shorter"]


@pytest.mark.parametrize("chosen", [None, "1.0", 3.0, [1.0]])
def test_a_damaged_choice_of_the_window_is_missing(chosen, tmp_path):
    settings = {"evaluation": {"window_exponents": [0.0, 1.0]}, "validation": {"v": {"sequences": 1}}}
    evaluation = make_plan(read_study(write_study(tmp_path, **settings)), [0], tmp_path)["prior", 0]
    evaluation.window.write(window_exponent=1.0)
    assert evaluation.window.read()["window_exponent"] == 1.0
    evaluation.window.write(window_exponent=chosen)
    assert evaluation.window.read() == {}


@pytest.mark.parametrize(
    ("content", "seconds"),
    [('{"seconds": 2.5}', 2.5), ("{}", None), ("[]", None), ('{"seconds": [1]}', None), ('{"seconds": 1e999}', None)],
)
def test_how_long_a_training_took(content, seconds, tmp_path):
    training = make_plan(read_study(write_study(tmp_path)), [0], tmp_path)["prior", 0].training
    training.finish(1.0)
    (training.folder / "finished.json").write_text(content)
    assert training.seconds == seconds


@pytest.mark.parametrize(
    ("name", "said"), [("loop/x", "Too many levels of symbolic links"), ("study.yaml/x", "Not a directory")]
)
def test_folders_that_cannot_be(name, said, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    sentence = refused(capsys, "ablate", write_study(tmp_path), f"--output={tmp_path / name}", "--dry_run")
    assert f"{tmp_path / name} cannot be written ({said})." in sentence


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_steps_may_save_what_they_have(number, tmp_path):
    saving = shell(tmp_path, "saving", "trap 'touch saved; exit 0' INT; touch begun; while :; do sleep 0.05; done")

    def stop():
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_shell(tmp_path, saving)
    thread.join()
    assert (tmp_path / "saved").exists()
    assert not saving.is_finished()


# Mistakes.


def group(reference="prior", **titles):
    return {"title": "Main", "reference": reference, "rows": {"prior": "the prior", "policy": "RL", **titles}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"warmup": None}, "either warmup or weights"),
        ({"weights": "warmup.yaml"}, "either warmup or weights"),
        ({"warmup": None, "weights": "x.ckpt"}, "there are no weights"),
        ({"warmup": None, "weights": "."}, "is no model folder"),
        ({"warmup": None, "weights": "rl.yaml"}, "rl.yaml is not a checkpoint of tensors"),
        ({"seed": [0]}, "seed"),
        ({"pooled": ["long"]}, "'long'"),
        ({"rows": {"policy": {"rll": "x.yaml"}}}, "rows.policy: There is no setting 'rll'"),
        ({"rows": {"policy": {"rl": "x.yaml"}, "prior": {}}}, "there is no file"),
        ({"rows": {"policy": {"rl": ["x"]}, "prior": {}}}, "rows.policy names 'x': there is no such change"),
        ({"changes": {"x": 3}}, "changes.x: here must be settings"),
        ({"changes": "x.yaml"}, "changes: here must be settings"),
        ({"changes": {"x": {"model": b"a"}}}, "study.yaml holds b'a'; a setting is"),
        ({"changes": {"x": {"model": {"a"}}}}, "study.yaml holds {'a'}; a setting is"),
        ({"rows": {"policy": {"stages": ["warmup"]}}}, "which the warm-up does not train"),
        ({"rows": {"policy": {"stages": ["rl"], "warmup": "rl.yaml"}}}, "which is not trained"),
        ({"rows": {"policy": {}, "lonely": {}}}, "rows.lonely is in no group"),
        ({"rows": {"a row": {}}}, "'a row'"),
        ({"groups": {"main": group(reference="a")}}, "reference 'a'"),
        ({"groups": {"main": group(a="x")}}, "'a', which is no row"),
        ({"groups": {"main": {**group(policy="2"), "axis": "T"}}}, "must be finite numbers"),
        ({"groups": {"main": {**group(prior="1", policy="nan"), "axis": "T"}}}, "must be finite numbers"),
        ({"groups": {"main": {**group(prior="-inf", policy="2"), "axis": "T"}}}, "must be finite numbers"),
        ({"tests": {"short": {"sequences": "many"}}}, "tests.short: Setting 'sequences'"),
        ({"tests": {"short": {"path": "x"}}}, "dataset"),
        ({"tests": {"pooled": {"sequences": 2}}, "pooled": ["pooled"]}, "'pooled' is what tables call"),
        ({"tests": 3}, "settings by name"),
        ({"evaluation": {"window_exponents": [1]}}, "need each other"),
        ({"validation": {"one": {"sequences": 2}}}, "need each other"),
        ({"validation": {"one": {"sequences": 2}}, "evaluation": {"window_exponents": [-1]}}, "must be from 0 to 1000"),
        (
            {"validation": {"one": {"sequences": 2}}, "evaluation": {"window_exponents": [1e9]}},
            "must be from 0 to 1000",
        ),
        (
            {"validation": {"one": {"sequences": 2}}, "evaluation": {"window_exponents": [float("inf")]}},
            "has window_exponent = inf",
        ),
        ({"evaluation": {"batch_size": -1}}, "evaluation has batch_size = -1"),
        ({"evaluation": {"rule": "rl.yaml"}}, "rl.yaml: unknown setting"),
        ({"rows": {"policy": {"rl": "x" * 300 + ".yaml"}, "prior": {}}}, "there is no file"),
    ],
)
def test_mistakes_in_a_study_are_named(changes, said, tmp_path):
    path = write_study(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        read_study(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"clips": {"sequences": 0}}}, "data.clips: The synthesis has sequences = 0"),
        ({"tests": {"short": {"sequences": 1, "frames": 1}}}, "tests.short: A synthetic sequence has frames = 1"),
        ({"tests": {"short": {"path": "x", "dataset": "lasso"}}}, "tests.short: "),
        ({"tests": {"short": {"path": "nowhere", "dataset": "lasot"}}}, "nowhere"),
    ],
)
def test_sequences_that_cannot_be_had_are_named_before_anything_is_done(changes, said, tmp_path, capsys):
    path = write_study(tmp_path, **changes)
    with pytest.raises(SystemExit) as error:
        main(["ablate", str(path), f"--output={tmp_path / 'out'}"])
    assert error.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ("10,10,20,20\n", "plain/s has 1 boxes and 1 visibility flags for 3 frames"),
        ("0,0,0,0\n" * 3, "the target can be seen in no sequence"),
    ],
)
@pytest.mark.parametrize("kind", ["tests", "validation"])
def test_recorded_sequences_that_cannot_be_scored(boxes, said, kind, tmp_path, capsys):
    folder = tmp_path / "mine/s"
    folder.mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((48, 64, 3), np.uint8))
    (folder / "groundtruth.txt").write_text(boxes)
    changes = {kind: {"own": {"path": str(folder.parent), "dataset": "plain", "split": "all"}}}
    if kind == "validation":
        changes["evaluation"] = {"window_exponents": [0.0, 1.0]}
    path = write_study(tmp_path, **changes)
    sentence = refused(capsys, "ablate", path, f"--output={tmp_path / 'out'}")
    assert f"study.yaml, {kind}.own: {said}" in sentence


@pytest.mark.parametrize("seed", [-1, 2**32, 2**80])
def test_a_seed_that_no_training_takes(seed, tmp_path):
    study = read_study(write_study(tmp_path, seeds=[seed]))
    with pytest.raises(UserError, match="A training has seed = "):
        make_plan(study, study.seeds, tmp_path / "out")


def test_a_stages_callbacks_stay_beside_the_steps_own(tmp_path):
    averaged = {"class_path": "relo.training.callbacks.AveragedWeights", "init_args": {"decay": 0.9}}
    saved = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "mine"}}
    table = {"class_path": "relo.training.monitoring.HealthTable", "init_args": {"every_n_steps": 1}}
    content = stage(WARMUP, localizations=["prior"])
    content["trainer"]["callbacks"] = [averaged, saved]
    rows = {"policy": {"warmup": "watched"}, "prior": {}}
    changes = {"watched": {"trainer": {"callbacks+": [table]}}}
    path = write_study(tmp_path, rows=rows, changes=changes)
    write_config(tmp_path / "warmup.yaml", content)
    (training,) = make_plan(read_study(path), [0], tmp_path / "out")["policy", 0].training.needs
    training.folder.mkdir(parents=True)
    training.command()
    trainer = yaml.safe_load((training.folder / "settings.yaml").read_text())["trainer"]
    assert trainer["callbacks"][:-1] == [averaged, table]
    assert trainer["callbacks"][-1]["init_args"]["dirpath"] == str(training.folder)
    assert "callbacks+" not in trainer


@pytest.mark.parametrize("callbacks", ["LearningRateMonitor", {"class_path": "LearningRateMonitor"}])
def test_a_stage_may_have_one_callback_which_makes_another_training(callbacks, tmp_path):
    plain = make_plan(read_study(write_study(tmp_path)), [0], tmp_path / "out")["prior", 0].training
    content = stage(WARMUP, localizations=["prior"])
    content["trainer"]["callbacks"] = callbacks
    path = write_study(tmp_path)
    write_config(tmp_path / "warmup.yaml", content)
    training = make_plan(read_study(path), [0], tmp_path / "out")["prior", 0].training
    assert training.digest != plain.digest
    training.folder.mkdir(parents=True)
    training.command()
    trainer = yaml.safe_load((training.folder / "settings.yaml").read_text())["trainer"]
    assert trainer["callbacks"][0] == {"class_path": "LearningRateMonitor"}


def test_a_date_in_a_config_is_text(tmp_path):
    def planned(changed, configured="x"):
        rows = {"policy": {"rl": "x"}, "prior": {}}
        study = read_study(write_study(tmp_path, changes={"x": {"model": {"name": changed}}}, rows=rows))
        write_config(tmp_path / "rl.yaml", {"model": {"version": configured}})
        return make_plan(study, [0], tmp_path / "out")["policy", 0].training

    day, next_day = date(2020, 1, 1), date(2020, 1, 2)
    assert planned(day).changes == {"model": {"name": "2020-01-01"}}
    assert planned(day).digest == planned("2020-01-01").digest
    digests = {planned(changed, configured).digest for changed in (day, next_day) for configured in (day, next_day)}
    assert len(digests) == 4


def test_configs_that_name_one_another_again_and_again(tmp_path):
    for level in range(8):
        write_config(tmp_path / f"g{level}.yaml", {f"key{key}": f"g{level + 1}.yaml" for key in range(40)})
    write_config(tmp_path / "g8.yaml", {"value": 1})
    assert resolved(tmp_path / "g7.yaml")["key39"] == {"value": 1}
    for changed in ({"rl": "g0.yaml"}, {"changes": {"x": {"model": "g0.yaml"}}}):
        study = write_study(tmp_path, **changed)
        with pytest.raises(UserError, match="more than 100,000 values"):
            make_plan(read_study(study), [0], tmp_path / "out")
    for level in range(60):
        write_config(tmp_path / f"deep{level}.yaml", {"a": {"b": f"deep{level + 1}.yaml"}})
    write_config(tmp_path / "deep60.yaml", {})
    with pytest.raises(UserError, match="within one another over 100 times"):
        resolved(tmp_path / "deep0.yaml")


@pytest.mark.parametrize("second", ["first.yaml", "second.yaml"])
def test_a_config_that_names_itself(second, tmp_path):
    write_config(tmp_path / "first.yaml", {"model": "second.yaml"})
    write_config(tmp_path / "second.yaml", {"model": [second]})
    with pytest.raises(UserError, match=f"{second} names itself, or a file that names it"):
        resolved(tmp_path / "first.yaml")


def test_names_that_are_no_rows_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        relo_here(monkeypatch, "ablate", write_study(tmp_path), "--only", "polici", "--dry_run", cwd=tmp_path)
    assert "no group and no row 'polici'" in capsys.readouterr().err


def test_figures_show_every_row_and_test_set():
    of_group = [
        Entry(
            "T",
            f"t{t}",
            str(t),
            test,
            (0, 1),
            3,
            (0.5, 0.6),
            (),
            Summary(0.55, 0.07, 0.1),
            Comparison(0.1, 0, 0.2, 0.04),
        )
        for t in (1, 2, 16)
        for test in ("easy", "pooled")
    ]
    main, single = scores_over("T", of_group).axes
    assert [label.get_text() for label in main.get_xticklabels()] == ["1", "2", "16"]
    assert [text.get_text() for text in single.get_legend().get_texts()] == ["easy"]
    figure = differences("Against base", of_group)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1", "2", "16"]

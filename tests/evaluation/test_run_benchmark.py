"""`relo test` on synthetic LaSOT sequences, and what scoring and packing make of its results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from rich.progress import Progress

import relo.evaluation.submissions
from relo.commands import test as run
from relo.commands.evaluate import submit
from relo.commands.main import main
from relo.commands.test import run_benchmark
from relo.data.sequences import open_reader
from relo.data.sequences.parsing import read_boxes
from relo.data.synthetic.command import synthesize
from relo.errors import UserError
from relo.evaluation.benchmark_rule import benchmark_rule
from relo.evaluation.run import longest_first
from relo.models.checkpoints.weights import save_network
from relo.tracking.rule import TrackingRule, read_rule_file
from small_networks import make_network

CONFIGS = Path(__file__).parents[2] / "configs" / "tracking"

SEQUENCES, FRAMES = 5, 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lasot")
    synthesize(folder, split="test", sequences=SEQUENCES, frames=FRAMES, width=160, height=120, workers=0)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_network(make_network(), folder)
    return folder


@pytest.fixture(scope="module")
def reference(root, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "tracker"
    run_benchmark(model=str(model), dataset="lasot", root=root, output=folder, batch_size=1, workers=1, device="cpu")
    return boxes(folder)


def boxes(folder):
    names = [path.name for path in folder.glob("*.txt") if not path.stem.endswith(("_score", "_time"))]
    return {name: read_boxes(folder / name) for name in sorted(names)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, boxes_xywh in expected.items():
        np.testing.assert_allclose(found[name], boxes_xywh, rtol=0, atol=1e-3)


def command(root, model, output, *options):
    return ["test", "--model", str(model), "--dataset", "lasot", "--root", str(root), "--output", str(output), *options]


def test_what_is_not_read_is_named(root, model, tmp_path, capsys):
    shutil.copytree(root, tmp_path / "lasot")
    names = open_reader("lasot", root, "test").names
    for name in names[1:]:
        shutil.rmtree(tmp_path / "lasot" / name.rpartition("-")[0] / name)
    (tmp_path / "lasot/testing_set.txt").write_text(names[0])
    folder = tmp_path / "lasot" / names[0].rpartition("-")[0] / names[0]
    (folder / "nlp.txt").write_bytes("é".encode("cp1252"))
    (folder.parent / "gadget-1" / "img").mkdir(parents=True)
    (folder.parent / "gadget-1" / "img" / "1.jpg").touch()
    main(command(tmp_path / "lasot", model, tmp_path / "out", "--device", "cpu"))
    printed = capsys.readouterr().out
    assert "gadget-1/img looks like a sequence and is not read: no list" in printed
    assert f"{names[0]}/nlp.txt is left out" in printed


def test_frames_of_another_size_are_named(root, model, tmp_path, capsys):
    shutil.copytree(root, tmp_path / "lasot")
    name = open_reader("lasot", root, "test").names[1]
    path = tmp_path / "lasot" / name.rpartition("-")[0] / name / "img/00000008.jpg"
    cv2.imwrite(str(path), np.zeros((1, 500, 3), np.uint8))
    main(command(tmp_path / "lasot", model, tmp_path / "out", "--device", "cpu"))
    printed = capsys.readouterr().out
    remark = f"lasot/{name} has 1 of {FRAMES} frames of another size than 160x120 px; the first, frame 7, is 500x1 px."
    assert remark in printed
    assert printed.count("of another size") == 1


def test_every_frame_has_a_row(reference):
    assert len(reference) == SEQUENCES
    assert {boxes_xywh.shape for boxes_xywh in reference.values()} == {(FRAMES, 4)}


@pytest.mark.parametrize("settings", [("3", "1"), ("8", "4")])
def test_boxes_do_not_depend_on_batch_and_workers(root, model, reference, tmp_path, settings):
    main(command(root, model, tmp_path, "--batch_size", settings[0], "--workers", settings[1], "--device", "cpu"))
    assert_same(boxes(tmp_path), reference)


def test_two_devices_share_the_sequences(root, model, reference, tmp_path, monkeypatch, capsys):
    shown = []

    class Recorded(Progress):
        def stop(self):
            shown.append((self.tasks[0].completed, self.tasks[0].total))
            super().stop()

    monkeypatch.setattr(run, "progress_bar", lambda console, *columns: Recorded(*columns, console=console))
    main(command(root, model, tmp_path, "--device", "cpu,cpu", "--batch_size", "2"))
    assert_same(boxes(tmp_path), reference)
    frames = SEQUENCES * FRAMES
    assert shown == [(frames, frames)]
    assert f"{SEQUENCES} of {SEQUENCES} sequences" in (printed := capsys.readouterr().out)
    assert f" {frames} frames tracked now" in printed


def test_shards_make_up_the_whole(root, model, reference, tmp_path):
    counts = []
    for shard in ("0", "1", "2"):
        main(command(root, model, tmp_path, "--shards", "3", "--shard", shard))
        counts.append(len(boxes(tmp_path)))
    assert counts == [2, 4, 5]
    assert_same(boxes(tmp_path), reference)


def test_killed_run_goes_on(root, model, reference, tmp_path):
    arguments = command(root, model, tmp_path, "--batch_size", "1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "relo", *arguments], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not boxes(tmp_path):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.txt")}
    assert 0 < len(boxes(tmp_path)) < SEQUENCES
    finished = [path for path in done if path.name in boxes(tmp_path)]
    main(arguments)
    assert_same(boxes(tmp_path), reference)
    assert all(path.stat().st_mtime_ns == done[path] for path in finished)


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_failing_sequence_is_named_and_the_exit_code_says_so(root, model, reference, tmp_path, device, capsys):
    broken = tmp_path / "lasot"
    shutil.copytree(root, broken)
    folder, other = sorted(broken.glob("*/*-*"))[1:3]
    image = sorted((folder / "img").iterdir())[7]
    image.write_bytes(b"half a picture")
    (other / "groundtruth.txt").write_text("no box\n")
    huge = sorted(broken.glob("*/*-*"))[3]
    lines = (huge / "groundtruth.txt").read_text().splitlines()
    (huge / "groundtruth.txt").write_text("\n".join(["-10000,-10000,30000,30000", *lines[1:]]))
    with pytest.raises(SystemExit) as stop:
        main(command(broken, model, tmp_path / "out", "--device", device))
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"3 of {SEQUENCES} sequences could not be tracked" in message
    assert folder.name in message
    assert image.name in message
    assert "groundtruth.txt, line 1" in message
    assert f"{huge.name}: The box x, y, w, h = -10000" in message
    lost = {f"{name.name}.txt" for name in (folder, other, huge)}
    assert_same(boxes(tmp_path / "out"), {name: value for name, value in reference.items() if name not in lost})


def test_results_are_scored_and_packed_as_they_are(root, model, tmp_path, capsys, monkeypatch):
    main(command(root, model, tmp_path / "mine"))
    assert f"{SEQUENCES} of {SEQUENCES} sequences" in capsys.readouterr().out
    scores = tmp_path / "scores.json"
    main(
        ["evaluate", str(tmp_path / "mine"), "--benchmark", "lasot", "--annotations", str(root), "--json", str(scores)]
    )
    content = json.loads(scores.read_text())
    assert content["tracker"] == "mine"
    assert content["sequences"] == SEQUENCES
    assert content["remarks"] == []
    assert content["frames_per_second"] > 0

    synthesize(tmp_path / "got10k", layout="got10k", split="test", sequences=2, frames=6, workers=0)
    arguments = ["--model", str(model), "--root", str(tmp_path / "got10k"), "--output", str(tmp_path / "got")]
    main(["test", "--dataset", "got10k", *arguments])
    zipped = tmp_path / "got.zip"
    monkeypatch.setattr(relo.evaluation.submissions, "_require_test_set", lambda *given: None)  # all 180 take long
    submit(tmp_path / "got", benchmark="got10k", dataset=tmp_path / "got10k", output=zipped)
    assert zipped.exists()


def test_settings_of_a_benchmark_are_applied_and_said(root, model, tmp_path, capsys):
    own = tmp_path / "model"
    shutil.copytree(model, own)
    (own / "tracking.yaml").write_text("window_exponent: 1.5\nbenchmarks: {lasot_ext: {window_exponent: 2.5}}\n")
    rule = tmp_path / "rule.yaml"
    rule.write_text(yaml.safe_dump({"window_exponent": 3.0, "benchmarks": {"LaSOT": {"window_exponent": 2.2}}}))
    cases = [
        ((), 1.5, "lasot", None, "has no settings of its own for lasot: its default rule holds"),
        (
            ("--benchmark", "LaSOT_ext"),
            2.5,
            "lasot_extension",
            {"window_exponent": 2.5},
            "for lasot_extension: window_exponent 2.5.",
        ),
        (("--rule", str(rule)), 2.2, "lasot", {"window_exponent": 2.2}, "for lasot: window_exponent 2.2. Rule: "),
        (("--rule", str(rule), "--benchmark", "none"), 3.0, None, None, "One rule for every benchmark"),
    ]
    for number, (options, exponent, benchmark, settings, sentence) in enumerate(cases):
        main(command(root, own, tmp_path / str(number), "--localization", "prior", *options))
        found = json.loads((tmp_path / str(number) / "run.json").read_text())
        assert (found["rule"]["window_exponent"], found["rule"]["localization"]) == (exponent, "prior")
        assert (found["benchmark"], found["benchmark_settings"]) == (benchmark, settings)
        printed = " ".join(capsys.readouterr().out.split())
        assert sentence in printed
        assert f"localization prior, window probabilities, window_exponent {exponent}" in printed


@pytest.mark.parametrize("variant", ["t256", "b256", "l256"])
@pytest.mark.parametrize(
    ("dataset", "entry"),
    [
        ("lasot", "lasot"),
        ("lasot_extension", "lasot_ext"),
        ("got10k", "got10k"),
        ("trackingnet", "trackingnet"),
        ("tnl2k", "tnl2k"),
        ("nfs", "nfs"),
        ("nfs_pytracking", "nfs"),
        ("nfs_released", "nfs"),
        ("uav123", "uav123"),
        ("uav123_10fps", None),  # the release was run at 30 frames a second
        ("otb100", None),
        ("coco", None),
    ],
)
def test_a_datasets_name_finds_the_settings_of_the_release(variant, dataset, entry):
    rule = CONFIGS / f"{variant}.yaml"
    changed = read_rule_file(rule).benchmarks.get(entry)
    found = benchmark_rule("relo-b256", rule, None, dataset)
    assert found.settings == changed
    assert found.rule == read_rule_file(rule).on(entry)
    assert ("no settings of its own" in found.summary) == (changed is None and dataset != "coco")


def test_only_the_test_split_is_the_benchmark():
    rule = CONFIGS / "b256.yaml"
    found = benchmark_rule("relo-b256", rule, None, "got10k", split="val")
    assert (found.settings, found.rule) == (None, read_rule_file(rule).rule)
    assert "Split val of got10k is no benchmark: the default rule" in found.summary
    assert benchmark_rule("relo-b256", rule, "got10k", "got10k", split="val").rule == read_rule_file(rule).on("got10k")


def test_a_checkpoint_says_its_one_rule(tmp_path):
    content = {"relo_network": {}, "state_dict": {"a": torch.ones(1)}, "relo_rule": {"window_exponent": 1.25}}
    torch.save(content, tmp_path / "last.ckpt")
    found = benchmark_rule(str(tmp_path / "last.ckpt"), None, None, "lasot")
    assert found.rule.window_exponent == 1.25
    assert "has no settings of its own for lasot" in found.summary
    assert "window_exponent 1.25" in found.summary


def test_a_benchmark_of_a_rule_must_exist_once(tmp_path):
    rule = tmp_path / "rule.yaml"
    for entries, culprit in (("lasott: {}", "lasott"), ("nfs: {}, NFS30: {}", "nfs and NFS30")):
        rule.write_text(f"benchmarks: {{{entries}}}")
        with pytest.raises(UserError, match=rf"rule\.yaml: .*{culprit}"):
            benchmark_rule("relo-small", rule, None, "lasot")


def test_a_file_changes_what_it_names_of_the_models_own_rule(network, tmp_path):
    own = {"localization": "prior", "margin_px": 3.0, "benchmarks": {"lasot": {"templates": 2, "margin_px": 5.0}}}
    save_network(network, tmp_path / "model", own)
    rule, model = tmp_path / "rule.yaml", str(tmp_path / "model")
    rule.write_text("window_exponent: 2")
    found = benchmark_rule(model, rule, None, "lasot")
    assert found.settings == {"templates": 2, "margin_px": 5.0}
    assert found.rule == TrackingRule("prior", window_exponent=2, templates=2, margin_px=5.0)
    rule.write_text("margin_px: 7")  # holds on every benchmark
    assert benchmark_rule(model, rule, None, "lasot").rule == TrackingRule("prior", templates=2, margin_px=7)
    rule.write_text("benchmarks: {got10k: {templates: 3}}")
    assert benchmark_rule(model, rule, None, "lasot").rule == TrackingRule("prior", margin_px=3.0)
    assert benchmark_rule(model, rule, None, "got10k").rule == TrackingRule("prior", margin_px=3.0, templates=3)
    rule.write_text("released_rule: b256")  # is complete
    assert benchmark_rule(model, rule, None, "lasot").rule == read_rule_file(rule).on("lasot")


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"dataset": "lasott"}, "lasott"),
        ({"split": "nowhere"}, "nowhere"),
        ({"model": "none.ckpt"}, r"none\.ckpt"),
        ({"device": "warp:0"}, "warp:0"),
        ({"device": "cpu,"}, "no device ''"),
        ({"device": "cpu, cpu:3"}, "no device 'cpu:3'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"shard": 2, "shards": 2}, "shard 2 of 2"),
        ({"benchmark": "lasot"}, r"tracking\.yaml"),
        ({"benchmark": "lasott"}, "lasott"),
    ],
)
def test_mistakes_are_named(root, model, tmp_path, options, culprit):
    settings = {"model": str(model), "dataset": "lasot", "root": root, "output": tmp_path} | options
    with pytest.raises(UserError, match=culprit):
        run_benchmark(**settings)


def test_two_devices_do_not_mix_trackers(root, model, tmp_path):
    main(command(root, model, tmp_path))
    with pytest.raises(UserError, match="other rule"):
        run_benchmark(
            model=str(model), dataset="lasot", root=root, output=tmp_path, device="cpu,cpu", localization="prior"
        )


def test_a_killed_process_ends_the_run_in_one_sentence(root, model, reference, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(root, model, tmp_path, "--device", "cpu,cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "relo", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(workers := worker_processes(process.pid)) < 2:
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    _, message = process.communicate()
    assert process.returncode == 2
    assert message.splitlines()[-1].startswith("relo: error: The process for cpu was killed")
    assert "Traceback" not in message
    main(command(root, model, tmp_path))
    assert_same(boxes(tmp_path), reference)


def worker_processes(parent):
    children = (Path("/proc") / str(parent) / "task" / str(parent) / "children").read_text().split()
    return [int(child) for child in children if "spawn_main" in (Path("/proc") / child / "cmdline").read_text()]


def test_results_of_two_datasets_do_not_mix(model, tmp_path, capsys):
    """UAV123 and UAV123@10fps have sequences of the same names."""
    roots = {name: tmp_path / name for name in ("uav123", "uav123_10fps")}
    for name, root in roots.items():
        synthesize(root, layout=name, split="test", sequences=2, frames=6, width=160, height=120, workers=0)

    def arguments(name, *options):
        places = ["--root", str(roots[name]), "--output", str(tmp_path / "out")]
        return ["test", "--model", str(model), "--dataset", name, *places, *options]

    main(arguments("uav123_10fps"))
    before = boxes(tmp_path / "out")
    main(arguments("uav123_10fps", "--split", "test"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments("uav123"))
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "holds results on uav123_10fps, split test, not on uav123, split test" in message
    assert message.count("\n") == 1
    assert_same(boxes(tmp_path / "out"), before)


def test_long_sequences_come_first(root, tmp_path):
    synthesize(tmp_path, layout="plain", split="test", sequences=2, frames=3, width=160, height=120, workers=0)
    synthesize(tmp_path / "more", layout="plain", split="test", sequences=3, frames=5, width=160, height=120, workers=0)
    shutil.move(tmp_path / "more" / "Badge3", tmp_path / "Badge3")
    reader = open_reader("plain", tmp_path)
    (tmp_path / "Badge1" / "groundtruth.txt").write_text("no box\n")
    numbers, lengths = longest_first(reader)
    assert [reader.names[number] for number in numbers] == ["Badge3", "Badge2", "Badge1"]
    assert lengths == [0, 3, 5]

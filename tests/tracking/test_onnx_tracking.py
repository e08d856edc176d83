"""Tracking with exported graphs, by `Tracker.from_onnx`, by the commands and by the loop of docs/onnx.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from graph_files import BENCHMARKS, RULE, change, edited, nano, without_output
from relo import Tracker
from relo.data.synthetic import render_sequence
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.settings import EASY
from relo.errors import UserError
from relo.evaluation.benchmark_rule import benchmark_rule
from relo.models.checkpoints.weights import save_network
from relo.models.exported import ExportedNetwork, exported_metadata, is_onnx
from relo.tracking.rule import RuleFile, TrackingRule, own_rules
from training_runs import relo_here

PAGE = Path(__file__).parents[2] / "docs/onnx.md"
FRAMES = 101

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def single(nano_graphs, tmp_path_factory) -> Path:
    """Graphs that take one target at a time and lack the prior (tests/models/test_export.py exports such)."""
    single = Path(shutil.copytree(nano_graphs, tmp_path_factory.mktemp("single") / "onnx"))
    without_output(single / "step.onnx", "prior_scores")
    for name in ("step.onnx", "templates.onnx"):
        change(single / name, batch=1, heads=["box", "policy", "presence"])
        with edited(single / name) as graph:
            for tensor in (*graph.input, *graph.output):
                for size in tensor.type.tensor_type.shape.dim:
                    if size.dim_param:
                        size.dim_value = 1
    return single


@pytest.fixture(scope="module")
def videos():
    sequences = [render_sequence(name, frames=FRAMES, settings=EASY) for name in ("one", "two", "three")]
    return [(list(sequence.frames), sequence.boxes_xywh) for sequence in sequences]


def followed(tracker: Tracker, videos, late: int = 3):
    """The states of a target in each video, frame by frame; the last is taken up `late` frames after the others."""
    count = max(1, len(videos) - 1)
    states = tracker.initialize([images[0] for images, _ in videos[:count]], [boxes[0] for _, boxes in videos[:count]])
    for frame in range(1, len(videos[0][0])):
        if frame == late and len(videos) > 1:
            states += tracker.initialize([videos[-1][0][0]], [videos[-1][1][0]])
        states = tracker.step([images[frame] for images, _ in videos[: len(states)]], states, keep_response=True)
        yield states


def assert_the_same(tracker: Tracker, expected: Tracker, videos) -> list:
    """Both give the same on every frame; returns the first target's states."""
    states = []
    for theirs, ours in zip(followed(expected, videos), followed(tracker, videos), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.box_xywh, other.box_xywh, rtol=0, atol=1e-2)
            torch.testing.assert_close(one.response, other.response, rtol=1e-3, atol=1e-3)
            assert (one.status, one.frame_index) == (other.status, other.frame_index)
            assert one.presence == (None if other.presence is None else pytest.approx(other.presence, abs=1e-3))
        states.append(ours[0])
    assert len(torch.stack([state.response for state in states]).unique(dim=0)) > FRAMES / 2
    return states


RULES = {
    "policy": {},
    "prior": {"localization": "prior"},
    "templates renewed": {"template_update_interval": 5, "template_update_threshold": -1.0},
    "lost and found": {"lost_after": 3, "sure_presence": 0.5, "found_presence": 0.5},
}


@pytest.mark.parametrize("changes", RULES.values(), ids=RULES.keys())
def test_a_hundred_frames_of_three_targets_are_those_of_torch(nano_graphs, videos, changes):
    rule = replace(RULE, **changes)
    tracker, expected = Tracker.from_onnx(nano_graphs, rule), Tracker(nano(), rule)
    assert (tracker.engine, tracker.tells_presence) == ("onnxruntime", rule.localization == "policy")
    states = assert_the_same(tracker, expected, videos)
    if rule.template_update_interval:
        assert not torch.equal(*states[-1].template_crops)
    assert any(state.status == "lost" for state in states) == (rule.lost_after is not None)


def test_a_graph_for_one_target_serves_several(single, videos):
    assert_the_same(Tracker.from_onnx(single), Tracker(nano(), RULE), videos)


def test_a_last_run_is_filled_up(single, monkeypatch):
    """A graph for two targets, which is one for a single target whose runs are counted."""
    network, shapes = ExportedNetwork(single), []
    graph = network._step
    graph.metadata = replace(graph.metadata, batch=2)
    graph.outputs = dict.fromkeys(graph.outputs, ("tensor(float)", [2, 64, 64]))
    graph.outputs["next_memory"] = ("tensor(float)", [2, 2, 3, 32])

    class Session:
        def run(self, names, arrays):
            shapes.append({name: array.shape for name, array in arrays.items()})
            return [arrays["memory"] if name == "next_memory" else arrays["images"][:, 0] for name in names]

    graph._session = Session()
    images, memory = torch.rand(3, 3, 64, 64), torch.rand(2, 3, 3, 32)
    maps, found = network(images, network.encode_templates(torch.rand(3, 2, 3, 32, 32), torch.rand(3, 2, 4)), memory)
    assert [shape["images"][0] for shape in shapes] == [2, 2]
    assert torch.equal(maps.policy_logits, images[:, 0])
    assert torch.equal(found, memory)


@pytest.mark.slow  # the export
def test_the_shipped_network(shipped, videos):
    assert_the_same(Tracker.from_onnx(shipped), Tracker.from_pretrained(device="cpu", engine="torch"), videos[:2])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        relo_here(patch, "export", "--model", "relo-small", "--output", folder, cwd=folder)
    return folder


def page_code() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.mark.parametrize("graphs", ["nano_graphs", pytest.param("shipped", marks=pytest.mark.slow)])
def test_the_loop_of_the_page_gives_the_same_boxes_without_torch(graphs, videos, tmp_path, request):
    (images, boxes_xywh), graphs = videos[0], request.getfixturevalue(graphs)
    shutil.copytree(graphs, tmp_path / "onnx")
    np.save(tmp_path / "images.npy", np.stack(images))
    np.save(tmp_path / "box.npy", boxes_xywh[0])
    for package in ("torch", "relo"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('not here')")
    script = "\n".join(
        [
            page_code(),
            'found = list(track(np.load("images.npy"), np.load("box.npy")))',
            'np.save("boxes.npy", [box for box, presence in found])',
            'np.save("presence.npy", [presence for box, presence in found])',
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)
    alone = replace(own_rules(graphs).rule, presence_stays=None)  # as the page says, of each frame
    states = [state for (state,) in followed(Tracker.from_onnx(graphs, alone), videos[:1])]
    expected = torch.stack([state.box_xywh for state in states]).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "boxes.npy"), expected, rtol=0, atol=1e-2)
    np.testing.assert_allclose(np.load(tmp_path / "presence.npy"), [state.presence for state in states], atol=1e-3)
    assert len(np.unique(expected, axis=0)) > FRAMES / 2


def test_the_loop_of_the_page_is_short():
    assert sum(bool(line.strip()) for line in page_code().splitlines()) <= 45


def test_either_file_and_the_folder_mean_the_same(nano_graphs, copied):
    (copied / "step.onnx").rename(copied / "mine.onnx")
    for path in (
        nano_graphs,
        str(nano_graphs),
        nano_graphs / "step.onnx",
        nano_graphs / "templates.onnx",
        copied / "mine.onnx",
    ):
        assert is_onnx(path)
        assert Tracker.from_onnx(path).rule == RULE
    for path in (nano_graphs.parent, nano_graphs / "nothing", Path("relo-small")):
        assert not is_onnx(path)


def test_the_rule_is_in_the_files_with_what_it_changes_on_benchmarks(nano_graphs):
    assert own_rules(nano_graphs) == own_rules(nano_graphs / "step.onnx") == RuleFile(RULE, BENCHMARKS)
    asked = benchmark_rule(str(nano_graphs), None, "lasot", "lasot", split="test")
    assert asked.rule == RuleFile(RULE, BENCHMARKS).on("lasot") != RULE
    changed = Tracker.from_onnx(nano_graphs, replace(RULE, margin_px=3.0), localization="prior")
    assert changed.rule == replace(RULE, margin_px=3.0, localization="prior")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it can compute on cuda")
def test_onnxruntime_says_itself_where_it_can_compute(nano_graphs):
    """Its devices are not torch's: there may be a GPU for one of them alone."""
    with pytest.raises(UserError, match=r"onnxruntime.*cuda"):
        Tracker.from_pretrained(nano_graphs, device="cuda")


def test_the_metadata_say_what_a_program_without_relo_needs(nano_graphs):
    entries = onnxruntime.InferenceSession(str(nano_graphs / "step.onnx")).get_modelmeta().custom_metadata_map
    found = json.loads(entries["relo"])
    expected = {"search_size": 64, "template_size": 32, "map_size": 8, "templates": 2, "batch": None, "format": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["heads"] == ["box", "policy", "presence", "prior"]
    assert found["tracking"]["window_exponent"] == 0.7
    assert found["pixel_mean"] == [0.485, 0.456, 0.406]


def test_the_network_counts_as_large_as_its_weights(nano_graphs):
    network = ExportedNetwork(nano_graphs)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in nano().parameters())
    assert Tracker(network, RULE).device == torch.device("cpu")


def test_threads_are_torchs_and_sleep_while_they_wait(nano_graphs):
    network = ExportedNetwork(nano_graphs)
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            network.encode_templates(torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 4))
            options = network._templates._session.get_session_options()
            assert options.intra_op_num_threads == threads
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    finally:
        torch.set_num_threads(before)


def test_pretrained_takes_graphs_and_refuses_what_they_cannot(nano_graphs):
    assert Tracker.from_pretrained(nano_graphs / "step.onnx", precision="auto", engine="onnxruntime").rule == RULE
    for options in ({"precision": "bfloat16"}, {"engine": "torch"}, {"cuda_graphs": True}):
        with pytest.raises(UserError, match="computed by onnxruntime in float32: leave out precision, engine and CUDA"):
            Tracker.from_pretrained(nano_graphs, **options)


@pytest.mark.parametrize(("device", "words"), [("cuda", "onnxruntime-gpu"), ("mps", "not on 'mps'"), ("x", "'x'")])
def test_a_device_that_is_not_there(nano_graphs, device, words):
    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(UserError, match=words):
        Tracker.from_onnx(nano_graphs, device=device)


def test_a_rule_that_the_graphs_do_not_serve(nano_graphs, single):
    with pytest.raises(UserError, match=r"templates = 1, and .* was exported for 2: export it with --templates 1"):
        Tracker.from_onnx(nano_graphs, TrackingRule())
    with pytest.raises(UserError, match="no prior head"):
        Tracker.from_onnx(single, localization="prior")


def test_no_file_at_all(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*m\.onnx"):
        Tracker.from_onnx(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"There is no templates\.onnx"):
        exported_metadata(tmp_path)


@pytest.mark.parametrize("name", ["", "step.onnx"])
def test_the_command_tracks_with_the_folder_or_a_file(nano_graphs, videos, name, tmp_path, monkeypatch):
    images, boxes_xywh = videos[0]
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, image in enumerate(images[:5]):
        cv2.imwrite(str(frames / f"{number}.png"), image[..., ::-1])
    box = ",".join(f"{value:g}" for value in boxes_xywh[0])
    model = str(nano_graphs / name)
    relo_here(monkeypatch, "track", "frames", "--box", box, "--model", model, "--save", "boxes.txt", cwd=tmp_path)
    tracker = Tracker.from_onnx(nano_graphs)
    states, expected = tracker.initialize(images[:1], [[float(f"{value:g}") for value in boxes_xywh[0]]]), []
    for image in images[1:5]:
        states = tracker.step([image], states)
        expected.append(states[0].box_xywh.numpy())
    np.testing.assert_allclose(np.loadtxt(tmp_path / "boxes.txt", delimiter=",")[1:], expected, atol=1e-2)


def test_a_benchmark_is_run_with_graphs_and_their_settings_for_it(nano_graphs, tmp_path, monkeypatch, capsys):
    synthesize(tmp_path / "data", split="test", sequences=2, frames=5, width=160, height=120, workers=0)
    save_network(nano(), tmp_path / "model", RuleFile(RULE, BENCHMARKS).settings())
    boxes_xywh = {}
    for model in (tmp_path / "model", nano_graphs):
        results = tmp_path / "results" / model.name
        options = ["--dataset", "lasot", "--root", "data", "--device", "cpu", "--workers", "1"]
        relo_here(monkeypatch, "test", "--model", model, "--output", results, *options, cwd=tmp_path)
        assert "has settings of its own for lasot: window_exponent 2.0" in " ".join(capsys.readouterr().out.split())
        names = [path for path in sorted(results.glob("*.txt")) if "_" not in path.stem]
        boxes_xywh[model.name] = np.stack([np.loadtxt(path, delimiter=",") for path in names])
    expected, found = boxes_xywh.values()
    assert len(found) == 2
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_the_command_says_one_sentence(copied, tmp_path, monkeypatch, capsys):
    (copied / "templates.onnx").unlink()
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames/0.png"), np.zeros((80, 80, 3), np.uint8))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "track", "frames", "--box", "9,9,30,30", "--model", f"{copied}/step.onnx", cwd=tmp_path)
    assert stop.value.code == 2
    assert "There is no templates.onnx in" in " ".join(capsys.readouterr().err.split())

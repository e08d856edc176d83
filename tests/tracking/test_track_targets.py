"""`relo track` with several targets, however they are given, and with several outputs."""

import json
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest

import relo.commands.targets
from relo.commands.main import main
from relo.data.sequences.parsing import read_boxes
from relo.models.checkpoints.weights import save_network
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker

FRAMES = 5
BOXES = ["40,30,30.5,40", "90,50,25,20", "5,5,60,60"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        """Nothing is printed."""


@pytest.fixture
def model(network, tmp_path):
    save_network(network, tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 255, (120, 160, 3), np.uint8))
    return str(folder)


@pytest.fixture
def track(source, model, tmp_path):
    """Runs `relo track` and gives the targets' boxes [B, T, 4]."""

    def run(*words, targets=3):
        save = tmp_path / "boxes.txt"
        main(["track", source, "--model", model, "--device", "cpu", "--save", str(save), *map(str, words)])
        names = [f"boxes_{i + 1}.txt" for i in range(targets)] if targets > 1 else ["boxes.txt"]
        return np.stack([read_boxes(tmp_path / name) for name in names])

    return run


@pytest.fixture
def expected(network, source):
    """The boxes [B, T, 4] of the Python loop."""
    boxes_xywh = [[float(number) for number in box.split(",")] for box in BOXES]
    return np.stack([result.boxes_xywh for result in Tracker(network).run(source, boxes_xywh)], axis=1)


def test_boxes_are_those_of_the_python_loop_however_they_are_given(track, expected, tmp_path):
    file = tmp_path / "targets.txt"
    file.write_text("\n".join(BOXES))
    repeated = [word for box in BOXES for word in ("--box", box)]
    for words in (repeated, ["--box", *BOXES], ["--boxes", file], [f"--box={BOXES[0]}", "--box", *BOXES[1:]]):
        assert np.allclose(track(*words), expected, atol=1e-4)


def test_options_may_come_before_the_source(source, model, tmp_path):
    save = tmp_path / "a.txt"
    main(["track", "--device", "cpu", "--model", model, "--save", str(save), "--box", BOXES[0], source])
    assert read_boxes(save).shape == (FRAMES, 4)


def test_several_outputs_of_one_run(track, expected, tmp_path, capsys):
    outputs = [tmp_path / "out" / f"a.{ending}" for ending in ("txt", "jsonl", "csv", "json")]
    track("--box", *BOXES, "--save", *outputs)
    _, lines, rows, coco = outputs
    objects = [json.loads(line) for line in lines.read_text().splitlines()]
    in_json = [[target["box_xywh"] for target in found["targets"]] for found in objects]
    assert np.allclose(np.swapaxes(in_json, 0, 1), expected, atol=1e-4)
    assert len(rows.read_text().splitlines()) == len(json.loads(coco.read_text())["annotations"]) == FRAMES * len(BOXES)
    printed = " ".join(capsys.readouterr().out.split())
    texts = [tmp_path / "out" / f"a_{number}.txt" for number in (1, 2, 3)]
    assert all(f"Written: {path}" in printed for path in (*outputs[1:], *texts, tmp_path / "boxes_1.txt"))


@pytest.mark.parametrize("name", ["video.mp4", "pictures", "pictures.v2/"])
def test_rendered_targets(track, tmp_path, capsys, name):
    track("--box", *BOXES, "--render", f"{tmp_path}/{name}")
    images = list(open_frames(tmp_path / name))
    assert len(images) == FRAMES
    assert images[0].shape == (480, 640, 3)  # small frames are enlarged
    assert f"Tracked {FRAMES} frames of {tmp_path / 'frames'} with 3 targets." in capsys.readouterr().out


def test_presence_of_several_targets_and_which_of_them_were_lost(network, source, tmp_path, capsys):
    head = ConvPresence(16, (16, 8))
    head.calibrate(1.0, -20.0)
    parts = (network.encoder, network.propagator, network.policy, network.box, network.critic, network.prior)
    save_network(LocalizationNetwork(*parts, head), tmp_path / "model")
    (tmp_path / "rule.yaml").write_text("lost_after: 3")
    options = ["--rule", "rule.yaml", "--presence", "presence.txt", "--model", "model", "--device", "cpu"]
    options = [str(tmp_path / word) if "." in word or word == "model" else word for word in options]
    main(["track", source, "--box", *BOXES[:2], *options])
    rows = np.loadtxt(tmp_path / "presence.txt", delimiter=",")
    assert rows.shape == (FRAMES, 2)
    assert (rows[0] == 1).all()
    assert (rows[1:] < 0.01).all()
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f"Target {number} was lost on 2 frames: 3 to 4." in printed for number in (1, 2))


def test_boxes_are_drawn_in_the_page_where_there_is_no_window(track, expected, source, monkeypatch):
    shown = []

    def select_boxes(image):
        shown.append(image)
        return [[float(number) for number in box.split(",")] for box in BOXES]

    monkeypatch.setattr(relo.commands.targets, "_has_window", lambda: False)
    monkeypatch.setattr(relo.commands.targets, "select_boxes", select_boxes)
    assert np.allclose(track("--select"), expected, atol=1e-4)
    assert np.array_equal(shown[0], next(iter(open_frames(source))))


def test_boxes_are_drawn_in_a_window_where_there_is_one(track, expected, source, monkeypatch):
    def select_rois(title, picture, **settings):
        assert np.array_equal(picture[..., ::-1], next(iter(open_frames(source))))
        return np.array([[90, 50, 25, 20], [5, 5, 60, 60]])

    monkeypatch.setattr(relo.commands.targets, "_has_window", lambda: True)
    for name, function in (("selectROIs", select_rois), ("namedWindow", print), ("destroyWindow", print)):
        monkeypatch.setattr(cv2, name, function)
    assert np.allclose(track("--select", targets=2), expected[1:], atol=1e-4)


def test_a_network_address(track, model, tmp_path):
    """The boxes are those of the file that the server sends."""
    track("--box", BOXES[0], "--render", tmp_path / "video.mp4", targets=1)
    handler = partial(QuietHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        found = []
        for source in (tmp_path / "video.mp4", f"http://127.0.0.1:{server.server_port}/video.mp4"):
            words = ["--box", "160,120,120,160", "--model", model, "--device", "cpu", "--save", str(tmp_path / "a.txt")]
            main(["track", str(source), *words])
            found.append(read_boxes(tmp_path / "a.txt"))
        server.shutdown()
        thread.join()
    assert np.array_equal(*found)
    assert len(found[1]) == FRAMES


def test_a_headless_opencv_or_a_server_has_no_window(monkeypatch):
    for text, display, expected in (("GUI: NONE", ":0", False), ("GUI: GTK3", ":0", True), ("GUI: GTK3", "", False)):
        monkeypatch.setattr(cv2, "getBuildInformation", lambda text=text: f"  A: YES\n  {text}\n")
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr(sys, "platform", "linux")
        assert relo.commands.targets._has_window() == expected

"""Our tracker in the real VOT toolkit, in a workspace made for it; and the TraX conversation by itself."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.errors import UserError
from relo.evaluation.adapters.vot import bounding_box_xywh, serve
from relo.models.checkpoints.weights import save_network
from relo.tracking.tracker import Tracker
from small_networks import make_network

FRAMES = 8


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    synthesize(folder, layout="plain", split="test", sequences=1, frames=FRAMES, width=160, height=120, workers=0)
    return open_reader("plain", folder)[0]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_network(make_network(), folder)
    words = [sys.executable, "-m", "relo.evaluation.adapters.vot", "--model", str(folder), "--device", "cpu"]
    return shlex.join(words)


@pytest.fixture(scope="module")
def expected_xywh(sequence):
    return follow(sequence, sequence.boxes_xywh[0])


def follow(sequence, box_xywh):
    tracker = Tracker(make_network())
    states = tracker.initialize([sequence.frames[0]], np.array([box_xywh]))
    boxes_xywh = [states[0].box_xywh.numpy()]
    for index in range(1, FRAMES):
        states = tracker.step([sequence.frames[index]], states)
        boxes_xywh.append(states[0].box_xywh.numpy())
    return np.array(boxes_xywh)


def test_without_trax_the_sentence_says_what_to_install(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(UserError, match=r"pip install 'relo\[vot\]'"):
        serve(Tracker(network))


def test_toolkit_evaluates_the_tracker(sequence, command, expected_xywh, tmp_path):
    pytest.importorskip("vot")
    folder = tmp_path / "sequences" / "badge"
    (folder / "color").mkdir(parents=True)
    for index in range(FRAMES):
        (folder / "color" / f"{index + 1:08d}.jpg").write_bytes(sequence.frames.encoded(index))
    np.savetxt(folder / "groundtruth.txt", sequence.boxes_xywh, fmt="%.4f", delimiter=",")
    (folder / "sequence").write_text("channels.color=color/%08d.jpg\nfps=30\nformat=default\n")
    (tmp_path / "sequences" / "list.txt").write_text("badge\n")
    (tmp_path / "stack.yaml").write_text(
        "title: ours\nexperiments:\n  baseline: {type: unsupervised, repetitions: 1}\n"
    )
    (tmp_path / "config.yaml").write_text(f"stack: {tmp_path / 'stack.yaml'}\nregistry: ['./trackers.ini']\n")
    (tmp_path / "trackers.ini").write_text(f"[RELO]\nlabel = RELO\nprotocol = trax\ncommand = {command}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    toolkit = subprocess.run(
        [sys.executable, "-m", "vot", "evaluate", "--workspace", str(tmp_path), "RELO"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    results = list((tmp_path / "results").rglob("badge_001.*"))
    assert len(results) >= 1, toolkit.stdout + toolkit.stderr
    found_xywh = read_regions(tmp_path / "results", tmp_path)
    # The first line says that the tracker was initialized there.
    np.testing.assert_allclose(found_xywh, expected_xywh[1:], rtol=0, atol=0.01)


def read_regions(results: Path, workspace: Path):
    from vot.region.io import read_trajectory

    (file,) = (path for path in results.rglob("badge_001.*") if path.suffix in (".txt", ".bin"))
    regions = read_trajectory(str(file))
    assert len(regions) == FRAMES
    return [[region.x, region.y, region.width, region.height] for region in regions[1:]]


@pytest.fixture
def client(command):
    """A TraX client that talks to our process."""
    pytest.importorskip("trax")
    from trax.client import Client

    process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    client = Client(stream=(process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None)
    yield client
    client.quit()
    assert process.wait(30) == 0


def bounds(objects):
    return [region.bounds() for region, _ in objects]


def test_targets_that_come_later_and_a_new_start(client, sequence, expected_xywh):
    from trax import FileImage, Rectangle

    def image(index):
        return {"color": FileImage.create(sequence.frames.name(index))}

    other_xywh = [20.0, 30, 40, 30]
    target, other = Rectangle.create(*sequence.boxes_xywh[0]), Rectangle.create(*other_xywh)
    objects, _ = client.initialize(image(0), [(target, {}), (other, {})], {})
    np.testing.assert_allclose(bounds(objects), [sequence.boxes_xywh[0], other_xywh], atol=0.01)
    others_xywh = follow(sequence, other_xywh)
    objects, _ = client.frame(image(1), {}, [])
    np.testing.assert_allclose(bounds(objects), [expected_xywh[1], others_xywh[1]], atol=0.01)
    assert all(0 <= float(properties["confidence"]) <= 1 for _, properties in objects)
    objects, _ = client.frame(image(2), {}, [(Rectangle.create(5, 5, 30, 20), {})])
    np.testing.assert_allclose(bounds(objects), [expected_xywh[2], others_xywh[2], [5, 5, 30, 20]], atol=0.01)
    client.initialize(image(0), [(target, {})], {})
    objects, _ = client.frame(image(1), {}, [])
    np.testing.assert_allclose(bounds(objects), [expected_xywh[1]], atol=0.01)


def test_box_around_a_mask_and_a_polygon():
    trax = pytest.importorskip("trax")
    mask = np.zeros((40, 50), np.uint8)
    cv2.rectangle(mask, (7, 11), (21, 30), 1, -1)  # both corners belong to it
    assert bounding_box_xywh(trax.Mask.create(mask)) == [7, 11, 15, 20]
    assert bounding_box_xywh(trax.Mask.create(mask, 100, 200)) == [107, 211, 15, 20]
    assert bounding_box_xywh(trax.Polygon.create([(1.0, 2.0), (5.0, 3.0), (2.0, 9.0)])) == [1, 2, 4, 7]
    assert bounding_box_xywh(trax.Rectangle.create(1, 2, 3, 4)) == [1, 2, 3, 4]
    with pytest.raises(UserError, match="empty"):
        bounding_box_xywh(trax.Mask.create(np.zeros((4, 4), np.uint8)))
    with pytest.raises(UserError, match="Special"):
        bounding_box_xywh(trax.Special.create(1))


def test_wrong_model_ends_with_one_sentence(command):
    pytest.importorskip("trax")
    words = shlex.split(command)
    words[words.index("--model") + 1] = "none.ckpt"
    process = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert process.stderr.startswith("relo: error:")
    assert "none.ckpt" in process.stderr

"""Our tracker in the real GOT-10k toolkit, on a validation set made for it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from relo.commands.evaluate import evaluate
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.errors import UserError
from relo.evaluation.adapters.got10k import got10k_tracker
from relo.tracking.tracker import Tracker


def test_without_the_toolkit_the_sentence_says_what_to_install(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "got10k.trackers", None)
    with pytest.raises(UserError, match=r"pip install 'relo\[got10k\]'"):
        got10k_tracker(Tracker(network))


def test_toolkit_runs_the_tracker_and_gives_the_same_scores(network, tmp_path):
    experiments = pytest.importorskip("got10k.experiments")
    root = tmp_path / "data"
    synthesize(root, layout="got10k", split="val", sequences=3, frames=8, width=160, height=120, workers=0)
    tracker = Tracker(network)
    experiment = experiments.ExperimentGOT10k(
        str(root), subset="val", result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports")
    )
    experiment.run(got10k_tracker(tracker, "ours"))
    theirs = experiment.report(["ours"])["ours"]["overall"]

    results = tmp_path / "results" / "GOT-10k" / "ours"
    for sequence in open_reader("got10k", root, "val"):
        images = [np.asarray(Image.open(sequence.frames.name(index))) for index in range(len(sequence))]
        states = tracker.initialize(images[:1], sequence.boxes_xywh[:1])
        boxes_xywh = [states[0].box_xywh.numpy()]
        for image in images[1:]:
            states = tracker.step([image], states)
            boxes_xywh.append(states[0].box_xywh.numpy())
        found = np.loadtxt(results / sequence.name / f"{sequence.name}_001.txt", delimiter=",")
        np.testing.assert_allclose(found, boxes_xywh, rtol=0, atol=1e-3)
        assert not (results / sequence.name / f"{sequence.name}_002.txt").exists()

    evaluate([results], benchmark="got10k", annotations=root, json=tmp_path / "scores.json")
    ours = json.loads((tmp_path / "scores.json").read_text())
    assert ours["ao"] == pytest.approx(theirs["ao"], abs=1e-9)
    assert ours["sr_0.5"] == pytest.approx(theirs["sr"], abs=1e-9)
    assert ours["sr_0.75"] == pytest.approx(theirs["succ_curve"][75], abs=1e-9)

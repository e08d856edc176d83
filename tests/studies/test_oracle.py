"""The tracker that is shown the truth."""

import numpy as np
import pytest
import torch

from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.evaluation.one_pass import run_one_pass
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.images import normalise_images
from relo.studies.oracle import OracleTracker, with_truth
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    root = tmp_path_factory.mktemp("easy")
    synthesize(root, split="test", sequences=2, frames=8, workers=0, width=160, height=120)
    return open_reader("lasot", root, "test")


def test_oracle_takes_the_cell_whose_box_is_best(network, easy):
    """On the first frame, whose search region is known."""
    rule = TrackingRule()
    oracle, tracker = (kind(network, rule) for kind in (OracleTracker, Tracker))
    sequence = with_truth(easy[0])
    image, following = sequence.frames[0], sequence.frames[1]
    states = oracle.initialize([image], sequence.boxes_xywh[:1])
    found = oracle.step([following], states)[0]
    crop = rule.search_crop(64)
    region = crop.region(torch.from_numpy(sequence.boxes_xywh[0]))
    search = normalise_images(torch.from_numpy(crop.cut(following, region))[None])
    with torch.inference_mode():
        maps, _ = network(search, states[0].templates)
    cells_xyxy = xywh_to_xyxy(crop.to_image(maps.boxes_cxcywh[0].double(), region))
    truth_xyxy = xywh_to_xyxy(torch.from_numpy(sequence.boxes_xywh[1]))
    best = iou(cells_xyxy, truth_xyxy).max()
    assert best > 0
    # Up to the margin that boxes keep inside the image.
    assert iou(xywh_to_xyxy(found.box_xywh), truth_xyxy) == pytest.approx(float(best), abs=1e-3)
    assert cxcywh_to_xyxy(maps.boxes_cxcywh).shape == cells_xyxy[None].shape
    plain = tracker.step([following], tracker.initialize([image], sequence.boxes_xywh[:1]))[0]
    assert iou(xywh_to_xyxy(plain.box_xywh), truth_xyxy) <= best + 1e-3


def test_oracle_tracks_many_sequences_in_a_batch(network, easy):
    tracker = OracleTracker(network)
    shown = [with_truth(sequence) for sequence in easy]
    results = run_one_pass(tracker, shown, batch_size=2)
    for result, sequence in zip(results, shown, strict=True):
        states = tracker.initialize([sequence.frames[0]], sequence.boxes_xywh[:1])
        for index in range(1, len(sequence)):
            states = tracker.step([sequence.frames[index]], states)
            np.testing.assert_allclose(result.boxes_xywh[index], states[0].box_xywh, atol=0.05)
    plain = run_one_pass(Tracker(network), easy, batch_size=2)
    assert not np.allclose(plain[0].boxes_xywh, results[0].boxes_xywh, atol=1)


def test_truth_of_a_hidden_target_is_the_nearest_frames(easy):
    sequence = easy[0]
    sequence.visible[3:5] = False
    sequence.boxes_xywh[3:5] = 0
    frames = with_truth(sequence).frames
    for index, nearest in enumerate((0, 1, 2, 2, 5, 5, 6, 7)):
        np.testing.assert_array_equal(frames[index].truth_xywh, sequence.boxes_xywh[nearest])

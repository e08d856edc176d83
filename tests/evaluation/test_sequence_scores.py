"""Sequences of which only the first box is public are not scored: one box would be held against every frame."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from relo.data.datamodule import SequenceDataset, SequenceSource
from relo.data.sequences import open_reader
from relo.errors import UserError
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import presence_outcomes, sequence_auc

FRAMES = 5
REFUSAL = "plain/s has 1 boxes and 1 visibility flags for 5 frames, so what is tracked cannot be scored"


@pytest.fixture
def first_box_only(tmp_path) -> Path:
    folder = tmp_path / "root" / "s"
    folder.mkdir(parents=True)
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((48, 64, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("10,10,20,20\n")
    return folder.parent


def test_they_are_not_validated_on(first_box_only):
    source = SequenceSource(str(first_box_only), dataset="plain")
    with pytest.raises(UserError, match=REFUSAL):
        SequenceDataset([source])
    shutil.copytree(first_box_only / "s", first_box_only / "r")
    (first_box_only / "r/groundtruth.txt").write_text("10,10,20,20\n" * FRAMES)
    sequences = SequenceDataset([source])
    assert len(sequences[0]) == FRAMES
    with pytest.raises(UserError, match=REFUSAL):
        sequences[1]


@pytest.mark.parametrize("score", [sequence_auc, lambda result: presence_outcomes([result])])
def test_they_have_no_score(first_box_only, score):
    (sequence,) = open_reader("plain", first_box_only)
    boxes_xywh = np.tile([[10.0, 10, 20, 20]], (FRAMES, 1))
    with pytest.raises(UserError, match=REFUSAL):
        score(SequenceResult(sequence, boxes_xywh, *np.ones((3, FRAMES))))


def test_boxes_of_another_number_of_frames_have_no_score(first_box_only):
    (first_box_only / "s/groundtruth.txt").write_text("10,10,20,20\n" * FRAMES)
    (sequence,) = open_reader("plain", first_box_only)
    with pytest.raises(AssertionError):
        sequence_auc(SequenceResult(sequence, sequence.boxes_xywh[:1], *np.ones((3, 1))))

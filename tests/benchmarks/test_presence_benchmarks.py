"""The benchmarks of presence and of finding targets again, on sequences whose outcome is known."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from relo.data.clip_store import ClipStore
from relo.data.packing import pack
from relo.data.sequences.base import FrameSource, ImageFiles, Sequence, SequenceReader
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import presence_outcomes, presence_scores, right_boxes
from relo.models.checkpoints.weights import save_network
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.tracking.rule import TrackingRule, own_rules
from relo.tracking.tracker import Tracker
from small_networks import make_network


@pytest.fixture
def benchmarks(script):
    return script("presence"), script("refound")


@pytest.fixture
def model(tmp_path):
    network = make_network()
    parts = (network.encoder, network.propagator, network.policy, network.box, network.critic, network.prior)
    save_network(LocalizationNetwork(*parts, ConvPresence(16, (16, 8))), tmp_path / "model")
    return str(tmp_path / "model")


def result_of(boxes_xywh, truth_xywh, visible, presence=None):
    count = len(visible)
    frames = ImageFiles(Path("none"), ("0.jpg",) * count)
    sequence = Sequence("a", "made", frames, np.array(truth_xywh, np.float64), np.array(visible))
    found = np.array(boxes_xywh, np.float64)
    return SequenceResult(sequence, found, np.full(count, 0.9), np.zeros(count), presence)


def test_boxes_are_right_where_they_overlap_a_target_that_shows():
    truth = [[0, 0, 10, 10]] * 5
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [4, 0, 10, 10], [3, 0, 10, 10], [0, 0, 10, 10]]
    result = result_of(boxes, truth, [True, True, True, True, False], np.array([1.0, 0.8, 0.3, 0.6, 0.7]))
    assert right_boxes(result).tolist() == [True, True, False, True, False]
    presence, is_right = presence_outcomes([result, result])
    assert presence.tolist() == pytest.approx([0.8, 0.3, 0.6, 0.7] * 2)
    assert is_right.tolist() == [True, False, True, False] * 2


def test_scores_by_hand():
    probabilities = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.2, 0.2])
    is_right = torch.tensor([True, True, True, False, False, True])
    scores = presence_scores(probabilities, is_right)
    assert scores["calibration_error"] == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.3, abs=1e-6)
    # Of 8 pairs of a right and a wrong box: 3 are in order, 4 tied, 1 in the wrong order.
    assert scores["auroc"] == pytest.approx((3 + 4 / 2) / 8)


def test_absences_have_an_end_and_a_length(benchmarks):
    _, refound = benchmarks
    visible = np.array([True] * 3 + [False] * 4 + [True] * 2 + [False] * 2 + [True] + [False] * 9)
    assert refound.absences(visible, 3, 1) == [(3, 7)]
    assert refound.absences(visible, 2, 1) == [(3, 7), (9, 11)]
    assert refound.absences(visible, 2, 2) == [(3, 7)]
    assert refound.absences(visible[:8], 2, 2) == []
    assert refound.absences(~visible, 1, 1)[0] == (7, 9)  # what is hidden from the start was never tracked
    assert refound.absences(np.ones(5, np.bool_), 1, 1) == []


def test_an_absences_outcome_by_hand(benchmarks):
    _, refound = benchmarks
    truth = np.tile([50.0, 50, 20, 20], (12, 1))
    visible = np.array([True] * 4 + [False] * 4 + [True] * 4)
    boxes = truth.copy()
    boxes[4:10] += [40, 0, 0, 0]
    boxes[6, 2:] = 40
    was_tracked, frames, growth = refound.outcome(result_of(boxes, truth, visible), 4, 8, 30)
    assert (was_tracked, frames, growth) == (True, 3, 2)
    assert refound.outcome(result_of(boxes, truth, visible), 4, 8, 2)[1] == np.inf
    boxes[:4] += [40, 0, 0, 0]
    assert not refound.outcome(result_of(boxes, truth, visible), 4, 8, 30)[0]


class Noise(FrameSource):
    """Frames of noise, all alike."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def name(self, index):
        return str(index)

    def encoded(self, index):
        pixels = np.random.default_rng(0).integers(0, 255, (72, 96, 3), np.uint8)
        return cv2.imencode(".png", pixels)[1].tobytes()


class Hidden(SequenceReader):
    """Sequences whose boxes are those that a tracker found, but for some; hidden for a while."""

    dataset = "made"

    def __init__(self, boxes_xywh):
        self.boxes_xywh = boxes_xywh

    @property
    def names(self):
        return ["a", "b"]

    def __getitem__(self, index):
        visible = np.array([True] * 3 + [False] * 4 + [True] * 5)
        return Sequence(self.names[index], "made", Noise(12), self.boxes_xywh[index], visible)


@pytest.fixture
def hidden_store(model, tmp_path, benchmarks):
    """Two sequences: after its absence, the plain rule is right on the first and wrong on the second."""
    tracker, frames = Tracker.from_pretrained(model, device="cpu"), Noise(12)
    states, boxes = tracker.initialize([frames[0]], [[40, 30, 16, 16]]), [[40.0, 30, 16, 16]]
    for t in range(1, 12):
        states = tracker.step([frames[t]], states)
        boxes.append(states[0].box_xywh.tolist())
    right, wrong = np.array(boxes), np.array(boxes)
    wrong[3:, :2] = [0, 0]
    wrong[3:, 2:] = 4
    return pack(Hidden([right, wrong]), tmp_path / "hidden").path


def test_the_table_of_presence(benchmarks, model, hidden_store, tmp_path, capsys):
    presence, _ = benchmarks
    plot = tmp_path / "plots/reliability.png"
    presence.main([model, "--sequences", str(hidden_store), "--plot", str(plot), "--batch", "2"])
    lines = capsys.readouterr().out.splitlines()
    rows = {name: line for line in lines for name in ("presence", "critic", "softmax") if f" {name} " in line}
    assert len(rows) == 3
    for line in rows.values():
        auroc, ece = (float(line.split("│")[i].split("±")[0]) for i in (2, 4))
        assert 0 <= auroc <= 1
        assert 0 <= ece <= 1
    assert "22 frames of 2 sequences" in " ".join(lines)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(ClipStore(hidden_store)) == 2


def test_the_table_of_what_was_found_again(benchmarks, model, hidden_store, capsys):
    _, refound = benchmarks
    options = ["--sequences", str(hidden_store), "--absent", "4", "--seen", "2", "--within", "5"]
    refound.main([model, *options, "--rule", "lost_after=20", "--rule", "lost_after=2, search_window=1.5"])
    out = capsys.readouterr().out
    assert "2 of 2 absences of 4 frames or more" in " ".join(out.split())
    plain = next(line for line in out.splitlines() if " plain " in line)
    assert plain.split("│")[2].split()[0] == "50"
    assert "lost_after=2, search_window=1.5" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "lost_afer=3"], "did you mean lost_after"),
        (["--absent", "9"], "No absence of 9 frames"),
        (["--rule", "lost_after=0"], "at least 1"),
    ],
)
def test_mistakes_are_named(benchmarks, model, hidden_store, capsys, arguments, message):
    _, refound = benchmarks
    with pytest.raises(SystemExit):
        refound.main([model, "--sequences", str(hidden_store), *arguments])
    assert message in " ".join(capsys.readouterr().err.split())


def test_models_without_a_presence_head_are_refused(benchmarks, hidden_store, tmp_path, capsys):
    save_network(make_network(), tmp_path / "old")
    for benchmark in benchmarks:
        with pytest.raises(SystemExit):
            benchmark.main([str(tmp_path / "old"), "--sequences", str(hidden_store)])
        assert "has no presence head" in " ".join(capsys.readouterr().err.split())


def test_reliability_is_drawn_where_bins_are_empty(benchmarks, tmp_path):
    presence, _ = benchmarks
    predictions = {"presence": (torch.tensor([0.05, 0.95, 1.0]), torch.tensor([False, True, True]))}
    presence.reliability_plot(predictions, 10, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_filter_is_fitted_and_shown(benchmarks, model, hidden_store, tmp_path, capsys):
    presence, _ = benchmarks
    stores = [str(hidden_store), str(shutil.copytree(hidden_store, tmp_path / "another"))]
    rule = Path(model) / "tracking.yaml"
    presence.main([model, "--sequences", *stores, "--fit-filter", "--write-rule", str(rule)])
    out = capsys.readouterr().out
    settings = re.findall(r"^(presence_\w+): ([\d.]+)$", out, re.MULTILINE)
    assert len(settings) == 3
    written = own_rules(Path(model)).rule
    assert {name: getattr(written, name) for name, _ in settings} == {name: float(text) for name, text in settings}
    assert "44 frames of 4 sequences" in " ".join(out.split())


def test_a_fitted_filter_has_the_chances_of_the_chain(benchmarks):
    presence, _ = benchmarks
    rng = np.random.default_rng(0)
    right, odds = [], []
    for _ in range(30):
        states = [True]
        for _ in range(100):
            states.append(bool(rng.random() < (0.95 if states[-1] else 0.1)))
        truth = np.array(states[1:])
        # Of frames that do not depend on each other, evidence counts fully: log-odds of two normals, and of the chain.
        found = rng.normal(np.where(truth, 1, -1), 1.0)
        right.append(torch.from_numpy(truth))
        odds.append(torch.from_numpy(2 * found + np.log(0.1 / 0.05)).sigmoid())
    rule = presence.fit_filter(TrackingRule(), odds, right)
    assert rule.presence_stays == pytest.approx(0.95, abs=0.02)
    assert rule.presence_returns == pytest.approx(0.1, abs=0.03)
    assert rule.presence_evidence > 0.85


def test_a_rule_is_written_of_a_fit_alone(benchmarks, model, hidden_store, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmarks[0].main([model, "--sequences", str(hidden_store), "--write-rule", str(tmp_path / "rule.yaml")])
    assert "give both" in capsys.readouterr().err

import json
import logging
import re
import shutil
import threading
import time
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch

from relo.data.sequences.base import FrameSource, Sequence, SequenceReader
from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
from relo.evaluation.one_pass import FailedSequences, run_one_pass
from relo.models.presence import ConvPresence
from relo.tracking.boxes_file import read_values
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from small_networks import make_network


@dataclass(frozen=True)
class EncodedFrames(FrameSource):
    files: tuple[bytes, ...]

    def __len__(self):
        return len(self.files)

    def name(self, index):
        return f"frame {index}"

    def encoded(self, index):
        return self.files[index]


def make_sequence(seed, frames):
    random = np.random.default_rng(seed)
    background = random.integers(0, 255, (15, 20, 3), np.uint8)
    background = cv2.resize(background, (160, 120), interpolation=cv2.INTER_CUBIC)
    target = random.integers(0, 255, (24, 30, 3), np.uint8)
    boxes_xywh, files = [], []
    for t in range(frames):
        x, y = 60 + round(30 * np.sin(t / 5 + seed)), 45 + round(20 * np.cos(t / 7 + seed))
        image = background.copy()
        image[y : y + 24, x : x + 30] = target
        files.append(cv2.imencode(".jpg", image)[1].tobytes())
        boxes_xywh.append([x, y, 30, 24])
    return Sequence(
        f"made-{seed}", "made", EncodedFrames(tuple(files)), np.array(boxes_xywh, float), np.ones(frames, bool)
    )


LENGTHS = (7, 12, 1, 9, 4, 11, 2, 6)


@pytest.fixture(scope="module")
def sequences():
    return [make_sequence(seed, frames) for seed, frames in enumerate(LENGTHS)]


@pytest.fixture
def tracker(network):
    return Tracker(network)


class CountingTracker(Tracker):
    """Counts the frames that it tracks; may be told to stop."""

    def __init__(self, *args, stop_at=None, error=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.frames, self.stop_at, self.error = 0, stop_at, error

    def step_views(self, views, states, keep_response=False):
        if self.stop_at is not None and self.frames >= self.stop_at:
            raise self.error
        self.frames += len(views)
        return super().step_views(views, states, keep_response)


def break_frame(sequence, index):
    files = list(sequence.frames.files)
    files[index] = b"half a picture"
    return Sequence(sequence.name, sequence.dataset, EncodedFrames(tuple(files)), sequence.boxes_xywh, sequence.visible)


def test_boxes_do_not_depend_on_batch_and_workers(tracker, sequences):
    reference = []
    for sequence in sequences:  # by hand, one at a time
        states = tracker.initialize([sequence.frames[0]], sequence.boxes_xywh[:1])
        boxes_xywh = [states[0].box_xywh]
        for t in range(1, len(sequence)):
            states = tracker.step([sequence.frames[t]], states)
            boxes_xywh.append(states[0].box_xywh)
        reference.append(torch.stack(boxes_xywh).numpy())
    for batch_size, workers in ((1, 1), (3, 1), (3, 4), (8, 2)):
        results = run_one_pass(tracker, sequences, batch_size=batch_size, workers=workers)
        assert [result.name for result in results] == [sequence.name for sequence in sequences]
        for result, boxes_xywh in zip(results, reference, strict=True):
            np.testing.assert_allclose(result.boxes_xywh, boxes_xywh, rtol=0, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_the_same_to_the_bit_whatever_shares_a_batch(network, tmp_path, threads):
    """Templates are renewed on the way: they are encoded in batches, too."""
    rule = TrackingRule(templates=2, template_update_interval=3, template_update_threshold=0.0)
    sequences = [make_sequence(seed, frames) for seed, frames in enumerate((*LENGTHS, 5, 8, 3))]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name, batch_size in {"one": 1, "three": 3, "many": 16, "stopped": 2}.items():
            folder = tmp_path / name
            if name == "stopped":  # with two sequences of eleven done, others share a batch
                run_one_pass(Tracker(network, rule), sequences, numbers=[3, 7], batch_size=2, folder=folder)
            run_one_pass(Tracker(network, rule), sequences, batch_size=batch_size, folder=folder)
    finally:
        torch.set_num_threads(before)
    found = [
        {file.name: file.read_bytes() for file in (tmp_path / name).glob("*.txt") if "_time" not in file.name}
        for name in ("one", "three", "many", "stopped")
    ]
    assert len(found[0]) >= 2 * len(sequences)
    assert found[1:] == found[:1] * 3


def test_batches_are_full_and_the_same_in_every_run(network):
    class Recording(Tracker):
        def step_views(self, views, states, keep_response=False):
            batches.append([state.frame_index for state in states])
            return super().step_views(views, states, keep_response)

    recorded, boxes_xywh = [], []
    for workers in (3, 3, 1):
        batches = []
        results = run_one_pass(
            Recording(network), [make_sequence(i, 5 + i) for i in range(12)], batch_size=4, workers=workers
        )
        recorded.append(batches)
        boxes_xywh.append(np.concatenate([result.boxes_xywh for result in results]))
    assert recorded[0] == recorded[1]
    assert np.array_equal(boxes_xywh[0], boxes_xywh[1])
    for batches in recorded:
        assert sum(map(len, batches)) == sum(4 + i for i in range(12))
        full = [batch for batch in batches if len(batch) == 4]
        assert sum(map(len, full)) > 0.8 * sum(map(len, batches))


@pytest.mark.parametrize(("count", "batch_size", "workers"), [(1, 8, 2), (2, 1, 1), (8, 3, 1), (8, 2, 16)])
def test_few_sequences_and_many_workers(tracker, sequences, count, batch_size, workers):
    whole = run_one_pass(tracker, sequences)
    for result, expected in zip(
        run_one_pass(tracker, sequences[:count], batch_size=batch_size, workers=workers), whole[:count], strict=True
    ):
        np.testing.assert_allclose(result.boxes_xywh, expected.boxes_xywh, rtol=0, atol=1e-3)


def test_frames_of_few_sequences_are_decoded_during_a_step(network):
    """Else a network would wait for every frame."""
    decoded, at_hand = set(), []

    @dataclass(frozen=True)
    class Watched(EncodedFrames):
        def __getitem__(self, index):
            image = super().__getitem__(index)
            decoded.add(index)
            return image

    class Waiting(Tracker):
        def step_views(self, views, states, keep_response=False):
            next_frame = states[0].frame_index + 2
            deadline = time.monotonic() + 5
            while next_frame < 20 and next_frame not in decoded and time.monotonic() < deadline:
                time.sleep(0.001)
            at_hand.append(next_frame in decoded)
            return super().step_views(views, states, keep_response)

    base = make_sequence(0, 20)
    run_one_pass(Waiting(network), [replace(base, frames=Watched(base.frames.files))], workers=1)
    assert all(at_hand[:-1])


def test_an_error_that_is_no_sequences_own_stops_the_run(tracker, sequences):
    def fail(result):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_one_pass(tracker, sequences, batch_size=3, on_result=fail)


def test_results_hold_a_row_a_frame(tracker, sequences):
    for result, length in zip(run_one_pass(tracker, sequences), LENGTHS, strict=True):
        assert result.boxes_xywh.shape == (length, 4)
        assert result.boxes_xywh.dtype == np.float64
        assert result.scores.shape == result.seconds.shape == (length,)
        assert (result.seconds > 0).all()
        assert result.presence is None
        np.testing.assert_array_equal(result.boxes_xywh[0], result.sequence.boxes_xywh[0])


def test_progress_counts_every_frame_and_results_come_as_they_end(tracker, sequences):
    counts, ended = [], []
    run_one_pass(
        tracker, sequences, batch_size=3, on_frames=counts.append, on_result=lambda result: ended.append(result.name)
    )
    assert sum(counts) == sum(LENGTHS)
    assert max(counts) == 3
    assert ended[0] == "made-2"  # the one with a single frame
    assert sorted(ended) == sorted(sequence.name for sequence in sequences)


def test_a_sequence_starts_afresh_in_the_place_of_another(tracker, sequences):
    twice = [sequences[1], sequences[0], sequences[1]]
    first, _, second = run_one_pass(tracker, twice, batch_size=1)
    assert np.array_equal(first.boxes_xywh, second.boxes_xywh)


def test_files_are_written_and_read_back(tracker, sequences, tmp_path):
    results = run_one_pass(tracker, sequences, folder=tmp_path)
    for result in results:
        np.testing.assert_allclose(read_boxes(tmp_path / f"{result.name}.txt"), result.boxes_xywh, atol=1e-4)
        assert read_values(tmp_path / f"{result.name}_score.txt", len(result.scores)) is not None
        assert read_values(tmp_path / f"{result.name}_time.txt", len(result.scores)) is not None
    again = CountingTracker(tracker.network)
    counts = []
    from_files = run_one_pass(again, sequences, folder=tmp_path, on_frames=counts.append)
    assert again.frames == 0
    assert sum(counts) == sum(LENGTHS)
    for result, other in zip(results, from_files, strict=True):
        np.testing.assert_allclose(result.boxes_xywh, other.boxes_xywh, atol=1e-4)


def test_stopped_run_goes_on_where_it_was(network, sequences, tmp_path):
    whole = run_one_pass(Tracker(network), sequences)
    stopped = CountingTracker(network, stop_at=25, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_one_pass(stopped, sequences, batch_size=2, folder=tmp_path)
    done = {path.stem for path in tmp_path.glob("made-?.txt")}
    assert 0 < len(done) < len(sequences)
    going_on = CountingTracker(network)
    results = run_one_pass(going_on, sequences, batch_size=2, folder=tmp_path)
    assert going_on.frames == sum(len(s) - 1 for s in sequences if s.name not in done)
    for result, expected in zip(results, whole, strict=True):
        np.testing.assert_allclose(result.boxes_xywh, expected.boxes_xywh, rtol=0, atol=1e-3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_results_that_are_removed_meanwhile_are_missed(tracker, sequences, tmp_path):
    first = []

    def remove_first(result):
        if not first:
            first.append(result.name)
            shutil.rmtree(tmp_path / "mine")

    with pytest.raises(UserError, match=r"^2 of what was written in .*mine are gone, such as run\.json: .* run again"):
        run_one_pass(tracker, sequences[:3], batch_size=1, folder=tmp_path / "mine", on_result=remove_first)
    results = run_one_pass(tracker, sequences[:3], folder=tmp_path / "mine")
    assert len(results) == 3
    assert (tmp_path / "mine" / f"{first[0]}.txt").exists()


@pytest.mark.parametrize("damage", [None, "", "1\n2\n", "\0", "nan\n" * 12, "1e999\n" * 12])
def test_a_damaged_presence_is_made_again(sequences, tmp_path, damage):
    network = make_network()
    network.presence = ConvPresence(16, (8, 8))
    run_one_pass(Tracker(network), sequences[1:3], folder=tmp_path)
    path = tmp_path / "made-1_presence.txt"
    good = path.read_text()
    path.unlink() if damage is None else path.write_text(damage)
    again = CountingTracker(network)
    run_one_pass(again, sequences[1:3], folder=tmp_path)
    assert path.read_text() == good
    assert again.frames == len(sequences[1]) - 1  # and not the sequence of one frame, which has no presence


@pytest.mark.parametrize("damage", ["", "1,2,3,4\n", "no boxes\n", "nan,nan,nan,nan\n" * 12])
def test_incomplete_result_is_made_again(tracker, sequences, tmp_path, damage):
    run_one_pass(tracker, sequences[:2], folder=tmp_path)
    good = (tmp_path / "made-1.txt").read_text()
    (tmp_path / "made-1.txt").write_text(damage)
    run_one_pass(tracker, sequences[:2], batch_size=2, folder=tmp_path)
    assert (tmp_path / "made-1.txt").read_text() == good


def test_a_result_that_began_with_another_box_is_made_again(tracker, sequences, tmp_path):
    """As of a corrected annotation, or of another set of made sequences, whose names are the same."""
    run_one_pass(tracker, sequences[:2], folder=tmp_path)
    boxes_xywh = sequences[1].boxes_xywh + 2.0
    corrected = replace(sequences[1], boxes_xywh=boxes_xywh)
    again = CountingTracker(tracker.network)
    _, result = run_one_pass(again, [sequences[0], corrected], folder=tmp_path)
    assert again.frames == len(corrected) - 1
    assert read_boxes(tmp_path / "made-1.txt")[0] == pytest.approx(boxes_xywh[0], abs=1e-4)
    assert result.boxes_xywh[0] == pytest.approx(boxes_xywh[0])


def test_results_of_two_trackers_do_not_mix(tracker, network, sequences, tmp_path):
    run_one_pass(tracker, sequences[:1], folder=tmp_path)
    with pytest.raises(UserError, match="other rule"):
        run_one_pass(Tracker(network, TrackingRule(window_exponent=2.0)), sequences, folder=tmp_path)
    with torch.no_grad():
        network.policy.tower[-1].weight.add_(1)
    with pytest.raises(UserError, match="other weights"):
        run_one_pass(Tracker(network), sequences, folder=tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="cannot be used"):
        run_one_pass(tracker, sequences, folder=tmp_path)


def test_a_folder_is_of_one_dataset_and_split(tracker, sequences, tmp_path):
    run_one_pass(tracker, sequences[:1], folder=tmp_path, split="test")
    again = CountingTracker(tracker.network)
    run_one_pass(again, sequences[:1], folder=tmp_path, split="test")
    assert again.frames == 0
    with pytest.raises(UserError, match="results on made, split test, not on made, split val"):
        run_one_pass(tracker, sequences, folder=tmp_path, split="val")
    with pytest.raises(UserError, match="results on made, split test, not on other, split test"):
        run_one_pass(tracker, [replace(sequences[0], dataset="other")], folder=tmp_path, split="test")
    assert len(list(tmp_path.glob("made-?.txt"))) == 1


def test_a_folder_that_names_no_dataset_is_used_once_it_does(tracker, sequences, tmp_path):
    run_one_pass(tracker, sequences[:1], folder=tmp_path, split="test")
    file = tmp_path / "run.json"
    whole = file.read_text()
    file.write_text(json.dumps({key: value for key, value in json.loads(whole).items() if key != "dataset"}))
    with pytest.raises(UserError, match="names none") as error:
        run_one_pass(tracker, sequences[:1], folder=tmp_path, split="test")
    advised = re.search(r"add (.*) there", str(error.value))[1]
    file.write_text(file.read_text().replace("{", "{" + advised + ",", 1))
    run_one_pass(tracker, sequences[:1], folder=tmp_path, split="test")


def test_failing_sequences_are_named_and_the_others_done(tracker, sequences, tmp_path):
    broken = list(sequences)
    broken[1] = break_frame(sequences[1], 5)
    broken[3] = Sequence("made-3", "made", sequences[3].frames, np.array([[500.0, 500, 20, 20]]), sequences[3].visible)
    broken[4] = Sequence("made-4", "made", EncodedFrames(()), np.zeros((0, 4)), np.zeros(0, bool))
    counts = []
    with pytest.raises(FailedSequences) as error:
        run_one_pass(tracker, broken, batch_size=3, folder=tmp_path, on_frames=counts.append)
    assert set(error.value.failures) == {"made-1", "made-3", "made-4"}
    message = str(error.value)
    assert "3 of 8 sequences" in message
    for words in ("made-1: frame 5", "made-3: The box", "500", "made-4: it has no frame"):
        assert words in message
    whole = {result.name: result for result in run_one_pass(tracker, sequences)}
    assert [result.name for result in error.value.results] == [f"made-{i}" for i in (0, 2, 5, 6, 7)]
    for result in error.value.results:
        np.testing.assert_allclose(result.boxes_xywh, whole[result.name].boxes_xywh, rtol=0, atol=1e-3)
    assert not (tmp_path / "made-1.txt").exists()


def test_failure_of_a_step_is_laid_to_its_sequence_with_its_traceback(network, sequences, caplog):
    class Picky(Tracker):
        def step_views(self, views, states, keep_response=False):
            if any(state.box_xywh[0] == marked and state.frame_index == 0 for state in states):
                raise RuntimeError("no such kernel")
            return super().step_views(views, states, keep_response)

    marked = sequences[1].boxes_xywh[0, 0]
    assert sum(sequence.boxes_xywh[0, 0] == marked for sequence in sequences) == 1
    caplog.set_level(logging.DEBUG, logger="relo")
    with pytest.raises(FailedSequences, match="made-1: RuntimeError: no such kernel") as error:
        run_one_pass(Picky(network), sequences, batch_size=3)
    assert len(error.value.results) == len(sequences) - 1
    assert caplog.text.count("Traceback") == 1
    assert 'raise RuntimeError("no such kernel")' in caplog.text
    assert all(record.levelno == logging.DEBUG for record in caplog.records)  # the sentence is all that is printed


def test_some_sequences_in_an_order_of_their_own(tracker, sequences):
    ended = []
    chosen = run_one_pass(
        tracker, sequences, numbers=[5, 2, 0], batch_size=1, on_result=lambda result: ended.append(result.name)
    )
    assert [result.name for result in chosen] == ["made-5", "made-2", "made-0"]
    assert ended[0] == "made-2"  # the one with a single frame
    with pytest.raises(FailedSequences, match=r"1 of 2 sequences could not be tracked\. made-1: frame 5"):
        run_one_pass(tracker, [sequences[0], break_frame(sequences[1], 5), sequences[2]], numbers=[1, 2])


def test_sequence_that_cannot_be_opened_is_named(tracker, sequences):
    class Reader(SequenceReader):
        dataset = "made"
        names = ("made-0", "lost", "made-2")

        def __getitem__(self, index):
            if index == 1:
                raise UserError("groundtruth.txt is missing.")
            return sequences[index]

    with pytest.raises(FailedSequences, match=r"lost: groundtruth\.txt is missing") as error:
        run_one_pass(tracker, Reader())
    assert [result.name for result in error.value.results] == ["made-0", "made-2"]


def test_two_sequences_do_not_share_a_file(tracker, sequences, tmp_path):
    with pytest.raises(UserError, match="made-1"):
        run_one_pass(tracker, [sequences[1], sequences[1]], folder=tmp_path)


def test_frames_wait_in_bounded_numbers(network):
    lock, waiting, most = threading.Lock(), set(), [0]

    @dataclass(frozen=True)
    class Watched(EncodedFrames):
        key: int = 0

        def __getitem__(self, index):
            with lock:
                waiting.add((self.key, index))
                most[0] = max(most[0], len(waiting))
            return super().__getitem__(index)

    class Taking(Tracker):
        def step_views(self, views, states, keep_response=False):
            with lock:
                for state in states:
                    taken = {key for key in waiting if key[1] <= state.frame_index + 1}
                    waiting.difference_update(taken)
            return super().step_views(views, states, keep_response)

    base = make_sequence(0, 40)
    watched = [
        Sequence(f"made-{i}", "made", Watched(base.frames.files, i), base.boxes_xywh, base.visible) for i in range(4)
    ]
    run_one_pass(Taking(network), watched, batch_size=2, workers=4)
    assert most[0] < 30  # of 160


def test_policy_and_prior_are_two_runs(network, sequences):
    policy = run_one_pass(Tracker(network), sequences[:2])
    prior = run_one_pass(Tracker(network, TrackingRule(localization="prior")), sequences[:2])
    assert not np.allclose(policy[1].boxes_xywh[1:], prior[1].boxes_xywh[1:])


def test_no_sequences(tracker):
    assert run_one_pass(tracker, []) == []

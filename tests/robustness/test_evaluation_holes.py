"""What is odd about results, annotations, zips, names and reports is refused in a sentence, or counted rightly."""

import json
import os
import struct
import threading
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from refusals import refused
from relo.commands.evaluate import evaluate
from relo.commands.test import run_benchmark
from relo.data.sequences.base import FrameSource, ImageFiles
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.datasets import find_benchmark
from relo.errors import UserError
from relo.evaluation.annotations import read_annotations
from relo.evaluation.archives import open_zip
from relo.evaluation.demo_report import _log_figure, _read_scores, _render, _result, write_report
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.plots import curve_plot
from relo.evaluation.result_folder import SequenceResult, claim, write_result
from relo.evaluation.results import find_results, read_result
from relo.inputs import read_bounded
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from small_networks import make_network

ROWS = "".join(f"{10 + i},{10 + i},20,20\n" for i in range(6))
PLAIN = find_benchmark("plain")
LONG = "a/" * 2500


def write(path: Path, text: str = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def annotations(tmp_path) -> Path:
    write(tmp_path / "annos" / "s.txt")
    return tmp_path / "annos"


def sequence(name: str) -> AnnotatedSequence:
    return AnnotatedSequence(
        dataset="plain",
        name=name,
        frames=ImageFiles(Path("none"), ("0.jpg",)),
        boxes_xywh=np.array([[1.0, 2, 3, 4]]),
        visible=np.array([True]),
    )


class TestNamesOfResults:
    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "C:\\evil", "a\0b", "\ud800"])
    def test_no_result_is_written_elsewhere(self, tmp_path, name):
        folder = tmp_path / "out"
        result = SequenceResult(sequence(name), np.ones((1, 4)), np.ones(1), np.ones(1), None)
        for write_it in (
            lambda: write_result(folder, result),
            lambda: run_one_pass(Tracker(make_network()), [sequence(name)], folder=folder),
        ):
            with pytest.raises(UserError, match="is no name of a file, or leads out of their folder; rename it"):
                write_it()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("ending", ["_score", "_time", "_presence"])
    def test_two_sequences_of_one_file_are_refused(self, tmp_path, ending):
        pair = [sequence("a"), sequence(f"a{ending}")]
        with pytest.raises(UserError, match=f"'a{ending}.txt' would be a result of both; rename one"):
            run_one_pass(Tracker(make_network()), pair, folder=tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_bytes_that_are_no_text_are_a_name(self, tmp_path):
        name = os.fsdecode(b"caf\xe9")
        write_result(tmp_path, SequenceResult(sequence(name), np.ones((1, 4)), np.ones(1), np.ones(1), None))
        assert (tmp_path / f"{name}.txt").exists()


def lying_zip(path: Path, compression: int) -> Path:
    """A zip whose text is announced as long as `ROWS`, but unpacks to 50 MB more."""
    small = ROWS.encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("s.txt", small + b"\n" * 50_000_000)
    raw = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        start = raw.rfind(signature)
        struct.pack_into("<I", raw, start + place, zlib.crc32(small))
        struct.pack_into("<I", raw, start + place + 8, len(small))
    path.write_bytes(raw)
    return path


class TestZips:
    @pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_what_lies_about_its_size_is_not_unpacked(self, tmp_path, monkeypatch, compression):
        path = lying_zip(tmp_path / "r.zip", compression)
        unpacked = zipfile.ZipExtFile.read

        def read(file, *arguments):
            content = unpacked(file, *arguments)
            assert file._compress_type == zipfile.ZIP_STORED  # nothing else is read by `zipfile` itself
            return content

        monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
        with pytest.raises(UserError, match=r"s\.txt in the zip .* unpacks to more than the 72 bytes that the zip"):
            open_zip(path, "no zip")

    @pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    @pytest.mark.parametrize("text", ["", ROWS, ROWS * 20_000])
    def test_what_is_honest_is_read(self, tmp_path, compression, text):
        with zipfile.ZipFile(tmp_path / "r.zip", "w", compression) as archive:
            archive.writestr("s.txt", text)
        assert read_bounded(open_zip(tmp_path / "r.zip", "no zip") / "s.txt").decode() == text

    @pytest.mark.parametrize("name", ["a/" * 50 + "x.bin", "é" * 501 + ".txt"])
    def test_long_names_are_refused(self, tmp_path, name):
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            archive.writestr(name, "")
        with pytest.raises(UserError, match="a name of more than 1,000 bytes or 50 parts"):
            open_zip(tmp_path / "r.zip", "no zip")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_that_is_there_twice_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "annos.zip", "w") as archive:
            archive.writestr("s.txt", ROWS)
            archive.writestr("s.txt", "1,1,1,1\n" * 6)
        with pytest.raises(UserError, match=r"annos\.zip holds 's\.txt' twice; keep one"):
            read_annotations(tmp_path / "annos.zip", PLAIN)

    def test_many_folders_take_no_longer_each(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            for number in range(4000):
                archive.writestr(f"d{number}/x.bin", "")
            archive.writestr("mine/s.txt", ROWS)
        start = time.perf_counter()
        (tracker,) = find_results([tmp_path / "r.zip"], ["s"], PLAIN)
        assert read_result(tracker.files["s"][0]).shape == (6, 4)
        assert read_annotations(tmp_path / "r.zip", PLAIN).keys() == {"s"}
        assert time.perf_counter() - start < 15  # a minute where each folder is looked for in the whole zip


def test_a_file_that_grows_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("relo.inputs.require_regular", lambda path: 0)
    path = write(tmp_path / "s.txt", "1" * 300_000)
    with pytest.raises(UserError, match="at most 0 MiB of such a file are read"):
        read_bounded(path, 100_000)


def test_a_regular_file_that_would_be_waited_for(tmp_path, monkeypatch, capsys):
    """Such as /proc/kmsg, which is regular by its mode; here a pipe that someone holds open for two seconds."""
    monkeypatch.setattr("relo.inputs.require_regular", lambda path: 0)
    os.mkfifo(tmp_path / "s.txt")
    writer = threading.Timer(2.0, os.close, [os.open(tmp_path / "s.txt", os.O_RDWR)])
    writer.start()
    said = refused(capsys, "evaluate", tmp_path, "--benchmark", "plain", "--annotations", tmp_path)
    assert "s.txt would be waited for; give a regular file." in said
    assert writer.is_alive()
    writer.join()


class TestLongNames:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["evaluate", "r", "--benchmark", "plain", "--annotations", LONG],
            ["data", "verify", LONG],
            ["data", "doctor", LONG],
        ],
    )
    def test_a_path_that_no_system_takes(self, capsys, arguments):
        assert "and 4,000 in all" in refused(capsys, *arguments)

    def test_a_name_that_becomes_too_long(self, tmp_path, capsys, annotations):
        name = "s" * 250
        write(annotations / f"{name}.txt")
        (tmp_path / "mine" / name).mkdir(parents=True)
        write(tmp_path / "mine" / name / f"{name[:246]}_001.txt")
        sentence = refused(capsys, "evaluate", tmp_path / "mine", "--benchmark", "plain", "--annotations", annotations)
        assert "cannot be opened (the name is too long)." in sentence
        assert len(sentence) < 300


def test_no_frame_that_counts_is_no_score(tmp_path, capsys):
    name = "GOT-10k_Val_000001"
    folder = tmp_path / "root" / "val"
    write(folder / name / "groundtruth.txt")
    write(folder / name / "cover.label", "8\n" + "0\n" * 5)
    write(folder / name / "absence.label", "0\n" + "1\n" * 5)
    write(folder / name / "meta_info.ini", "[METAINFO]\nresolution: (96, 72)\n")
    write(folder / "list.txt", f"{name}\n")
    write(tmp_path / "mine" / f"{name}.txt")
    out = tmp_path / "o.json"
    arguments = ["--benchmark", "got10k", "--annotations", tmp_path / "root", "--json", out]
    assert "No frame of the 1 sequences counts by rule got10k" in refused(
        capsys, "evaluate", tmp_path / "mine", *arguments
    )
    assert not out.exists()


class TestRunFile:
    @pytest.mark.parametrize("content", ["[" * 100_000, "{", "1" * 5000, None])
    def test_what_is_no_json_is_refused(self, tmp_path, content):
        if content is None:
            os.mkfifo(tmp_path / "run.json")
        else:
            (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"The results folder .* cannot be used \(.*run\.json .*\); choose another"):
            claim(tmp_path, Tracker(make_network()), "plain", None)

    @pytest.mark.parametrize(
        "content", ["5", "null", "[]", '{"dataset": [1], "split": {}}', '{"dataset": 1, "rule": 5}']
    )
    def test_odd_content_is_refused(self, tmp_path, content):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match="choose another folder"):
            claim(tmp_path, Tracker(make_network()), "plain", None)


MAP = {
    **dict.fromkeys(("auc", "precision", "normalized_precision", "auc_standard_error"), 0.5),
    "success_curve": np.linspace(1, 0, 21).tolist(),
}
OF_SEQUENCES = {"policy": {"d/s": 0.5}, "prior": {"d/s": 0.5}}
SCORES = {"policy": MAP, "prior": MAP, "sequences": 1, "per_sequence": OF_SEQUENCES}


class Drawn(FrameSource):
    """Black frames of several sizes."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def name(self, index):
        return f"frame {index}"

    def encoded(self, index):
        return cv2.imencode(".png", np.zeros((*self.sizes[index], 3), np.uint8))[1].tobytes()


class Store(list):
    """Sequences, in the place of a clip store's."""

    @property
    def names(self):
        return [each.name for each in self]


class TestReport:
    def test_scores(self, tmp_path):
        alone = MAP | {"auc_standard_error": None}  # of a single sequence
        path = write(tmp_path / "scores.json", json.dumps(SCORES | {"policy": alone, "prior": alone}))
        scores = _read_scores(path)
        assert scores["policy"] == alone
        said = _result(scores, TrackingRule())
        assert "nan" not in said
        assert "a single sequence" in said

    @pytest.mark.parametrize(
        "content",
        [
            "5",
            "null",
            "[]",
            "[" * 100_000,
            '"policy prior per_sequence sequences"',
            '{"policy":1,"prior":1,"per_sequence":1,"sequences":1}',
            json.dumps(SCORES | {"policy": MAP | {"success_curve": [1, 0]}}),
            json.dumps(SCORES | {"policy": MAP | {"auc": "high"}}),
            json.dumps(SCORES | {"per_sequence": {"policy": {}, "prior": {}}}),
            json.dumps(SCORES | {"per_sequence": {"policy": {"d/s": [1]}, "prior": {"d/s": [1]}}}),
            json.dumps(SCORES | {"sequences": "one"}),
            None,
        ],
    )
    def test_scores_of_another_form(self, tmp_path, content):
        path = tmp_path / "rl" / "validation" / "scores.json"
        write(path, content or "")
        if content is None:
            path.unlink()
            os.mkfifo(path)
        with pytest.raises(UserError, match=r"scores\.json .*run `relo validate`"):
            write_report(tmp_path)

    @pytest.mark.parametrize("sizes", [[(48, 64)], [(48, 64), (40, 64), (48, 32)]])
    def test_sequences_of_one_frame_or_of_several_sizes(self, tmp_path, sizes):
        frames = Drawn(sizes)
        boxes_xywh = np.tile([[10.0, 10, 20, 20]], (len(sizes), 1))
        shown = AnnotatedSequence("s", "d", frames, boxes_xywh, np.ones(len(sizes), bool))
        store = Store([shown])
        if len(sizes) == 1:
            with pytest.raises(UserError, match="'d/s' has a single frame"):
                _render(Tracker(make_network()), store, SCORES, tmp_path)
            assert not list(tmp_path.iterdir())
        else:
            assert len(_render(Tracker(make_network()), store, SCORES, tmp_path)) == 3

    @pytest.mark.parametrize("started", [float("nan"), float("inf"), -1.0])
    def test_a_start_that_is_no_time(self, tmp_path, started):
        with pytest.raises(UserError, match="started = "):
            write_report(tmp_path, started=started)

    @pytest.mark.parametrize("log", ["step,a\nx,1\n", "step,a\n1,b\n", "a\n1\n", "step,a\n1\0,1\n", None])
    def test_a_log_that_is_no_table_of_numbers(self, tmp_path, log):
        path = write(tmp_path / "rl" / "log" / "metrics.csv", log or "")
        if log is None:
            path.unlink()
            os.mkfifo(path)
        with pytest.raises(UserError, match=r"metrics\.csv"):
            _log_figure(tmp_path, "RL", "rl", {"a": "A"}, "IoU", "linear")


@pytest.mark.parametrize("setting", ["workers", "batch_size"])
def test_numbers_beyond_all_bounds(tmp_path, setting):
    given = {"model": "m", "dataset": "plain", "root": tmp_path, "output": tmp_path / "o", "device": "cpu"}
    with pytest.raises(UserError, match=f"has {setting} = a number of over 80 digits; it must be a whole number from"):
        run_benchmark(**given, **{setting: 10**400})


class TestTrackersOfOneName:
    def test_more_of_the_path_tells_them_apart(self, tmp_path, annotations):
        paths = [write(tmp_path / folder / "T" / "s.txt").parent for folder in ("p/x", "q/x", "q/y")]
        evaluate(paths, benchmark="plain", annotations=annotations, json=tmp_path / "o.json")
        expected = {f"{tmp_path}/p/x/T", f"{tmp_path}/q/x/T", "y/T"}
        assert json.loads((tmp_path / "o.json").read_text())["trackers"].keys() == expected

    def test_one_that_is_given_twice_is_refused(self, tmp_path):
        path = write(tmp_path / "T" / "s.txt").parent
        with pytest.raises(UserError, match=r"are both results of a tracker .*T; give each once"):
            find_results([path, path], ["s"], PLAIN)


class TestJson:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('[{"res": [[1, 2, 3, 4]]}, {"res": [[1, 2, 3, 4]]}]', "holds 2 runs, but one is scored"),
            ('[{"res": [[true, 2, 3, 4]]}]', "is not a result in OTB's JSON format"),
            ('[{"res": [[1.5, 2, 3, false]]}]', "is not a result in OTB's JSON format"),
            ('[{"res": [[1, 2, 3, 4]], "res": [[5, 6, 7, 8]]}]', "has two values named 'res'; keep one"),
        ],
    )
    def test_results(self, tmp_path, content, words):
        with pytest.raises(UserError, match=words):
            read_result(write(tmp_path / "s.json", content))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('{"s": {"gt_rect": [[1, 2, 3, 4]]}, "s": {"gt_rect": [[5, 6, 7, 8]]}}', "has two values named 's'"),
            ('{"s": {"gt_rect": [[1, 2, 3, true], [1, 2, 3, 4]]}}', "has no 'gt_rect' of boxes"),
        ],
    )
    def test_annotations(self, tmp_path, content, words):
        with pytest.raises(UserError, match=words):
            read_annotations(write(tmp_path / "a.json", content), PLAIN)


def test_every_name_is_in_the_legend():
    figure = curve_plot("success", [0, 1], {"_mine": [1, 0], "b": [1, 0]}, {"_mine": 0.5, "b": 0.2}, "t")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_mine [50.0]", "b [20.0]"]


def test_a_name_is_no_emoji(tmp_path, capsys, annotations):
    evaluate([write(tmp_path / ":100:" / "s.txt").parent], benchmark="plain", annotations=annotations)
    assert ":100:" in capsys.readouterr().out


def test_what_is_in_a_folder_is_not_looked_for_everywhere(tmp_path, monkeypatch):
    write(tmp_path / "r" / "a" / "x.bin")

    def endless(path, pattern):
        while True:
            yield tmp_path / "r" / "a" / "x.bin"

    monkeypatch.setattr(Path, "rglob", endless)
    with pytest.raises(UserError, match=r"but there is 'a/x\.bin'"):
        find_results([tmp_path / "r"], ["s"], PLAIN)


class TestNamesThatAreQuotedInPart:
    """A name in a file may be as long as the file; each of the sentences names it, and is short."""

    def said(self, capsys, *arguments):
        sentence = refused(capsys, *arguments)
        assert "sssss" in sentence
        assert len(sentence) < 600
        return sentence

    @pytest.fixture
    def evaluation(self, annotations, tmp_path):
        write(tmp_path / "mine/s.txt")
        return ["evaluate", tmp_path / "mine", "--benchmark", "lasot", "--annotations"]

    def test_lists(self, evaluation, annotations, tmp_path, capsys):
        names = write(tmp_path / "names.txt", "s" * 100_000)
        assert "no annotation" in self.said(capsys, *evaluation, annotations, "--sequences", names)
        write(annotations / "testing_set.txt", "s" * 100_000)
        assert "without an annotation" in self.said(capsys, *evaluation, annotations)

    def test_json(self, evaluation, tmp_path, capsys):
        path = write(tmp_path / "a.json", json.dumps({"s" * 100_000: {"gt_rect": [[1, 1, 9, 9]] * 2}}))
        assert "was expected" in self.said(capsys, *evaluation, path)

    def test_a_name_in_a_damaged_zip(self, evaluation, tmp_path, capsys):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("s.txt", "1,1,9,9\n" + "s" * 70_000)
        content = bytearray((tmp_path / "a.zip").read_bytes())
        content[26:28] = b"\xff\xff"  # the length of the name
        (tmp_path / "a.zip").write_bytes(content)
        assert "cannot be read" in self.said(capsys, *evaluation, tmp_path / "a.zip")


class TestOutputsAreNoInputs:
    @pytest.mark.parametrize(
        ("option", "name", "said"),
        [
            ("json", "a.json", "is a file of --annotations itself"),
            ("json", "names.txt", "is --sequences itself"),
            ("json", "mine/s.txt", "is a file of the results itself"),
            ("json", "mine/s_time.txt", "is a file of the results itself"),
            ("json", "mine/training.txt", "is a file of the results itself"),
            ("json", "out/report.html", "would be written twice"),
            ("report", "scores.md", "is --sequences itself"),
        ],
    )
    def test_they_are_refused(self, tmp_path, option, name, said):
        write(tmp_path / "a.json", json.dumps({"s": {"gt_rect": [[10, 10, 20, 20]] * 6}}))
        write(tmp_path / "mine/s.txt")
        write(tmp_path / "mine/s_time.txt", "0.1\n" * 6)
        write(tmp_path / "mine/training.txt", "nothing")
        write(tmp_path / "names.txt", "s\n")
        (tmp_path / "scores.md").symlink_to("names.txt")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        outputs = {"report": tmp_path / "out", option: tmp_path if option == "report" else tmp_path / name}
        files = {"annotations": tmp_path / "a.json", "sequences": tmp_path / "names.txt"}
        with pytest.raises(UserError, match=said):
            evaluate([tmp_path / "mine"], benchmark="plain", **files, **outputs)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_flags_of_the_annotations(self, tmp_path, annotations):
        flags = write(annotations / "absent/s.txt", "0\n" * 6)
        write(tmp_path / "mine/s.txt")
        with pytest.raises(UserError, match=r"absent/s\.txt is a file of --annotations itself"):
            evaluate([tmp_path / "mine"], benchmark="plain", annotations=annotations, json=flags)

    def test_outputs_of_an_earlier_run_are_replaced(self, tmp_path, annotations):
        outputs = []
        for row in ("10,10,20,20\n", "300,300,20,20\n"):
            write(tmp_path / "mine/s.txt", 6 * row)
            scores, report = tmp_path / "mine/scores.json", tmp_path / "mine"
            evaluate([tmp_path / "mine"], benchmark="plain", annotations=annotations, json=scores, report=report)
            outputs.append((scores.read_text(), (report / "report.html").read_text()))
        assert outputs[0][0] != outputs[1][0]
        assert outputs[0][1] != outputs[1][1]

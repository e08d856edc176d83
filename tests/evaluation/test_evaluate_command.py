"""`relo evaluate`: layouts, names, delimiters, files, and what it refuses."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relo.commands.evaluate import evaluate
from relo.commands.main import main
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.errors import UserError

BOXES = np.array([[10, 20, 30, 40], [12, 21, 30, 40], [14, 22, 31, 40], [16, 23, 31, 41]], float)

NO_BOXES = ([[10**400, 1, 1, 1]] * 4, [[None] * 4] * 4, [[1, 2, 3, 4], [1]], [[[1, 2, 3, 4]]], "abc", {"a": 1}, 5, None)
ABSENT = (["a"] * 4, [None] * 4, 5, {"a": 1}, [[1], [1, 2]], "1101", [10**30] * 4, [2] * 4)


def write(path: Path, boxes=BOXES, delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, fmt="%g", delimiter=delimiter)


def flags(path: Path, values=(0, 0, 0, 0), separator: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(separator.join(map(str, values)) + "\n")


def run(tmp_path: Path, results, annotations: Path, benchmark: str = "plain", **options) -> dict:
    out = tmp_path / "out" / "scores.json"
    paths = results if isinstance(results, list) else [results]
    evaluate(paths, benchmark=benchmark, annotations=annotations, json=out, **options)
    return json.loads(out.read_text())


@pytest.fixture
def flat(tmp_path) -> Path:
    """A flat annotation folder of two sequences, with flags."""
    for name in ("alpha-1", "Beta_2"):
        write(tmp_path / "annos" / f"{name}.txt")
        flags(tmp_path / "annos" / "absent" / f"{name}.txt")
    return tmp_path / "annos"


@pytest.fixture
def tracker(tmp_path) -> Path:
    for name in ("alpha-1", "Beta_2"):
        write(tmp_path / "results" / "mine" / f"{name}.txt")
    return tmp_path / "results" / "mine"


class TestOriginalNFS:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        synthesize(tmp_path / "nfs", layout="nfs", split="test", sequences=2, frames=5, workers=0)
        for sequence in open_reader("nfs", tmp_path / "nfs"):
            write(tmp_path / "mine" / f"nfs_{sequence.name}.txt", sequence.boxes_xywh)
        return tmp_path / "nfs"

    def test_every_eighth_row_counts_as_far_as_there_are_frames(self, tmp_path, root):
        scores = run(tmp_path, tmp_path / "mine", root, "nfs")
        assert (scores["sequences"], scores["frames"], scores["remarks"]) == (2, 10, [])
        assert scores["auc"] > 0.95

    def test_annotations_do_without_frames(self, tmp_path, root):
        for name in ("badge_1", "badge_2"):
            shutil.rmtree(root / name / "30" / name)
        scores = run(tmp_path, tmp_path / "mine", root, "nfs")
        assert scores["frames"] == 11  # badge_2 is annotated for one frame more
        assert [remark["kind"] for remark in scores["remarks"]] == ["short"]

    def test_broken_row_is_named(self, tmp_path, root):
        file = root / "badge_1" / "30" / "badge_1.txt"
        file.write_text(file.read_text().replace(" 3 0 0 1", " 3 lost", 1))
        with pytest.raises(UserError, match=r"badge_1\.txt, line 4"):
            run(tmp_path, tmp_path / "mine", root, "nfs")


class TestOutput:
    def test_scoring_loads_no_networks(self, flat, tracker):
        arguments = ["evaluate", str(tracker), "--benchmark", "plain", "--annotations", str(flat)]
        program = (
            f"import sys\nfrom relo.commands.main import main\nmain({arguments})\n"
            "print({'timm', 'relo.models.network'} & set(sys.modules))"
        )
        scored = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert scored.stdout.endswith("set()\n"), scored

    def test_json_holds_what_it_should(self, tmp_path, flat, tracker):
        scores = run(tmp_path, tracker, flat, "lasot")
        assert scores["tracker"] == "mine"
        assert scores["rule"] == "lasot"
        assert scores["sequences"] == 2
        assert scores["frames"] == 8
        assert scores["auc"] == pytest.approx(20 / 21)
        assert scores["precision"] == scores["normalized_precision"] == 1
        assert {name: len(curve) for name, curve in scores["curves"].items()} == {
            "success": 21,
            "precision": 51,
            "normalized_precision": 51,
        }
        assert {name: len(values) for name, values in scores["thresholds"].items()} == {
            "success": 21,
            "precision": 51,
            "normalized_precision": 51,
        }
        assert scores["per_sequence"]["Beta_2"]["auc"] == pytest.approx(20 / 21)
        assert scores["remarks"] == []

    def test_several_trackers(self, tmp_path, flat, tracker, capsys):
        write(tmp_path / "results" / "other" / "alpha-1.txt", BOXES + 500)
        write(tmp_path / "results" / "other" / "Beta_2.txt")
        for results in (tracker.parent, [tracker, tracker.parent / "other"]):
            scores = run(tmp_path, results, flat)
            assert set(scores["trackers"]) == {"mine", "other"}
            assert scores["trackers"]["other"]["auc"] < scores["trackers"]["mine"]["auc"]
        assert "mine" in capsys.readouterr().out

    def test_the_annotations_are_no_tracker(self, tmp_path, flat, tracker):
        scores = run(tmp_path, flat.parent / "results", flat)
        assert scores["tracker"] == "mine"
        (flat.parent / "results" / "mine").rename(flat.parent / "mine")
        assert run(tmp_path, flat.parent, flat)["tracker"] == "mine"

    def test_got10k_fields(self, tmp_path):
        name = "GOT-10k_Val_000001"
        root = tmp_path / "got10k" / "val" / name
        write(root / "groundtruth.txt")
        flags(root / "cover.label", (8, 8, 8, 0))
        (root / "meta_info.ini").write_text("[METAINFO]\nresolution: (1920, 1080)\n")
        write(tmp_path / "mine" / name / f"{name}_001.txt", np.concatenate([BOXES[:3], BOXES[3:] + 500]))
        scores = run(tmp_path, tmp_path / "mine", tmp_path / "got10k", "got10k")
        assert [scores[key] for key in ("ao", "sr_0.5", "sr_0.75")] == [1, 1, 1]
        assert "auc" not in scores


class TestAnnotations:
    def test_lasot_root(self, tmp_path, tracker):
        # One comma-separated line of flags each; no frames are needed.
        for name in ("alpha-1", "Beta-2"):
            folder = tmp_path / "lasot" / name[:-2] / name
            write(folder / "groundtruth.txt")
            flags(folder / "full_occlusion.txt", (0, 1, 0, 0), ",")
            flags(folder / "out_of_view.txt", (0, 0, 0, 1), ",")
        scores = run(tmp_path, tracker, tmp_path / "lasot", "lasot")
        assert scores["precision"] == 0.5

    @pytest.mark.parametrize("layout", ["{name}", "LaSOTBenchmark/{label}/{name}"])
    def test_lasot_root_unpacked_otherwise(self, tmp_path, tracker, layout):
        for label, name in (("alpha", "alpha-1"), ("Beta", "Beta-2")):
            folder = tmp_path / "lasot" / layout.format(label=label, name=name)
            write(folder / "groundtruth.txt")
            flags(folder / "full_occlusion.txt", (0, 1, 0, 0), ",")
            flags(folder / "out_of_view.txt", (0, 0, 0, 1), ",")
        assert run(tmp_path, tracker, tmp_path / "lasot", "lasot")["precision"] == 0.5

    @pytest.mark.parametrize("link", [False, True])
    def test_lasot_root_with_one_of_its_two_flags(self, tmp_path, tracker, link):
        for name in ("alpha-1", "Beta-2"):
            folder = tmp_path / "lasot" / name[:-2] / name
            write(folder / "groundtruth.txt")
            flags(folder / "full_occlusion.txt", (0, 1, 0, 0), ",")
            if link:
                (folder / "out_of_view.txt").symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match=r"out_of_view\.txt cannot be read"):
            run(tmp_path, tracker, tmp_path / "lasot", "lasot")

    def test_the_list_in_a_root_names_the_test_set(self, tmp_path, tracker):
        for name in ("alpha-1", "Beta-2", "alpha-3"):
            write(tmp_path / "root" / name[:-2] / name / "Groundtruth.txt")
        (tmp_path / "root" / "vasttrack_test_list.txt").write_text("alpha-1\nBeta-2")  # no newline at the end
        assert set(run(tmp_path, tracker, tmp_path / "root", "vasttrack")["per_sequence"]) == {"alpha-1", "Beta-2"}
        (tmp_path / "root" / "vasttrack_test_list.txt").write_text("alpha-1\ngamma-9")
        with pytest.raises(UserError, match="gamma-9"):
            run(tmp_path, tracker, tmp_path / "root", "vasttrack")

    def test_pysot_json(self, tmp_path, tracker):
        content = {
            name: {"gt_rect": BOXES.tolist(), "absent": [1, 1, 0, 1], "video_dir": name}
            for name in ("alpha-1", "Beta_2")
        }
        (tmp_path / "truth.json").write_text(json.dumps(content))
        assert run(tmp_path, tracker, tmp_path / "truth.json", "lasot")["precision"] == 0.75  # 1 means present

    def test_nan_in_json(self, tmp_path, tracker):
        boxes = [*BOXES[:3].tolist(), [float("nan")] * 4]
        content = {name: {"gt_rect": boxes} for name in ("alpha-1", "Beta_2")}
        (tmp_path / "truth.json").write_text(json.dumps(content))
        scores = run(tmp_path, tracker, tmp_path / "truth.json", "uav123")
        assert scores["auc"] == pytest.approx(0.75 * 20 / 21)
        assert scores["precision"] == 1

    def test_otb_root(self, tmp_path):
        root = tmp_path / "otb"
        write(root / "Jogging" / "groundtruth_rect.1.txt", delimiter="\t")
        write(root / "Jogging" / "groundtruth_rect.2.txt", delimiter=" ")
        (root / "Human4").mkdir()
        (root / "Human4" / "groundtruth_rect.1.txt").touch()
        write(root / "Human4" / "groundtruth_rect.2.txt")
        write(root / "Tiger1" / "groundtruth_rect.txt", np.concatenate([BOXES[:1] + 300] * 5 + [BOXES[:1]] * 349))
        for name, rows in (
            ("jogging_1", BOXES),
            ("Jogging(2)", BOXES),
            ("human4", BOXES),
            ("tiger1", BOXES[[0] * 349]),
        ):
            write(tmp_path / "mine" / f"{name}.txt", rows)
        scores = run(tmp_path, tmp_path / "mine", root, "otb")
        assert set(scores["per_sequence"]) == {"Jogging-1", "Jogging-2", "Human4-2", "Tiger1"}
        assert scores["precision"] == 1
        assert scores["remarks"] == []

    def test_results_of_tiger1_from_its_first_image_on(self, tmp_path):
        boxes = np.array([[10.0 + 40 * (frame % 7), 20, 30, 40] for frame in range(354)])
        (tmp_path / "truth.json").write_text(json.dumps({"Tiger1": {"gt_rect": boxes[5:].tolist()}}))
        write(tmp_path / "mine" / "tiger1.txt", boxes)
        scores = run(tmp_path, tmp_path / "mine", tmp_path / "truth.json", "otb")
        assert scores["precision"] == 1
        assert [remark["text"][-35:] for remark in scores["remarks"]] == ["the first 5 lie before the sequence"]

    @pytest.mark.parametrize(
        ("benchmark", "file"),
        [
            ("trackingnet", "TEST/anno/{}.txt"),
            ("uav123", "anno/UAV123/{}.txt"),
            ("uav123@10fps", "anno/UAV123_10fps/{}.txt"),
            ("tnl2k", "{}/groundtruth.txt"),
            ("vasttrack", "Some Class/{}/Groundtruth.txt"),
            ("dtb70", "{}/groundtruth_rect.txt"),
            ("nfs", "{0}/30/{0}_pytracking.txt"),
            ("nfs", "anno/nfs_{}.txt"),
        ],
    )
    def test_other_roots(self, tmp_path, tracker, benchmark, file):
        for name in ("alpha-1", "Beta_2"):
            write(tmp_path / "root" / file.format(name), delimiter="\t" if file.startswith("anno/nfs") else ",")
        scores = run(tmp_path, tracker, tmp_path / "root", benchmark)
        assert scores["sequences"] == 2
        assert scores["precision"] == 1

    def test_only_the_test_set_of_lasot_is_scored(self, tmp_path):
        from relo.data.sequences.traps import lasot_challenges

        for name in [*lasot_challenges(), "airplane-2"]:
            write(tmp_path / "annos" / f"{name}.txt")
            flags(tmp_path / "annos" / "absent" / f"{name}.txt")
            write(tmp_path / "mine" / f"{name}.txt")
        scores = run(tmp_path, tmp_path / "mine", tmp_path / "annos", "lasot")
        assert scores["sequences"] == 280
        assert [(remark["kind"], remark["sequence"]) for remark in scores["remarks"]] == [
            ("unmatched", "airplane-2.txt")
        ]


class TestResultFiles:
    @pytest.mark.parametrize("delimiter", [",", "\t", " ", ", "])
    def test_delimiters(self, tmp_path, flat, delimiter):
        for name in ("alpha-1", "Beta_2"):
            write(tmp_path / "mine" / f"{name}.txt", delimiter=delimiter)
        assert run(tmp_path, tmp_path / "mine", flat)["precision"] == 1

    @pytest.mark.parametrize("names", [("ALPHA-1", "beta-2"), ("alpha_1", "Beta(2)"), ("Alpha 1", "beta.2")])
    def test_spellings(self, tmp_path, flat, names):
        for name in names:
            write(tmp_path / "mine" / f"{name}.txt")
        assert run(tmp_path, tmp_path / "mine", flat)["sequences"] == 2

    def test_separators_tell_sequences_apart(self, tmp_path):
        # UAV123 has both car1_1 and car11; they are not one another.
        write(tmp_path / "annos" / "car1_1.txt")
        write(tmp_path / "annos" / "car11.txt", BOXES + 300)
        write(tmp_path / "mine" / "uav_car1_1.txt")
        write(tmp_path / "mine" / "uav_car11.txt", BOXES + 300)
        assert run(tmp_path, tmp_path / "mine", tmp_path / "annos", "uav123")["precision"] == 1

    def test_names_that_differ_in_case_only(self, tmp_path):
        for name, shift in (("aBcDeFgHiJk_0", 0), ("AbCdEfGhIjK_0", 300)):
            write(tmp_path / "annos" / f"{name}.txt", BOXES + shift)
            write(tmp_path / "mine" / f"{name}.txt", BOXES + shift)
        assert run(tmp_path, tmp_path / "mine", tmp_path / "annos", "trackingnet")["precision"] == 1

    def test_files_beside_the_boxes_are_ignored(self, tmp_path, flat, tracker):
        for name in ("alpha-1_time", "alpha-1_all_scores", "Beta_2_presence", "Beta_2_score"):
            flags(tracker / f"{name}.txt")
        (tracker / "run.json").write_text("{}")
        (tracker / "notes.txt").write_text("words")
        scores = run(tmp_path, tracker, flat)
        assert [remark["sequence"] for remark in scores["remarks"]] == ["notes.txt"]

    def test_zip(self, tmp_path, flat, tracker):
        with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
            for file in tracker.iterdir():
                archive.write(file, f"folder/{file.name}")
        assert run(tmp_path, tmp_path / "mine.zip", flat)["sequences"] == 2

    def test_capital_endings(self, tmp_path, flat, tracker):
        for file in [*flat.glob("*.txt"), *tracker.glob("*.txt")]:
            file.rename(file.with_suffix(".TXT"))
        scores = run(tmp_path, tracker, flat)
        assert (scores["sequences"], scores["remarks"]) == (2, [])

    def test_otb_json(self, tmp_path, flat):
        for name in ("alpha-1", "Beta_2"):
            (tmp_path / "mine").mkdir(exist_ok=True)
            (tmp_path / "mine" / f"{name}.json").write_text(json.dumps([{"res": BOXES.tolist(), "type": "rect"}]))
        assert run(tmp_path, tmp_path / "mine", flat)["precision"] == 1

    def test_selected_sequences(self, tmp_path, flat, tracker):
        (tracker / "Beta_2.txt").unlink()
        (tmp_path / "list.txt").write_text("ALPHA_1\n")
        assert run(tmp_path, tracker, flat, sequences=tmp_path / "list.txt")["sequences"] == 1

    def test_irregular_results_are_listed(self, tmp_path, flat, tracker, capsys):
        write(tracker / "alpha-1.txt", np.concatenate([BOXES, BOXES]))
        write(tracker / "Beta_2.txt", [BOXES[0], [np.nan] * 4])
        scores = run(tmp_path, tracker, flat)
        kinds = {(remark["sequence"], remark["kind"]) for remark in scores["remarks"]}
        assert kinds == {("alpha-1", "long"), ("Beta_2", "short"), ("Beta_2", "invalid")}
        assert "Beta_2" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("benchmark", "told"), [("plain", []), ("trackingnet", []), ("got10k", []), ("pysot", [1])]
    )
    def test_a_first_row_that_no_rule_reads_is_not_listed(self, tmp_path, flat, tracker, benchmark, told):
        write(tracker / "alpha-1.txt", [[np.nan] * 4, *BOXES[1:]])
        rule = {"rule": "pysot"} if benchmark == "pysot" else {}
        scores = run(tmp_path, tracker, flat, "otb" if rule else benchmark, **rule)
        assert len(scores["remarks"]) == len(told)

    def test_missing_results_of_trackingnet_are_zeros(self, tmp_path, flat, tracker):
        (tracker / "Beta_2.txt").unlink()
        scores = run(tmp_path, tracker, flat, "trackingnet")
        assert scores["sequences"] == 2
        assert scores["coverage"] == pytest.approx(5 / 8)
        assert scores["remarks"][0]["kind"] == "missing"


class TestCommandLine:
    def test_success(self, tmp_path, flat, tracker):
        out = tmp_path / "scores.json"
        main(["evaluate", str(tracker), "--benchmark", "lasot", "--annotations", str(flat), "--json", str(out)])
        assert json.loads(out.read_text())["sequences"] == 2

    def test_a_mistake_is_one_sentence_and_code_2(self, tmp_path, flat, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(["evaluate", str(tmp_path / "nowhere"), "--benchmark", "lasot", "--annotations", str(flat)])
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert "nowhere" in error
        assert "Traceback" not in error

    def test_names_are_printed_as_they_are(self, tmp_path, flat, tracker, capsys):
        names = ("a[b]", "[bold]c", "d\\[e]", "caf\udce9")
        for name in names:
            shutil.copytree(tracker, tmp_path / "named" / name)
        (tmp_path / "named" / "a[b]" / "stra\udcdfe[i].txt").touch()
        main(["evaluate", str(tmp_path / "named"), "--benchmark", "plain", "--annotations", str(flat)])
        printed = capsys.readouterr().out
        assert [name for name in (*names[:3], r"caf\udce9", r"stra\udcdfe[i].txt") if name not in printed] == []
        with pytest.raises(SystemExit):
            main(["evaluate", "a\\[b]\n", "--benchmark", "plain", "--annotations", str(flat)])
        assert capsys.readouterr().err.startswith("relo: error: There are no results at a\\[b]\\n; give")


class TestRefusals:
    def refused(self, tmp_path, results, annotations, benchmark="plain", **options) -> str:
        with pytest.raises(UserError) as error:
            run(tmp_path, results, annotations, benchmark, **options)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    def test_text_in_a_result(self, tmp_path, flat, tracker):
        (tracker / "alpha-1.txt").write_text("10,20,30,40\nTraceback (most recent call last)\n")
        message = self.refused(tmp_path, tracker, flat)
        assert "alpha-1.txt, line 2" in message

    @pytest.mark.parametrize("last", ["1,2,3", "1,2,3,4,5", "12,3", "1,2,,4"])
    def test_wrong_columns(self, tmp_path, flat, tracker, last):
        (tracker / "alpha-1.txt").write_text(f"10,20,30,40\n10,20,30,40\n{last}")
        assert "alpha-1.txt, line 3" in self.refused(tmp_path, tracker, flat)

    def test_missing_results(self, tmp_path, flat, tracker):
        (tracker / "Beta_2.txt").unlink()
        message = self.refused(tmp_path, tracker, flat)
        assert "1 of 2 sequences" in message
        assert "Beta_2" in message

    def test_a_killed_run(self, tmp_path, flat, tracker):
        write(tracker / "Beta_2.txt", BOXES[:2])
        message = self.refused(tmp_path, tracker, flat, "lasot")
        assert "Beta_2" in message
        assert "2 rows" in message
        (tracker / "Beta_2.txt").write_text("")
        assert "Beta_2" in self.refused(tmp_path, tracker, flat)

    def test_annotations_of_another_benchmark(self, tmp_path, tracker):
        for name in ("airplane-1", "airplane-9"):
            write(tmp_path / "annos" / f"{name}.txt")
            write(tracker / f"{name}.txt")
        assert "LaSOT" in self.refused(tmp_path, tracker, tmp_path / "annos", "uav123")
        message = self.refused(tmp_path, tracker, tmp_path / "annos", "lasot")
        assert "absent" in message

    def test_annotations_at_another_frame_rate(self, tmp_path):
        """UAV123 and UAV123@10fps have sequences of the same names."""
        lengths = {"uav123": {"bird1_1": 253, "bird1_2": 703}, "uav123_10fps": {"bird1_1": 85, "bird1_2": 235}}
        for benchmark, sequences in lengths.items():
            for name, length in sequences.items():
                write(tmp_path / benchmark / f"{name}.txt", BOXES[[0] * length])
        for benchmark, other in (lengths, reversed(lengths)):
            message = self.refused(tmp_path, tmp_path / benchmark, tmp_path / other, benchmark)
            assert f"{other} holds annotations of UAV123" in message
            assert f"or --benchmark {other}." in message
        for benchmark in lengths:
            assert run(tmp_path, tmp_path / benchmark, tmp_path / benchmark, benchmark)["sequences"] == 2

    def test_results_of_another_benchmark(self, tmp_path, flat):
        write(tmp_path / "mine" / "something-else.txt")
        assert "something-else.txt" in self.refused(tmp_path, tmp_path / "mine", flat)

    def test_empty_folders(self, tmp_path, flat, tracker):
        (tmp_path / "empty").mkdir()
        assert "it is empty" in self.refused(tmp_path, tmp_path / "empty", flat)
        assert "holds no annotations of own data" in self.refused(tmp_path, tracker, tmp_path / "empty")

    def test_missing_paths(self, tmp_path, flat, tracker):
        assert "nowhere" in self.refused(tmp_path, tmp_path / "nowhere", flat)
        assert "nowhere" in self.refused(tmp_path, tracker, tmp_path / "nowhere")

    def test_two_results_of_one_sequence(self, tmp_path, flat, tracker):
        write(tracker / "beta-2.txt")
        assert "both results of sequence Beta_2" in self.refused(tmp_path, tracker, flat)

    def test_flags_of_another_length(self, tmp_path, flat, tracker):
        flags(flat / "absent" / "alpha-1.txt", (0, 0, 0))
        assert "alpha-1.txt has 3 rows for 4" in self.refused(tmp_path, tracker, flat, "lasot")

    def test_first_frames_only(self, tmp_path, tracker):
        for name in ("alpha-1", "Beta_2"):
            write(tmp_path / "root" / "TEST" / "anno" / f"{name}.txt", BOXES[:1])
        assert "server" in self.refused(tmp_path, tracker, tmp_path / "root", "trackingnet")

    def test_unknown_names(self, tmp_path, flat, tracker):
        assert "no benchmark 'lasso'" in self.refused(tmp_path, tracker, flat, "lasso")
        assert "no scoring rule 'lasso'" in self.refused(tmp_path, tracker, flat, rule="lasso")
        (tmp_path / "list.txt").write_text("gamma\n")
        assert "gamma" in self.refused(tmp_path, tracker, flat, sequences=tmp_path / "list.txt")

    @pytest.mark.parametrize(
        "entry",
        [
            *({"gt_rect": BOXES.tolist(), "absent": absent} for absent in ABSENT),
            *({"gt_rect": boxes} for boxes in NO_BOXES),
            {"boxes": []},
        ],
        ids=lambda entry: str(entry)[-40:],
    )
    def test_json_of_other_types(self, tmp_path, tracker, entry):
        (tmp_path / "truth.json").write_text(json.dumps({"alpha-1": entry}))
        message = self.refused(tmp_path, tracker, tmp_path / "truth.json")
        assert "truth.json: " in message
        assert "alpha-1" in message

    @pytest.mark.parametrize("content", [*({"res": boxes} for boxes in NO_BOXES), None, 5, [[]], [], {"res": {"a": 1}}])
    def test_results_in_json_of_other_types(self, tmp_path, flat, tracker, content):
        (tracker / "alpha-1.txt").unlink()
        (tracker / "alpha-1.json").write_text(json.dumps(content))
        assert "alpha-1.json " in self.refused(tmp_path, tracker, flat)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "[" + "9" * 5000 + "]", ""])
    def test_what_is_no_json(self, tmp_path, flat, tracker, text):
        (tmp_path / "truth.JSON").write_text(text)
        assert "truth.JSON is not JSON" in self.refused(tmp_path, tracker, tmp_path / "truth.JSON")
        (tracker / "alpha-1.txt").unlink()
        (tracker / "alpha-1.json").write_text(text)
        assert "alpha-1.json is not JSON" in self.refused(tmp_path, tracker, flat)

    @pytest.mark.parametrize("wrong", ["nan", "1e999", "-1", "1e308"])
    def test_wrong_times(self, tmp_path, flat, tracker, wrong):
        (tracker / "alpha-1_time.txt").write_text(f"{wrong}\n1\n1\n1\n")
        assert "alpha-1_time.txt: number 1 is" in self.refused(tmp_path, tracker, flat)

    def test_broken_json(self, tmp_path, tracker):
        (tmp_path / "truth.json").write_text('{"a": [1, 2')
        assert "truth.json" in self.refused(tmp_path, tracker, tmp_path / "truth.json")
        (tmp_path / "truth.json").write_text('{"alpha-1": {"gt_rect": [[1, 2, 3]]}}')
        assert "alpha-1" in self.refused(tmp_path, tracker, tmp_path / "truth.json")

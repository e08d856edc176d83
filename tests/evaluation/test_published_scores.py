"""The published scores of other people's trackers, from their raw result files."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from relo.commands.evaluate import evaluate

SHARED = Path(os.environ.get("RELO_SHARED", Path(__file__).parents[2].parent / "shared"))
TRUTH = SHARED / "metric_truth"
pytestmark = pytest.mark.skipif(not TRUTH.is_dir(), reason="the published results are not at hand")


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")

    def unpack(name: str) -> Path:
        root = folder / name
        if not root.exists():
            root.mkdir()
            with tarfile.open(TRUTH / f"{name}.tar.xz") as archive:
                archive.extractall(root, filter="data")
        return next(item for item in root.iterdir() if item.is_dir())

    return unpack


@pytest.fixture(scope="session")
def expected():
    return json.loads((TRUTH / "expected.json").read_text())


def scores_of(tmp_path: Path, results: Path, **options) -> dict:
    evaluate([results], json=tmp_path / "scores.json", **options)
    return json.loads((tmp_path / "scores.json").read_text())


def assert_exact(scores: dict, exact: dict) -> None:
    assert scores["auc"] == pytest.approx(exact["auc"], abs=1e-4)
    assert scores["precision"] == pytest.approx(exact["precision_20px"], abs=1e-4)
    if "normalized_precision_0.2" in exact:
        assert scores["normalized_precision"] == pytest.approx(exact["normalized_precision_0.2"], abs=1e-4)


def test_atom_on_lasot(unpacked, expected, tmp_path):
    folder = unpacked("lasot")
    options = {"benchmark": "lasot", "annotations": folder / "annos"}
    scores = scores_of(tmp_path, folder / "ATOM", **options)
    entry = expected["LaSOT test, ATOM (lasot.tar.xz)"]
    assert scores["rule"] == entry["rule"]
    assert scores["sequences"] == len(scores["per_sequence"]) == entry["sequences"]
    assert scores["frames"] == 685_360
    assert_exact(scores, entry["exact"])
    # Its 18 rows without a box are listed.
    assert sum(int(remark["text"].split()[0]) for remark in scores["remarks"] if remark["kind"] == "invalid") == 18


def test_autotrack_on_uav123_at_10_fps(unpacked, expected, tmp_path):
    folder = unpacked("uav123_10fps")
    options = {"benchmark": "uav123_10fps", "annotations": folder / "gt"}
    entry = expected["UAV123@10fps, AutoTrack (uav123_10fps.tar.xz)"]
    scores = scores_of(tmp_path, folder / "AutoTrack", **options)
    assert scores["sequences"] == entry["sequences"]
    assert_exact(scores, entry["exact"])
    strict = scores_of(tmp_path, folder / "AutoTrack", rule="pytracking", **options)
    assert strict["precision"] == pytest.approx(entry["exact"]["precision_20px_if_nan_were_a_miss"], abs=1e-4)


def test_atom_on_otb100(unpacked, expected, tmp_path):
    folder = unpacked("otb100")
    entry = expected["OTB-100, ATOM (otb100.tar.xz)"]
    for rule in ("otb", "pysot"):
        scores = scores_of(tmp_path, folder / "ATOM", benchmark="otb", annotations=folder / "OTB100.json", rule=rule)
        assert scores["sequences"] == entry["sequences"]
        assert_exact(scores, entry["exact"])


def test_official_curves_of_meem(unpacked, expected, tmp_path):
    folder = unpacked("otb100")
    results = folder / "MEEM_official"
    official = json.loads((results / "scores_tb50" / "ALL.json").read_text())
    (tmp_path / "tb50.txt").write_text("\n".join(official["seqs"]))
    options = {"benchmark": "otb", "annotations": folder / "OTB100.json", "sequences": tmp_path / "tb50.txt"}
    scores = scores_of(tmp_path, results, **options)
    assert scores["sequences"] == 50
    assert_exact(
        scores,
        expected["OTB TB-50, MEEM, official curves (otb100.tar.xz: otb/MEEM_official/scores_tb50/ALL.json)"]["exact"],
    )
    assert scores["curves"]["success"] == pytest.approx(official["successRateList"], abs=1e-9)
    assert scores["curves"]["precision"] == pytest.approx(official["precisionList"], abs=1e-9)


def test_dummies_of_the_trackingnet_devkit(expected, tmp_path):
    folder = TRUTH / "trackingnet_devkit"
    scores = scores_of(
        tmp_path, folder / "dummy_subm.zip", benchmark="trackingnet", annotations=folder / "dummy_GT.zip"
    )
    exact = expected["TrackingNet devkit dummies (trackingnet_devkit/)"]["exact_percent"]
    for ours, theirs in (
        ("auc", "success"),
        *((name, name) for name in ("precision", "normalized_precision", "coverage")),
    ):
        assert scores[ours] * 100 == pytest.approx(exact[theirs], abs=1e-4)
    assert {remark["kind"] for remark in scores["remarks"]} == {"missing", "short"}

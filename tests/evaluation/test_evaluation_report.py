"""The report: what it shows, and that it stands alone."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from relo.commands.evaluate import evaluate
from relo.evaluation.report_page import ReportTable
from relo.evaluation.scoring import ScoringRule, SequenceScore

BOXES = np.array([[10, 20, 30, 40], [12, 21, 30, 40], [14, 22, 31, 40], [16, 23, 31, 41]], float)
SEQUENCES = ("airplane-1", "airplane-9", "basketball-1")  # of LaSOT's test set: they have attributes


def write(path: Path, boxes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, fmt="%g", delimiter=",")


@pytest.fixture
def report(tmp_path) -> Path:
    for name in SEQUENCES:
        write(tmp_path / "annos" / f"{name}.txt", BOXES)
        write(tmp_path / "annos" / "absent" / f"{name}.txt", np.zeros(4))
        write(tmp_path / "trackers" / "good <1>" / f"{name}.txt", BOXES)
        write(tmp_path / "trackers" / "good <1>" / f"{name}_time.txt", [9, 0.05, 0.05, 0.05])
        write(tmp_path / "trackers" / "poor" / f"{name}.txt", BOXES + np.array([4, 4, 9, 9]))
    write(tmp_path / "trackers" / "poor" / "airplane-9.txt", [*(BOXES[:3] + 500), [np.nan] * 4])
    (tmp_path / "trackers" / "good <1>" / "training.txt").write_text("COCO,\nLaSOT\n")
    evaluate([tmp_path / "trackers"], benchmark="lasot", annotations=tmp_path / "annos", report=tmp_path / "report")
    return tmp_path / "report"


class Outline(HTMLParser):
    """Titles, ids and links of a page; refuses tags that are closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.ids.append(found["id"])
        self.links += [found[key] for key in ("href", "src") if key in found]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.titles.append(text)


def test_page(report):
    page = (report / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.titles == [
        "Scores",
        "Curves",
        "Attributes",
        "Among published trackers",
        "Worst sequences of good <1>",
        "Remarks",
        "Sequences",
    ]
    # It stands alone, and its links lead somewhere.
    assert all(link.startswith(("data:", "#")) for link in outline.links)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids)) == len(SEQUENCES)
    assert "<script" not in page
    assert "COCO, LaSOT" in page
    assert "20.0" in page  # frames a second, without the first frame
    assert re.search(r"airplane-9: row 4 is without a box", page)


def test_tables(report):
    markdown = (report / "scores.md").read_text().splitlines()
    assert markdown[0] == "| tracker | AUC | P | Pnorm | sequences | frames/s | trained on |"
    assert markdown[2].startswith("| good <1> | 95.24 ± 0.00 | 100.00 ± 0.00 |")
    assert markdown[3].endswith("| 3 | - | not stated |")
    latex = (report / "scores.tex").read_text()
    assert "95.24 $\\pm$ 0.00" in latex
    assert latex.count(" \\\\") == 3


def test_plots(report):
    plots = {path.stem for path in report.glob("*.png")}
    assert plots == {"success", "precision", "normalized_precision", "attributes", "attribute_radar"}


def test_special_characters_are_escaped():
    table = ReportTable(["a_b", "c|d"], [["50 % & <more>", "x"]])
    assert "a\\_b" in table.latex()
    assert "50 \\% \\& <more>" in table.latex()
    assert "c\\|d" in table.markdown()
    assert "&lt;more&gt;" in table.html()


def test_names_that_are_no_text(tmp_path):
    name = "$\\x$ caf\udce9"  # no formula, and bytes in another encoding
    write(tmp_path / "annos" / f"{name}.txt", BOXES)
    write(tmp_path / name / f"{name}.txt", BOXES)
    evaluate([tmp_path / name], benchmark="plain", annotations=tmp_path / "annos", report=tmp_path / "report")
    for file in ("report.html", "scores.md", "scores.tex"):
        assert "caf" in (tmp_path / "report" / file).read_text(encoding="utf-8")


class OnTarget(ScoringRule):
    name = "on target"
    source = "a test"
    thresholds: ClassVar = {}
    scores = ("on_target",)

    def score(self, truth, predictions_xywh):
        return SequenceScore(truth.name, len(truth), 1.0, {"on_target": 0.5}, {})


def test_a_rule_with_scores_of_its_own_has_a_report(report, tmp_path):
    folder = tmp_path / "own"
    rule = f"{__name__}.OnTarget"
    evaluate([tmp_path / "trackers"], benchmark="lasot", annotations=tmp_path / "annos", rule=rule, report=folder)
    page = (folder / "report.html").read_text()
    assert "on_target" in page
    assert "Among published trackers" not in page  # they have no such score


def test_other_benchmarks_have_a_report(tmp_path):
    for name in ("alpha", "beta"):
        write(tmp_path / "annos" / f"{name}.txt", BOXES)
        write(tmp_path / "mine" / f"{name}.txt", BOXES)
    for benchmark, plots in (("trackingnet", 3), ("got10k", 1), ("plain", 3)):
        folder = tmp_path / benchmark
        evaluate([tmp_path / "mine"], benchmark=benchmark, annotations=tmp_path / "annos", report=folder)
        assert len(list(folder.glob("*.png"))) == plots
        published = "Among published trackers" in (folder / "report.html").read_text()
        assert published == (benchmark != "plain")

"""The report of an evaluation: plots, tables and one self-contained HTML page."""

import base64
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from relo.data.sequences.traps import lasot_challenges
from relo.errors import UserError
from relo.evaluation.plots import attribute_bars, attribute_radar, curve_plot
from relo.evaluation.report_tables import ReportTable
from relo.evaluation.scoring import TITLES, TrackerScore

_WORST = 10
_UNKNOWN = "not stated"
_UNWRITABLE = "backslashreplace"  # for bytes of file names that are no text
# The attributes in the order of LaSOT's paper.
_ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
_PLOTS = {
    "success": ("Success", ("auc", "ao")),
    "precision": ("Precision", ("precision",)),
    "normalized_precision": ("Normalized precision", ("normalized_precision",)),
}


@dataclass(frozen=True)
class _Section:
    title: str
    html: str


def write_report(scores: Sequence[TrackerScore], folder: Path) -> None:
    """Write `report.html`, `scores.md`, `scores.tex` and the plots as PNG.

    Args:
        scores: several trackers' scores on one benchmark, by one rule.
        folder: where to write; made if it is not there.

    Raises:
        UserError: the folder cannot be written.
    """
    ranked = sorted(scores, key=lambda score: -score.summary.values[score.rule.scores[0]])
    figures = _figures(ranked)
    table = _score_table(ranked)
    page = _page(ranked, table, figures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=150)
        (folder / "scores.md").write_text(table.markdown(), encoding="utf-8", errors=_UNWRITABLE)
        (folder / "scores.tex").write_text(table.latex(), encoding="utf-8", errors=_UNWRITABLE)
        (folder / "report.html").write_text(page, encoding="utf-8", errors=_UNWRITABLE)
    except OSError as error:
        raise UserError(f"The report cannot be written to {folder} ({error.strerror}).") from error


def _figures(scores: Sequence[TrackerScore]) -> dict[str, Figure]:
    first = scores[0]
    figures = {}
    for kind, (title, names) in _PLOTS.items():
        read_off = next((name for name in names if name in first.summary.values), None)
        if kind not in first.summary.curves or read_off is None:
            continue
        figures[kind] = curve_plot(
            kind,
            first.rule.thresholds[kind].tolist(),
            {score.tracker: score.summary.curves[kind].tolist() for score in scores},
            {score.tracker: score.summary.values[read_off] for score in scores},
            f"{title} on {first.benchmark.title}",
        )
    by_attribute, counts = _attribute_scores(scores)
    if counts:
        label = TITLES[first.rule.scores[0]]
        figures["attributes"] = attribute_bars(by_attribute, counts, label)
        figures["attribute_radar"] = attribute_radar(by_attribute, counts)
    return figures


def _attribute_scores(scores: Sequence[TrackerScore]) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """The mean first score over the sequences with each attribute, by tracker; and how many these are."""
    if scores[0].benchmark.name != "lasot":
        return {}, {}
    table = lasot_challenges()
    members = {
        attribute: {sequence.name for sequence in scores[0].sequences if attribute in table.get(sequence.name, ())}
        for attribute in _ATTRIBUTES
    }
    counts = {attribute: len(names) for attribute, names in members.items() if names}
    by_tracker = {}
    for score in scores:
        values = {sequence.name: sequence.values[score.rule.scores[0]] for sequence in score.sequences}
        by_tracker[score.tracker] = {
            attribute: sum(values[name] for name in members[attribute]) / count for attribute, count in counts.items()
        }
    return by_tracker, counts


def _score_table(scores: Sequence[TrackerScore]) -> ReportTable:
    names = scores[0].rule.scores
    rows = []
    for score in scores:
        errors = score.summary.standard_errors
        cells = [
            f"{100 * score.summary.values[name]:.2f}" + (f" ± {100 * errors[name]:.2f}" if name in errors else "")
            for name in names
        ]
        speed = "-" if score.frames_per_second is None else f"{score.frames_per_second:.1f}"
        rows.append([score.tracker, *cells, str(len(score.sequences)), speed, score.training or _UNKNOWN])
    header = ["tracker", *(TITLES.get(name, name) for name in names), "sequences", "frames/s", "trained on"]
    return ReportTable(header, rows, frozenset({0, len(header) - 1}))


def _published_table(scores: Sequence[TrackerScore]) -> ReportTable | None:
    """The trackers among published ones, best first; None where nothing is published for the benchmark."""
    first = scores[0]
    text = resources.files("relo.evaluation").joinpath("published_results.csv").read_text(encoding="utf-8")
    published: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["benchmark"] == first.benchmark.title:
            entry = published.setdefault(row["tracker"], {"source": row["source"], "training": row["training"]})
            entry[row["metric"]] = row["value"]
    if not published:
        return None
    metrics = [TITLES[name] for name in first.rule.scores if name in TITLES]
    rows = [
        [name, *(entry.get(metric, "") for metric in metrics), entry["training"] or _UNKNOWN, entry["source"]]
        for name, entry in published.items()
    ]
    own = [
        [
            score.tracker,
            *(f"{100 * score.summary.values[name]:.1f}" for name in first.rule.scores if name in TITLES),
            score.training or _UNKNOWN,
            "this report",
        ]
        for score in scores
    ]
    ranked = sorted(rows + own, key=lambda row: -float(row[1] or 0))
    highlighted = frozenset(number for number, row in enumerate(ranked) if row in own)
    last = len(metrics) + 2
    return ReportTable(
        ["tracker", *metrics, "trained on", "source"], ranked, frozenset({0, last - 1, last}), highlighted
    )


def _sequence_table(scores: Sequence[TrackerScore]) -> ReportTable:
    """Every sequence's scores; the first tracker's worst come first."""
    names = scores[0].rule.scores
    values = [{sequence.name: sequence.values for sequence in score.sequences} for score in scores]
    ranked = sorted(scores[0].sequences, key=lambda sequence: sequence.values[names[0]])
    single = len(scores) == 1
    header = [TITLES.get(name, name) for name in names] if single else [score.tracker for score in scores]
    rows = []
    for sequence in ranked:
        shown = (
            [values[0][sequence.name][name] for name in names]
            if single
            else [v[sequence.name][names[0]] for v in values]
        )
        rows.append([sequence.name, str(sequence.frames), *(f"{100 * value:.1f}" for value in shown)])
    anchors = [f"sequence-{sequence.name}".replace(" ", "-") for sequence in ranked]
    return ReportTable(["sequence", "frames", *header], rows, anchors=anchors)


def _page(scores: Sequence[TrackerScore], table: ReportTable, figures: Mapping[str, Figure]) -> str:
    first = scores[0]
    frames = sum(sequence.frames for sequence in first.sequences)
    sequences = _sequence_table(scores)
    sections = [_Section("Scores", table.html() + "<p>Percent; ± is the standard error over sequences.</p>")]
    curves = [figures[kind] for kind in _PLOTS if kind in figures]
    sections.append(_Section("Curves", _gallery(curves)))
    if "attributes" in figures:
        text = "<p>Mean over the sequences with each attribute; their number is in brackets.</p>"
        sections.append(
            _Section(
                "Attributes", _gallery([figures["attributes"]], "wide") + _gallery([figures["attribute_radar"]]) + text
            )
        )
    published = _published_table(scores)
    if published is not None:
        note = "<p>Published figures are as their sources print them; training sets differ, and so may the rules.</p>"
        sections.append(_Section("Among published trackers", published.html() + note))
    links = [
        f'<li><a href="#{escape(anchor)}">{escape(row[0])}</a> {escape(row[2])}</li>'
        for anchor, row in list(zip(sequences.anchors, sequences.rows, strict=True))[:_WORST]
    ]
    sections.append(_Section(f"Worst sequences of {first.tracker}", f"<ol>{''.join(links)}</ol>"))
    remarks = [
        f"<li>{escape(score.tracker)}: {escape(remark.sequence)}: {escape(remark.text)}</li>"
        for score in scores
        for remark in score.remarks
    ]
    sections.append(_Section("Remarks", f"<ul>{''.join(remarks)}</ul>" if remarks else "<p>None.</p>"))
    score = "scores" if len(scores) == 1 else TITLES[first.rule.scores[0]]
    note = f"<p>Percent; every sequence's {score}, those where {escape(first.tracker)} is worst first.</p>"
    sections.append(_Section("Sequences", note + sequences.html()))
    rule = f"Rule <b>{escape(first.rule.name)}</b>: {escape(first.rule.source)}."
    facts = f"{len(first.sequences)} sequences, {frames:,} frames. {rule}"
    body = "".join(f"<section><h2>{escape(section.title)}</h2>{section.html}</section>" for section in sections)
    return html_page(
        f"{first.benchmark.title}: {', '.join(score.tracker for score in scores)}", f"<p>{facts}</p>{body}"
    )


def html_page(title: str, body: str) -> str:
    """A whole HTML page that needs nothing else: no script, style sheet, font or picture from elsewhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def html_figure(figure: Figure) -> str:
    """A figure as an HTML picture that carries its data."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return f'<img alt="" src="data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _gallery(figures: Sequence[Figure], kind: str = "") -> str:
    return f'<div class="gallery {kind}">{"".join(map(html_figure, figures))}</div>'


_STYLE = """
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:#1c1e21;background:#f4f5f7}
main{max-width:1080px;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.7rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:0 0 .8rem}
section{background:#fff;border-radius:10px;box-shadow:0 1px 3px #0002;padding:1.2rem 1.4rem;margin:1.2rem
0;overflow-x:auto} table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #e4e6ea;white-space:nowrap}
.text{text-align:left;white-space:normal}td:first-child{white-space:nowrap}tr.own{background:#eaf2ff;font-weight:600}tr:target{background:#fff3c4}
.gallery{display:flex;flex-wrap:wrap;gap:1rem;justify-content:center}.gallery img{max-width:100%;height:auto;flex:0
1 auto} p{color:#555}a{color:#1558b0}ol,ul{margin:0;padding-left:1.4rem}ol{columns:16rem}li{break-inside:avoid}
""".strip()

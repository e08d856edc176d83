"""The report of an evaluation: plots, tables and one self-contained HTML page."""

import csv
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from matplotlib.figure import Figure

from relo.data.sequences.traps import lasot_challenges
from relo.evaluation.plots import attribute_bars, attribute_radar, curve_plot, save_png
from relo.evaluation.report_page import ReportTable, html_gallery, html_page
from relo.evaluation.scoring import TITLES, TrackerScore
from relo.files import write_text

_WORST = 10
_UNKNOWN = "not stated"
# The attributes in the order of LaSOT's paper.
_ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
# The curves, and the scores that may be read off them.
_PLOTS = {
    "success": ("Success", ("auc", "ao")),
    "precision": ("Precision", ("precision",)),
    "normalized_precision": ("Normalized precision", ("normalized_precision",)),
}


def report_files(folder: Path) -> list[Path]:
    """What `write_report` may write."""
    figures = [f"{name}.png" for name in (*_PLOTS, "attributes", "attribute_radar")]
    return [folder / name for name in ("scores.md", "scores.tex", "report.html", *figures)]


def write_report(scores: Sequence[TrackerScore], folder: Path) -> None:
    """Write `report.html`, `scores.md`, `scores.tex` and the plots as PNG, of trackers scored by one rule.

    Raises:
        UserError: a file cannot be written.
    """
    ranked = sorted(scores, key=lambda score: -score.summary.values[score.rule.scores[0]])
    curves, attributes = _curves(ranked), _attributes(ranked)
    table = _score_table(ranked)
    texts = {
        "scores.md": table.markdown(),
        "scores.tex": table.latex(),
        "report.html": _page(ranked, table, curves, attributes),
    }
    for name, figure in (curves | attributes).items():
        save_png(figure, folder / f"{name}.png")
    for name, text in texts.items():
        write_text(folder / name, text)


def _curves(scores: Sequence[TrackerScore]) -> dict[str, Figure]:
    """A plot of each curve that the rule has, by its name."""
    first = scores[0]
    figures = {}
    for kind, (title, names) in _PLOTS.items():
        read_off = next((name for name in names if name in first.summary.values), None)
        if kind in first.summary.curves and read_off is not None:
            figures[kind] = curve_plot(
                kind,
                first.rule.thresholds[kind].tolist(),
                {score.tracker: score.summary.curves[kind].tolist() for score in scores},
                {score.tracker: score.summary.values[read_off] for score in scores},
                f"{title} on {first.benchmark.title}",
            )
    return figures


def _attributes(scores: Sequence[TrackerScore]) -> dict[str, Figure]:
    """Bars and radar of the mean first score over the sequences with each of LaSOT's attributes."""
    first, main = scores[0], scores[0].rule.scores[0]
    if first.benchmark.name != "lasot":
        return {}
    table = lasot_challenges()
    members = {
        attribute: [
            number for number, sequence in enumerate(first.sequences) if attribute in table.get(sequence.name, ())
        ]
        for attribute in _ATTRIBUTES
    }
    counts = {attribute: len(numbers) for attribute, numbers in members.items() if numbers}
    if not counts:
        return {}
    means = {
        score.tracker: {
            attribute: sum(score.sequences[number].values[main] for number in members[attribute]) / count
            for attribute, count in counts.items()
        }
        for score in scores
    }
    return {
        "attributes": attribute_bars(means, counts, TITLES.get(main, main)),
        "attribute_radar": attribute_radar(means, counts),
    }


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
    text = resources.files("relo.evaluation").joinpath("published_results.csv").read_text(encoding="utf-8")
    published: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["benchmark"] == scores[0].benchmark.title:
            entry = published.setdefault(row["tracker"], {"source": row["source"], "training": row["training"]})
            entry[row["metric"]] = row["value"]
    titles = {name: TITLES[name] for name in scores[0].rule.scores if name in TITLES}
    if not published or not titles:
        return None
    rows = [
        [name, *(entry.get(title, "") for title in titles.values()), entry["training"] or _UNKNOWN, entry["source"]]
        for name, entry in published.items()
    ]
    own = []
    for score in scores:
        cells = [f"{100 * score.summary.values[name]:.1f}" for name in titles]
        own.append([score.tracker, *cells, score.training or _UNKNOWN, "this report"])
    ranked = sorted(rows + own, key=lambda row: -float(row[1] or 0))
    header = ["tracker", *titles.values(), "trained on", "source"]
    highlighted = frozenset(number for number, row in enumerate(ranked) if row in own)
    return ReportTable(header, ranked, frozenset({0, len(header) - 2, len(header) - 1}), highlighted)


def _sequence_table(scores: Sequence[TrackerScore]) -> ReportTable:
    """Every sequence's scores, or of several trackers its first score; the first tracker's worst come first."""
    names = scores[0].rule.scores
    single = len(scores) == 1
    header = [TITLES.get(name, name) for name in names] if single else [score.tracker for score in scores]
    order = sorted(range(len(scores[0].sequences)), key=lambda number: scores[0].sequences[number].values[names[0]])
    rows, anchors = [], []
    for number in order:
        sequence = scores[0].sequences[number]
        if single:
            shown = [sequence.values[name] for name in names]
        else:
            shown = [score.sequences[number].values[names[0]] for score in scores]
        rows.append([sequence.name, str(sequence.frames), *(f"{100 * value:.1f}" for value in shown)])
        anchors.append(f"sequence-{sequence.name}".replace(" ", "-"))
    return ReportTable(["sequence", "frames", *header], rows, anchors=anchors)


def _page(
    scores: Sequence[TrackerScore],
    table: ReportTable,
    curves: Mapping[str, Figure],
    attributes: Mapping[str, Figure],
) -> str:
    first = scores[0]
    sequences = _sequence_table(scores)
    sections = {
        "Scores": table.html() + "<p>Percent; ± is the standard error over sequences.</p>",
        "Curves": html_gallery(curves.values()),
    }
    if attributes:
        note = "<p>Mean over the sequences with each attribute; their number is in brackets.</p>"
        sections["Attributes"] = "".join(html_gallery([figure]) for figure in attributes.values()) + note
    published = _published_table(scores)
    if published is not None:
        note = "<p>Published figures are as their sources print them; training sets differ, and so may the rules.</p>"
        sections["Among published trackers"] = published.html() + note
    links = [
        f'<li><a href="#{escape(anchor)}">{escape(row[0])}</a> {escape(row[2])}</li>'
        for anchor, row in list(zip(sequences.anchors, sequences.rows, strict=True))[:_WORST]
    ]
    sections[f"Worst sequences of {first.tracker}"] = f"<ol>{''.join(links)}</ol>"
    remarks = [
        f"<li>{escape(score.tracker)}: {escape(remark.sequence)}: {escape(remark.text)}</li>"
        for score in scores
        for remark in score.remarks
    ]
    sections["Remarks"] = f"<ul>{''.join(remarks)}</ul>" if remarks else "<p>None.</p>"
    main = first.rule.scores[0]
    shown = "scores" if len(scores) == 1 else TITLES.get(main, main)
    note = f"<p>Percent; every sequence's {shown}, those where {escape(first.tracker)} is worst first.</p>"
    sections["Sequences"] = note + sequences.html()

    frames = sum(sequence.frames for sequence in first.sequences)
    rule = f"Rule <b>{escape(first.rule.name)}</b>: {escape(first.rule.source)}."
    facts = f"<p>{len(first.sequences)} sequences, {frames:,} frames. {rule}</p>"
    title = f"{first.benchmark.title}: {', '.join(score.tracker for score in scores)}"
    return html_page(title, facts, sections.items())

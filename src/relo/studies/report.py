"""What a study leaves behind: one table as Markdown, CSV and JSON, the figures, and an HTML page."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from relo.evaluation.plots import save_png
from relo.evaluation.report_page import ReportTable, html_gallery, html_page
from relo.files import write_text
from relo.studies.figures import differences, scores_over
from relo.studies.plan import Plan, steps_of
from relo.studies.results import Entry
from relo.studies.statistics import CONFIDENCE, DRAWS
from relo.studies.steps import Training
from relo.studies.study import POOLED, Study

_MISSING = "-"
_COLUMNS = (
    *("group", "row", "title", "test", "seeds", "sequences", "auc", "deviation", "standard_error"),
    *("difference", "low", "high", "p", "window_exponents"),
)


def write_results(study: Study, plan: Plan, found: Sequence[Entry], output: Path) -> list[Path]:
    """Write table.md, table.csv, results.json, report.html, and a PNG for each group with an axis.

    Args:
        study: the study.
        plan: of all its rows and seeds.
        found: the entries, some or all.
        output: where to write.

    Returns:
        The files.
    """
    note = _note(study, found)
    sections, markdown, files = [], [], {}
    for name, group in study.groups.items():
        of_group = [entry for entry in found if entry.group == name]
        if not of_group:
            continue
        tables = _tables(study, name, of_group)
        markdown += [f"## {group.title}\n", *(table.markdown() for table in tables)]
        # An oracle is so far from the others that beside it they would look alike.
        fair = [entry for entry in of_group if study.rows[entry.row].localization != "oracle"]
        figures = [differences(f"Difference to {group.rows[group.reference]}", fair)]
        if group.axis is not None:
            figures.append(scores_over(group.axis, of_group))
            files[output / f"auc_over_{name}.png"] = figures[-1]
        shown = [*(table.html() for table in tables), html_gallery(figure for figure in figures if figure is not None)]
        sections.append((group.title, "".join(shown)))
    title = f"Ablation: {study.path.stem}"
    texts = {
        output / "table.md": "\n".join([f"# {title}\n", *markdown, note, ""]),
        output / "table.csv": _csv(found),
        output / "results.json": json.dumps(_json(study, plan, found), indent=1) + "\n",
        output / "report.html": html_page(title, f"<p>{escape(note)}</p>", sections),
    }
    for path, text in texts.items():
        write_text(path, text)
    for path, figure in files.items():
        if figure is not None:
            save_png(figure, path)
    return [*texts, *files]


def _tables(study: Study, name: str, of_group: Sequence[Entry]) -> list[ReportTable]:
    """Means and deviations of the rows that have been evaluated, and their differences to the reference, if any."""
    group = study.groups[name]
    columns = [POOLED, *study.tests] if len(study.tests) > 1 else list(study.tests)  # the main one first
    scores: list[list[str]] = []
    differences: list[list[str]] = []
    highlighted: frozenset[int] = frozenset()
    for row, title in group.rows.items():
        by_test = {entry.test: entry for entry in of_group if entry.row == row}
        if not by_test:
            continue
        if row == group.reference:
            highlighted = frozenset({len(scores)})
        main, *others = (by_test.get(test) for test in columns)
        seeds, error, p_value = _MISSING, None, _MISSING
        if main is not None:
            seeds, error = str(len(main.seeds)), main.summary.standard_error
            p_value = _MISSING if main.comparison is None else f"{main.comparison.p_value:.4f}"
        scores.append([title, seeds, _score(main), _percent(error), *map(_score, others)])
        if study.validation:
            windows = next(iter(by_test.values())).windows
            scores[-1].append(" ".join(f"{window:g}" for window in windows) or _MISSING)
        if any(entry.comparison is not None for entry in by_test.values()):
            differences.append([title, _difference(main), p_value, *map(_difference, others)])
    header = ["AUC", "seeds", columns[0], "standard error", *columns[1:], *["window"] * bool(study.validation)]
    tables = [ReportTable(header, scores, highlighted=highlighted)]
    if differences:
        header = [f"difference to {group.rows[group.reference]}", columns[0], "p", *columns[1:]]
        tables.append(ReportTable(header, differences))
    return tables


def _score(entry: Entry | None) -> str:
    if entry is None:
        return _MISSING
    deviation = entry.summary.deviation
    return _percent(entry.summary.mean) + ("" if deviation is None else f" ± {_percent(deviation)}")


def _difference(entry: Entry | None) -> str:
    if entry is None or entry.comparison is None:
        return _MISSING
    comparison = entry.comparison
    mean = f"{100 * comparison.mean:+.2f}"
    if comparison.low is None or comparison.high is None:
        return mean
    return f"{mean} [{100 * comparison.low:+.2f}, {100 * comparison.high:+.2f}]"


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{100 * value:.2f}"


def _note(study: Study, found: Sequence[Entry]) -> str:
    counts = {entry.test: entry.sequences for entry in found}
    sizes = ", ".join(f"{test} {counts[test]}" for test in study.tests if test in counts)
    most = max((len(entry.seeds) for entry in found), default=0)
    note = (
        f"Success AUC in percent over one pass of each sequence (sequences: {sizes}; {POOLED}: those of "
        f"{', '.join(study.pooled)}). "
    )
    if study.validation:
        note += (
            "Window: the exponent of the Hann window, for each seed the best of "
            f"{', '.join(f'{exponent:g}' for exponent in study.evaluation.window_exponents)} on other sequences "
            f"({', '.join(study.validation)}; the mean of these sets). "
        )
    share = f"{100 * CONFIDENCE:g} %"
    if most < 2:
        return note + (
            f"One seed: the seed was not varied, so {share} intervals (in brackets) and p hold for these networks, not "
            "for the way they were trained. Intervals are Student's t over sequences; p is of a paired sign-flip test."
        )
    return note + (
        "± is the standard deviation over seeds; the standard error is over sequences. Differences are paired by seed "
        f"and sequence, with a {share} interval in brackets that takes both as drawn at random (two-way analysis of "
        f"variance, Satterthwaite's degrees of freedom). p is of a paired sign-flip test over sequences, averaged over "
        f"seeds ({DRAWS:,} draws): it asks whether these networks differ, the interval whether the ways to train do. "
        "Neither is corrected for the number of comparisons. Where a row has one seed, its interval is over sequences "
        "alone."
    )


def _csv(found: Sequence[Entry]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in found:
        comparison = [None] * 4 if entry.comparison is None else list(asdict(entry.comparison).values())
        numbers = [*asdict(entry.summary).values(), *comparison]
        shown = ["" if number is None else f"{number:.6f}" for number in numbers]
        named = [entry.group, entry.row, entry.title, entry.test, len(entry.seeds), entry.sequences]
        writer.writerow([*named, *shown, " ".join(f"{window:g}" for window in entry.windows)])
    return text.getvalue()


def _json(study: Study, plan: Plan, found: Sequence[Entry]) -> dict[str, Any]:
    trainings: dict[str, dict[str, float | None]] = {}
    for step in steps_of(plan):
        if isinstance(step, Training) and step.is_finished():
            trainings.setdefault(f"{step.label}-{step.digest}", {})[str(step.seed)] = step.seconds
    return {
        "study": study.path.stem,
        "pooled": list(study.pooled),
        "confidence": CONFIDENCE,
        "training_seconds_by_seed": trainings,
        "entries": [asdict(entry) for entry in found],
    }

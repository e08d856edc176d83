"""`relo evaluate` and `relo submit`."""

import json as json_format
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from rich.table import Table

from relo.commands.help_texts import fill_help
from relo.console import make_console
from relo.data.sequences.datasets import BENCHMARKS, find_benchmark
from relo.data.sequences.parsing import read_names
from relo.errors import UserError
from relo.evaluation.annotations import read_annotations
from relo.evaluation.results import NameMatcher, files_of, find_results, listed
from relo.evaluation.rules import find_rule
from relo.evaluation.scoring import TITLES, SequenceTruth, TrackerScore, score_trackers
from relo.files import write_text
from relo.inputs import check_outputs, texts_within

_REMARKS_SHOWN = 10


@fill_help(benchmarks=BENCHMARKS)
def evaluate(
    results: list[Path],
    *,
    benchmark: str,
    annotations: Path,
    rule: str | None = None,
    sequences: Path | None = None,
    json: Path | None = None,
    report: Path | None = None,
) -> None:
    """Score result files by a benchmark's own rule.

    Result files are text, one box x,y,w,h in pixels per line, named after their sequences, whatever the case and the
    separators. What is unusual about them (missing, short, long, rows without a box) is refused, or scored as the
    benchmark's own code does and listed.

    Args:
        results: One tracker's folder or zip, or several, or a folder with one folder per tracker.
        benchmark: {benchmarks}, or an alias.
        annotations: The dataset's root; or a folder (or zip) of <sequence>.txt, with flags in
            absent/<sequence>.txt; or a JSON file of OTB's or pysot's style.
        rule: The scoring rule; by default the benchmark's own. `lasot_ext_released` and its like score as the
            public release of RELO does.
        sequences: A file with the names of the sequences to score, one per line; by default, all of them.
        json: Write the scores, the curves and every sequence's own to this file.
        report: Write plots, tables and one self-contained HTML page to this folder. A file `training.txt` among the
            results says there what the tracker was trained on; times in `<sequence>_time.txt` give its speed.

    Raises:
        UserError: a file is missing, broken, or refused by the rule, or would be written over; the message names it.
    """
    chosen = find_benchmark(benchmark)
    scoring_rule = find_rule(rule or chosen.rule)
    truths = read_annotations(annotations, chosen)
    trackers = find_results(results, truths, chosen, annotations)
    if sequences is not None:
        truths = _select(truths, read_names(sequences), NameMatcher(truths, chosen), sequences)
    outputs = [] if json is None else [json]
    if report is not None:
        from relo.evaluation.report import report_files, write_report

        outputs += report_files(report)
    inputs: dict[str, Iterable[str | Path | None]] = {
        "a file of the results": [*results, *chain.from_iterable(map(files_of, trackers))],
        "a file of --annotations": [annotations, *texts_within(annotations, outputs)],
        "--sequences": [sequences],
    }
    check_outputs(inputs, outputs)
    scores = score_trackers(trackers, truths, chosen, scoring_rule)
    _print_scores(scores)
    if json is not None:
        by_tracker = {score.tracker: score.as_json() for score in scores}
        several = {"benchmark": chosen.name, "rule": scoring_rule.name, "trackers": by_tracker}
        write_text(json, json_format.dumps(several if len(scores) > 1 else scores[0].as_json()))
    if report is not None:
        write_report(scores, report)


def _select(
    truths: Mapping[str, SequenceTruth], names: list[str], matcher: NameMatcher, file: Path
) -> dict[str, SequenceTruth]:
    matched = {name: matcher.match(name) for name in names}
    unknown = [name for name, match in matched.items() if match is None]
    if unknown or not names:
        raise UserError(f"{file} names sequences that have no annotation: {listed(unknown) or 'it is empty'}.")
    return {match: truths[match] for match in matched.values() if match is not None}


def _print_scores(scores: Sequence[TrackerScore]) -> None:
    console = make_console()
    first = scores[0]
    frames = sum(sequence.frames for sequence in first.sequences)
    title = f"{first.benchmark.title}, {len(first.sequences)} sequences, {frames:,} frames, rule {first.rule.name}"
    table = Table(title=title, caption=first.rule.source)
    table.add_column("tracker", overflow="fold")
    for name in first.rule.scores:
        table.add_column(TITLES.get(name, name), justify="right", no_wrap=True)
    for score in sorted(scores, key=lambda score: -score.summary.values[score.rule.scores[0]]):
        errors = score.summary.standard_errors
        cells = [
            f"{score.summary.values[name]:.4f}" + (f" ± {errors[name]:.4f}" if name in errors else "")
            for name in score.rule.scores
        ]
        table.add_row(score.tracker, *cells)
    console.print(table)
    for score in scores:
        if score.remarks:
            console.print(
                f"{score.tracker}: {len(score.remarks)} remark{'s' * (len(score.remarks) > 1)}", style="yellow"
            )
        for remark in score.remarks[:_REMARKS_SHOWN]:
            console.print(f"  {remark.kind}: {remark.sequence}: {remark.text}", soft_wrap=True)
        if len(score.remarks) > _REMARKS_SHOWN:
            console.print(f"  ... and {len(score.remarks) - _REMARKS_SHOWN} more, in the file of --json")


def submit(
    results: Path,
    *,
    benchmark: Literal["got10k", "trackingnet"],
    dataset: Path,
    output: Path,
) -> None:
    """Pack result files for a benchmark's server, checked.

    Args:
        results: One tracker's folder.
        benchmark: The server's benchmark.
        dataset: The root of the dataset: its test sequences are what the server expects.
        output: The zip to write.

    Raises:
        UserError: a sequence or a row is missing, or a file is broken; all of them are named.
    """
    from relo.evaluation.submissions import pack_submission

    count = pack_submission(results, benchmark, dataset, output)
    make_console().print(f"{output}: {count} sequences, ready for the server.")

"""How often a target that was gone is found again, with the plain rule and with lost-and-found.

    python benchmarks/refound.py MODEL --sequences data/occluded --rule lost_after=5 --rule lost_after=5,search_window=2

A case is an absence: at least `--absent` frames in a row on which the target cannot be seen, then at least `--seen`
frames in a row on which it can: what shows itself for a moment leaves no time to search. Cases count where all rules
were right (IoU above 0.5) on one of the last five frames before it, so that there was something to lose. "found" is
the share of cases in which a box is right within `--within` frames of those that follow; "frames" is how many that
took, of the cases found; "growth" is how much sqrt(w h) of the box grew at most during the absence, over what it was
on its first frame; "AUC" is the success AUC of all frames that show the target. Each rule is the model's own with some
settings changed; the first, "plain", has no lost-and-found.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray
from presence import add_sequence_options, open_tracker, track_all
from rich.table import Table
from tables import parser_of, print_table

from relo.errors import UserError
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import right_boxes, sequence_auc
from relo.tracking.rule import rule_from_settings

BEFORE = 5
"""Frames before an absence, on one of which the target must have been tracked."""

PLAIN: dict[str, Any] = {"lost_after": None, "template_update_presence": None}


def absences(visible: NDArray[np.bool_], least: int, seen: int) -> list[tuple[int, int]]:
    """The runs of at least `least` hidden frames before `seen` visible ones: their first frame, the one after them."""
    edges = np.diff(visible.astype(np.int8), prepend=1)
    runs = zip(np.flatnonzero(edges == -1).tolist(), np.flatnonzero(edges == 1).tolist(), strict=False)
    return [(a, b) for a, b in runs if a > 0 and b - a >= least and visible[b : b + seen].sum() == seen]


def outcome(result: SequenceResult, start: int, end: int, within: int) -> tuple[bool, float, float]:
    """Of an absence: whether the target was tracked before, frames until it was found again (or inf), and growth."""
    is_right = right_boxes(result)
    sides = np.sqrt(result.boxes_xywh[start:end, 2:].prod(-1))
    hits = np.flatnonzero(is_right[end : end + within])
    return (
        bool(is_right[max(start - BEFORE, 0) : start].any()),
        float(hits[0] + 1) if len(hits) else np.inf,
        float(sides.max() / sides[0]),
    )


def compare(options: argparse.Namespace) -> Table:
    """Track with every rule.

    Raises:
        UserError: the model, a rule or the sequences cannot be used.
    """
    rules = {"plain": PLAIN, **{text: settings(text) for text in options.rule}}
    results = {name: track_all(open_tracker(options, **changes), options) for name, changes in rules.items()}
    outcomes = {
        name: np.array(
            [
                outcome(result, start, end, options.within)
                for result in tracked
                for start, end in absences(result.sequence.visible, options.absent, options.seen)
            ]
        ).reshape(-1, 3)
        for name, tracked in results.items()
    }
    counts = np.stack([table[:, 0] for table in outcomes.values()]).all(0)
    if not counts.any():
        raise UserError(
            f"No absence of {options.absent} frames begins with a tracked target and ends with {options.seen} that "
            "show it: there is nothing to find."
        )
    title = f"{counts.sum()} of {len(counts)} absences of {options.absent} frames or more"
    table = Table("rule", "found (%)", "frames", "growth", "AUC (%)", title=title)
    for name, cases in outcomes.items():
        _, frames, growth = cases[counts].T
        found = np.isfinite(frames)
        error = 100 * np.sqrt(found.mean() * (1 - found.mean()) / len(found))
        auc = 100 * np.nanmean([sequence_auc(result) for result in results[name]])
        table.add_row(
            name,
            f"{100 * found.mean():.0f} ± {error:.0f}",
            f"{frames[found].mean():.1f}" if found.any() else "-",
            f"{growth.max():.2f}",
            f"{auc:.1f}",
        )
    return table


def settings(text: str) -> dict[str, Any]:
    """The settings of a rule that are written "name=value,name=value".

    Raises:
        UserError: text of another form, or a setting or value that does not exist.
    """
    pairs = [pair.partition("=") for pair in text.split(",")]
    values = {name.strip(): yaml.safe_load(value) for name, _, value in pairs}
    rule_from_settings(values, f"--rule {text}")
    return PLAIN | values


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    add_sequence_options(parser)
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="settings of a rule to compare; repeatable",
    )
    parser.add_argument("--absent", type=int, default=20, help="frames of the shortest absence")
    parser.add_argument("--seen", type=int, default=10, help="frames after it that must show the target")
    parser.add_argument("--within", type=int, default=30, help="frames in which to find the target")
    print_table(parser, arguments, compare)


if __name__ == "__main__":
    main()

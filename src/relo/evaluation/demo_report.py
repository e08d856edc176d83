"""The report of the demo: scores of policy and prior on held-out sequences, how they came about, and a video."""

import base64
import csv
import json
import platform
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from relo.console import make_console
from relo.data.clip_store import ClipStore
from relo.data.sequence_checks import require_every_box
from relo.data.sequences.parsing import numbers_in, read_json, read_text
from relo.errors import UserError, excerpt
from relo.evaluation.plots import success_plot
from relo.evaluation.report_page import ReportTable, html_figure, html_gallery, html_page
from relo.files import write_text
from relo.metrics.functional import success_thresholds
from relo.settings import check_number
from relo.tracking.render import draw_result
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter, fit_into

Scores = dict[str, Any]  # what `relo validate` writes as scores.json

# The sequences in the video and the film strips, by their place among the policy's AUCs.
_SHOWN_QUANTILES = {"a good sequence": 0.9, "a middling one": 0.5, "a bad one": 0.1}
_STRIP_FRAMES = 6
_LARGEST_LOG = 2**28  # bytes
_METRICS = {
    "auc": "success AUC",
    "precision": "precision (20 px)",
    "normalized_precision": "normalized precision (0.2)",
}
_LATEST = 1e11  # seconds since 1970
_RL_IOUS = {"train/best_iou": "best cell", "train/greedy_iou": "most probable cell", "train/iou": "sampled cell"}
# Title, stage, columns of its log with their labels, what the axis shows, and its scale.
_LOG_PLOTS = (
    ("Warm-up", "warmup", {"train/iou": "IoU at the target's cell"}, "IoU", "linear"),
    ("Warm-up", "warmup", {"train/prior_loss": "prior's loss"}, "focal loss", "log"),
    ("RL", "rl", _RL_IOUS, "IoU", "linear"),
    ("RL", "rl", {"train/entropy": "entropy of the policy"}, "nats", "linear"),
)


def write_report(
    folder: Path,
    *,
    sequences: Path = Path("data/demo/synthetic_test"),
    started: float | None = None,
) -> None:
    """Write the report of the demo's runs: report.html, scores.json and the video demo.mp4.

    Args:
        folder: where the demo ran; it holds warmup/warmup.ckpt, rl/rl.ckpt and rl/validation/scores.json.
        sequences: the clip store of the held-out sequences.
        started: when the demo started, in seconds since 1970, to report how long it took; left out if not given.

    Raises:
        UserError: a stage has not been run, its files are damaged, or sequences cannot be shown.
    """
    if started is not None:
        check_number("The report", 0, _LATEST, started=started)
    path = folder / "rl" / "validation" / "scores.json"
    scores = _read_scores(path)
    tracker = Tracker.from_pretrained(folder / "rl" / "rl.ckpt")
    store = ClipStore(sequences)
    lacking = [name for name in scores["per_sequence"]["policy"] if name.partition("/")[2] not in store.names]
    if lacking:
        raise UserError(f"{path} scores {excerpt(lacking[0])}, which is not in {sequences}: name their store.")
    strips = _render(tracker, store, scores, folder)
    seconds = None if started is None else round(time.time() - started)
    sections = {
        "Result": _result(scores, tracker.rule),
        "Success": html_figure(_success_figure(scores)) + html_figure(_scatter_figure(scores)),
        "Video": _video(folder / "demo.mp4"),
        "Frames": "".join(map(html_figure, strips)),
        "Learning": html_gallery(_log_figure(folder, *plot) for plot in _LOG_PLOTS),
        "How it was made": _provenance(scores, seconds),
        "Sequences": _sequence_table(scores).html(),
    }
    page = html_page("RELO demo: a tracker trained by reward", "", sections.items())
    write_text(folder / "report.html", page)
    write_text(folder / "scores.json", json.dumps({**scores, "seconds": seconds}, indent=2) + "\n")
    make_console(soft_wrap=True).print(f"The report is {folder / 'report.html'}, the video {folder / 'demo.mp4'}.")


def _read_scores(path: Path) -> Scores:
    try:
        scores: Scores = read_json(path)
    except UserError as error:
        raise UserError(
            f"The scores cannot be read ({str(error).rstrip('.')}): run `relo validate` on the demo's second stage."
        ) from error
    if not isinstance(scores, dict):
        raise UserError(f"{path} holds no scores: run `relo validate` on the demo's second stage.")
    missing = [key for key in ("policy", "prior", "per_sequence", "sequences") if key not in scores]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}: validate with both policy and prior.")
    try:
        _check_scores(scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} holds other things than scores ({excerpt(str(error))}): run `relo validate` on the demo's "
            "second stage again."
        ) from error
    return scores


def _check_scores(scores: Scores) -> None:
    """Refuse what is not of the form of scores.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not.
    """
    by_sequence = [scores["per_sequence"][name] for name in ("policy", "prior")]
    if not by_sequence[0] or by_sequence[0].keys() != by_sequence[1].keys():
        raise ValueError("policy and prior of other sequences")
    numbers = [numbers_in(list(each.values())) for each in by_sequence]
    for name in ("policy", "prior"):
        error = scores[name]["auc_standard_error"]
        numbers.append(numbers_in([*(scores[name][key] for key in _METRICS), 0 if error is None else error]))
        curve = numbers_in(scores[name]["success_curve"])
        if curve.shape != success_thresholds().shape:
            raise ValueError("a curve of another length")
        numbers.append(curve)
    if any(each.ndim != 1 for each in numbers) or not isinstance(scores["sequences"], int):
        raise ValueError("lists in place of numbers")


def _render(tracker: Tracker, store: ClipStore, scores: Scores, folder: Path) -> list[Figure]:
    """Track some sequences into one video, and give a film strip of each."""
    ranked = sorted(scores["per_sequence"]["policy"].items(), key=lambda item: item[1])
    shown = {}
    for title, quantile in _SHOWN_QUANTILES.items():
        name, auc = ranked[round(quantile * (len(ranked) - 1))]
        sequence = store[store.names.index(name.split("/", 1)[1])]
        require_every_box(sequence)
        if len(sequence) < 2:
            raise UserError(f"{excerpt(name)} has a single frame, so nothing is tracked: score longer sequences.")
        shown[title] = sequence, auc
    strips = []
    with VideoWriter(folder / "demo.mp4", 20) as video:
        for title, (sequence, auc) in shown.items():
            frames: list[NDArray[np.uint8]] = []
            images = (sequence.frames[i] for i in range(len(sequence)))
            for result in tracker.run(images, sequence.boxes_xywh[0], keep_response=True):
                truth_xywh = sequence.boxes_xywh[result.index] if sequence.visible[result.index] else None
                frames.append(draw_result(result, truth_xywh))
                video.write(frames[-1])
            height, width = frames[0].shape[:2]  # later frames may be of another size, as in the video
            picked = np.linspace(1, len(frames) - 1, _STRIP_FRAMES).astype(int)
            strip = np.concatenate([fit_into(frames[i], width, height) for i in picked], axis=1)
            strips.append(_strip_figure(f"{title}: {sequence.name}, AUC {100 * auc:.1f}", strip))
    return strips


def _result(scores: Scores, rule: TrackingRule) -> str:
    rows = []
    for name in ("policy", "prior"):
        auc, *others = (f"{100 * scores[name][metric]:.2f}" for metric in _METRICS)
        error = scores[name]["auc_standard_error"]  # None of a single sequence
        rows.append([name, auc if error is None else f"{auc} ± {100 * error:.2f}", *others])
    policy, prior = scores["per_sequence"]["policy"], scores["per_sequence"]["prior"]
    differences = np.array([policy[name] - prior[name] for name in policy])
    difference = f"{100 * differences.mean():+.2f}"
    verdict = "a single sequence says nothing of the next"
    if len(differences) > 1:
        error = differences.std(ddof=1) / len(differences) ** 0.5
        difference += f" ± {100 * error:.2f}"
        beyond = "differ" if abs(differences.mean()) > 2 * error else "do not differ"
        verdict = f"the two {beyond} by more than two standard errors"
    return (
        f"<p>One-pass evaluation (closed loop, no restarts) on {scores['sequences']} held-out synthetic sequences, "
        "whose textures occur nowhere in the training data; in percent, ± one standard error over sequences.</p>"
        f"{ReportTable(['localization', *_METRICS.values()], rows).html()}"
        f"<p>Policy minus prior: {difference} points of AUC, paired by sequence: {verdict}. Both localize on the same "
        "frozen network: same features, same boxes; only the map that picks the cell differs. Both are multiplied by "
        "the same window, a Hann window to the power of "
        f"{rule.window_exponent:g} (the policy's {rule.window}, the prior's scores). One training run of each; "
        "another seed gives other numbers.</p>"
    )


def _success_figure(scores: Scores) -> Figure:
    return success_plot({name: scores[name]["success_curve"] for name in ("policy", "prior")})


def _scatter_figure(scores: Scores) -> Figure:
    policy, prior = scores["per_sequence"]["policy"], scores["per_sequence"]["prior"]
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="AUC, prior", ylabel="AUC, policy", xlim=(0, 1), ylim=(0, 1), title="By sequence")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.scatter([prior[name] for name in policy], list(policy.values()), s=14, alpha=0.6)
    axes.set_aspect("equal")
    return figure


def _video(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        "<p>Red: the tracker's box, with its frame number and score. Green: the truth, where the target can be seen. "
        "Corner: the policy's map. The sequences are those at the 90th, 50th and 10th percentile of the policy's "
        f'AUC.</p><video controls muted loop src="data:video/mp4;base64,{data}" style="max-width:100%"></video>'
    )


def _strip_figure(caption: str, strip: NDArray[np.uint8]) -> Figure:
    figure = Figure(figsize=(10.5, 1.9), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(strip[::2, ::2])
    axes.set_title(caption, loc="left", fontsize=9)
    axes.set_axis_off()
    return figure


def _log_figure(folder: Path, title: str, stage: str, columns: Mapping[str, str], unit: str, scale: str) -> Figure:
    path = folder / stage / "log" / "metrics.csv"
    try:
        log: Sequence[Mapping[str, str]] = list(csv.DictReader(read_text(path, _LARGEST_LOG).splitlines()))
        points = {
            column: [(int(row["step"]), float(row[column])) for row in log if row.get(column)] for column in columns
        }
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The log {path} is no table of numbers by step ({excerpt(str(error))}); train again."
        ) from error
    figure = Figure(figsize=(4, 2.8), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=unit, title=title, yscale=scale)
    for column, label in columns.items():
        axes.plot(*zip(*points[column], strict=True), label=label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _provenance(scores: Scores, seconds: int | None) -> str:
    took = "" if seconds is None else f" Everything, installation included, took {seconds // 60} min {seconds % 60} s."
    return (
        "<p>Warm-up: encoder, boxes and prior learn from random weights. RL: policy and critic learn by actor-critic "
        "from the reward IoU + AUC, on sequences that the warm-up has not seen; the rest is frozen. "
        f"torch {escape(torch.__version__)}, {torch.get_num_threads()} threads, {escape(platform.platform())}.{took} "
        f"Made again by <code>make demo</code>; configs/demo holds every setting. Scores and every sequence's AUC are "
        f"in scores.json ({scores['sequences']} sequences).</p>"
    )


def _sequence_table(scores: Scores) -> ReportTable:
    policy, prior = scores["per_sequence"]["policy"], scores["per_sequence"]["prior"]
    rows = [
        [name, f"{100 * policy[name]:.1f}", f"{100 * prior[name]:.1f}", f"{100 * (policy[name] - prior[name]):+.1f}"]
        for name in sorted(policy, key=lambda name: policy[name])
    ]
    return ReportTable(["sequence (the policy's worst first)", "policy", "prior", "difference"], rows)

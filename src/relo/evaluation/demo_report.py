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
from rich.console import Console

from relo.data.clip_store import ClipStore
from relo.data.sequences.base import Sequence as TrackingSequence
from relo.errors import UserError
from relo.evaluation.plots import curve_plot
from relo.evaluation.report import html_figure, html_page
from relo.evaluation.report_tables import ReportTable
from relo.metrics.functional import success_thresholds
from relo.tracking.boxes_file import write_whole
from relo.tracking.render import draw_frame
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from relo.tracking.video import VideoWriter

Scores = dict[str, Any]

SHOWN_QUANTILES = {"a good sequence": 0.9, "a middling one": 0.5, "a bad one": 0.1}
"""The sequences in the video and the film strips, by their place among the policy's AUCs."""

STRIP_FRAMES = 6
METRICS = {
    "auc": "success AUC",
    "precision": "precision (20 px)",
    "normalized_precision": "normalized precision (0.2)",
}


def write_report(
    folder: Path,
    *,
    sequences: Path = Path("data/demo/synthetic_test"),
    started: float | None = None,
) -> None:
    """Write the report of the demo's runs: report.html, scores.json and the video demo.mp4 (and .webm for browsers).

    Args:
        folder: where the demo ran; it holds warmup/warmup.ckpt, rl/rl.ckpt and rl/validation/scores.json.
        sequences: the clip store of the held-out sequences.
        started: when the demo started, in seconds since 1970, to report how long it took; left out if not given.

    Raises:
        UserError: a stage has not been run, or its files are damaged.
    """
    scores = _read_scores(folder / "rl" / "validation" / "scores.json")
    tracker = Tracker.from_pretrained(folder / "rl" / "rl.ckpt")
    store = ClipStore(sequences)
    shown = _shown_sequences(store, scores)
    strips = _render(tracker, shown, folder)
    seconds = None if started is None else round(time.time() - started)
    body = _body(scores, tracker.rule, folder, strips, seconds)
    write_whole(folder / "report.html", html_page("RELO demo: a tracker trained by reward", body))
    content = {**scores, "seconds": seconds}
    write_whole(folder / "scores.json", json.dumps(content, indent=2) + "\n")
    Console().print(f"The report is {folder / 'report.html'}, the video {folder / 'demo.mp4'}.")


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, float]:
    """Mean and standard error of the differences of two trackers' scores over the same sequences."""
    differences = np.array([first[name] - second[name] for name in first])
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
    return float(differences.mean()), float(error)


def _read_scores(path: Path) -> Scores:
    try:
        scores: Scores = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): run `relo validate` on the demo's second stage.") from error
    missing = [key for key in ("policy", "prior", "per_sequence", "sequences") if key not in scores]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}: validate with both policy and prior.")
    return scores


def _shown_sequences(store: ClipStore, scores: Scores) -> dict[str, tuple[TrackingSequence, float]]:
    """Title -> sequence and the policy's AUC on it."""
    ranked = sorted(scores["per_sequence"]["policy"].items(), key=lambda item: item[1])
    shown = {}
    for title, quantile in SHOWN_QUANTILES.items():
        name, auc = ranked[round(quantile * (len(ranked) - 1))]
        shown[title] = (store[store.names.index(name.split("/", 1)[1])], auc)
    return shown


def _render(
    tracker: Tracker, shown: Mapping[str, tuple[TrackingSequence, float]], folder: Path
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Track the sequences into one video, and give a film strip [H, W, 3] of each with its caption."""
    strips = []
    with VideoWriter(folder / "demo.mp4", 20) as video, VideoWriter(folder / "demo.webm", 20) as web_video:
        for title, (sequence, auc) in shown.items():
            frames = []
            state = None
            for i in range(len(sequence)):
                image = sequence.frames[i]
                if state is None:
                    state = tracker.initialize([image], sequence.boxes_xywh[:1])[0]
                else:
                    state = tracker.step([image], [state], keep_response=True)[0]
                response = None if state.response is None else state.response.numpy()
                truth_xywh = sequence.boxes_xywh[i] if sequence.visible[i] else None
                caption = f"{i:3d}  {state.score:.2f}"
                frames.append(draw_frame(image, state.box_xywh.tolist(), caption, response, truth_xywh))
                for writer in (video, web_video):
                    writer.write(frames[-1])
            picked = np.linspace(1, len(frames) - 1, STRIP_FRAMES).astype(int)
            caption = f"{title}: {sequence.name}, AUC {100 * auc:.1f}"
            strips.append((caption, np.concatenate([frames[i] for i in picked], axis=1)))
    return strips


def _body(
    scores: Scores,
    rule: TrackingRule,
    folder: Path,
    strips: Sequence[tuple[str, NDArray[np.uint8]]],
    seconds: int | None,
) -> str:
    sections = [
        ("Result", _result(scores, rule)),
        ("Success", html_figure(_success_figure(scores)) + html_figure(_scatter_figure(scores))),
        ("Video", _video(folder / "demo.webm")),
        ("Frames", "".join(html_figure(_strip_figure(caption, strip)) for caption, strip in strips)),
        ("Learning", _learning(folder)),
        ("How it was made", _provenance(scores, seconds)),
        ("Sequences", _sequence_table(scores).html()),
    ]
    return "".join(f"<section><h2>{escape(title)}</h2>{html}</section>" for title, html in sections)


def _result(scores: Scores, rule: TrackingRule) -> str:
    rows = []
    for name in ("policy", "prior"):
        cells = [f"{100 * scores[name][metric]:.2f}" for metric in METRICS]
        cells[0] += f" ± {100 * scores[name]['auc_standard_error']:.2f}"
        rows.append([name, *cells])
    mean, error = paired_difference(scores["per_sequence"]["policy"], scores["per_sequence"]["prior"])
    verdict = "differ by more than" if abs(mean) > 2 * error else "do not differ by more than"
    return (
        f"<p>One-pass evaluation (closed loop, no restarts) on {scores['sequences']} held-out synthetic sequences, "
        "whose textures occur nowhere in the training data; in percent, ± one standard error over sequences.</p>"
        f"{ReportTable(['localization', *METRICS.values()], rows).html()}"
        f"<p>Policy minus prior: {100 * mean:+.2f} ± {100 * error:.2f} points of AUC, paired by sequence: the two "
        f"{verdict} two standard errors. Both localize on the same frozen network: same features, same boxes; only "
        "the map that picks the cell differs. Both are multiplied by the same window, a Hann window to the power of "
        f"{rule.window_exponent:g} (the policy's {rule.window}, the prior's scores). One training run of each; "
        "another seed gives other numbers.</p>"
    )


def _success_figure(scores: Scores) -> Figure:
    curves = {name: scores[name]["success_curve"] for name in ("policy", "prior")}
    areas = {name: scores[name]["auc"] for name in curves}
    return curve_plot("success", success_thresholds().tolist(), curves, areas, "Success")


def _scatter_figure(scores: Scores) -> Figure:
    per_sequence = scores["per_sequence"]
    names = list(per_sequence["policy"])
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="AUC, prior", ylabel="AUC, policy", xlim=(0, 1), ylim=(0, 1), title="By sequence")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    prior, policy = ([per_sequence[kind][name] for name in names] for kind in ("prior", "policy"))
    axes.scatter(prior, policy, s=14, alpha=0.6)
    axes.set_aspect("equal")
    return figure


def _video(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        "<p>Red: the tracker's box, with its frame number and score. Green: the truth, where the target can be seen. "
        "Corner: the policy's map. The sequences are those at the 90th, 50th and 10th percentile of the policy's "
        f'AUC.</p><video controls muted loop src="data:video/webm;base64,{data}" style="max-width:100%"></video>'
    )


def _strip_figure(caption: str, strip: NDArray[np.uint8]) -> Figure:
    figure = Figure(figsize=(10.5, 1.9), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(strip[::2, ::2])
    axes.set_title(caption, loc="left", fontsize=9)
    axes.set_axis_off()
    return figure


def _learning(folder: Path) -> str:
    warmup, reward = (_read_log(folder / stage / "log") for stage in ("warmup", "rl"))
    figures = [
        _log_figure("Warm-up", warmup, {"train/iou": "IoU at the target's cell"}, "IoU"),
        _log_figure("Warm-up", warmup, {"train/prior_loss": "prior's loss"}, "focal loss", log_scale=True),
        _log_figure(
            "RL",
            reward,
            {"train/best_iou": "best cell", "train/greedy_iou": "most probable cell", "train/iou": "sampled cell"},
            "IoU",
        ),
        _log_figure("RL", reward, {"train/entropy": "entropy of the policy"}, "nats"),
    ]
    return f'<div class="gallery">{"".join(map(html_figure, figures))}</div>'


def _read_log(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"The log {folder / 'metrics.csv'} cannot be read ({error.strerror}).") from error


def _log_figure(
    title: str, log: Sequence[Mapping[str, str]], columns: Mapping[str, str], unit: str, log_scale: bool = False
) -> Figure:
    figure = Figure(figsize=(4, 2.8), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=unit, title=title, yscale="log" if log_scale else "linear")
    for column, label in columns.items():
        points = [(int(row["step"]), float(row[column])) for row in log if row.get(column)]
        axes.plot(*zip(*points, strict=True), label=label)
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

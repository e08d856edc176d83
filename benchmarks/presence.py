"""How well presence, the critic and the softmax tell boxes that are right from those that are not, in tracking.

    python benchmarks/presence.py presence.ckpt --sequences data/composites_test --plot reliability.png
    python benchmarks/presence.py MODEL --sequences DIR --dataset plain --split test
    python benchmarks/presence.py MODEL --sequences data/composites_val --fit-filter --write-rule MODEL/tracking.yaml

A box is right where its IoU with the truth exceeds 0.5 and the target can be seen. All rows are of the same boxes,
those of the plain rule (without lost-and-found): "presence" is what a tracker says, which with `presence_stays` in its
rule is by all frames until then; "of single frames" is the presence head's; "critic" half the critic's value (the
reward of a frame is IoU + AUC, at most 2), cut to 0 .. 1; and "softmax" the probability of the chosen cell, which of a
prior is its score. `--fit-filter` gives the settings by which presence is the most likely on the sequences named, and
"presence" with them: to be fitted on validation. AUROC is the area under the receiver operating characteristic; its
standard error is that of sequences drawn with replacement. ECE is the expected calibration error in 15 bins.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import expit, logit
from tables import parser_of, print_table
from torch import Tensor
from torchmetrics.classification import BinaryAUROC

from relo.data.datamodule import SequenceDataset, SequenceSource
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import BINS, presence_scores, right_boxes
from relo.files import write_text
from relo.learning.presence import ODDS_EPSILON
from relo.models.checkpoints.weights import resolve
from relo.models.heads import Critic, Localization
from relo.models.presence import PresenceHead
from relo.progress import FrameRate, progress_bar
from relo.tracking.presence_filter import filtered_presence
from relo.tracking.rule import TrackingRule, own_rules
from relo.tracking.tracker import Tracker

RESAMPLES = 100


class CriticPresence(PresenceHead):
    """The critic as a presence head: half its value, of every cell."""

    def __init__(self, critic: Critic, localization: Localization) -> None:
        super().__init__(localization)
        self.critic = critic

    def cell_logits(self, features: Tensor, scores: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, S, S], the same everywhere."""
        value = self.critic(features).float() / 2
        return value.clamp(0, 1).logit(eps=ODDS_EPSILON)[:, None, None].expand_as(scores)


def add_sequence_options(parser: argparse.ArgumentParser) -> None:
    """Which sequences to track."""
    parser.add_argument("model", help="a model folder or checkpoint with a presence head")
    parser.add_argument("--sequences", required=True, nargs="+", help="clip stores, or roots of a dataset")
    parser.add_argument("--dataset", help="the roots' dataset, such as plain; none for a clip store")
    parser.add_argument("--split", help="a split of the dataset")
    parser.add_argument("--start", type=int, default=0, help="of each, the first sequence to use")
    parser.add_argument("--stop", type=int, help="the first not to use any more")
    parser.add_argument("--localization", choices=("policy", "prior"), help="the presence head's by default")
    parser.add_argument("--batch", type=int, default=8, help="sequences tracked side by side")


def open_tracker(options: argparse.Namespace, **settings: Any) -> Tracker:
    """The model's tracker, by the map that its presence head reads, with some settings of its rule changed.

    Raises:
        UserError: the model cannot be read or has no such presence head.
    """
    plain = Tracker.from_pretrained(options.model, localization=options.localization, engine="torch")
    if plain.network.presence is None:
        raise UserError(f"{options.model} has no presence head.")
    localization = options.localization or plain.network.presence.localization
    rule = replace(plain.rule, localization=localization, **settings)
    return Tracker(plain.network, rule, plain.device)


def track_all(tracker: Tracker, options: argparse.Namespace) -> list[SequenceResult]:
    """Track the sequences that the options name, in their order."""
    part = (options.dataset, options.split, options.start, options.stop)
    sequences = SequenceDataset([SequenceSource(path, *part) for path in options.sequences])
    members = [sequences[i] for i in range(len(sequences))]
    with progress_bar(Console(stderr=True), FrameRate()) as progress:
        task = progress.add_task("tracking", total=sum(map(len, members)))
        return run_one_pass(
            tracker, members, batch_size=options.batch, on_frames=lambda count: progress.advance(task, count)
        )


def of_frames(results: list[SequenceResult], values: str) -> list[Tensor]:
    """The `presence` or `scores` of each sequence's frames, but the given one."""
    return [torch.from_numpy(getattr(result, values)[1:]).float().clamp(0, 1) for result in results]


def filtered(rule: TrackingRule, frames: Tensor) -> Tensor:
    """What a tracker says by a rule [N], given what the presence head says of each frame alone [N]."""
    values: list[float] = []
    for found in frames.tolist():
        value = filtered_presence(rule, values[-1] if values else None, found)
        assert value is not None
        values.append(value)
    return torch.tensor(values)


def fit_filter(rule: TrackingRule, presence: list[Tensor], is_right: list[Tensor]) -> TrackingRule:
    """The rule with the filter's settings of maximal likelihood.

    Args:
        rule: whose settings are changed.
        presence: of each sequence's frames, each by itself [N].
        is_right: whether their boxes are right [N].
    """
    labels = torch.cat(is_right).double()

    def with_settings(values: NDArray[np.float64]) -> TrackingRule:
        stays, returns, evidence = expit(values).clip(0.01, 0.9999).tolist()
        numbers = {"presence_stays": stays, "presence_returns": min(returns, 0.99), "presence_evidence": evidence}
        return replace(rule, **{name: round(number, 4) for name, number in numbers.items()})

    def unlikelihood(values: NDArray[np.float64]) -> float:
        candidate = with_settings(values)
        predicted = torch.cat([filtered(candidate, frames) for frames in presence]).double()
        return float(torch.nn.functional.binary_cross_entropy(predicted, labels))

    return with_settings(minimize(unlikelihood, logit([0.95, 0.1, 0.35]), method="Nelder-Mead").x)


def compare(options: argparse.Namespace) -> Table:
    """Track, and hold what is said of the boxes against the truth.

    Raises:
        UserError: the model or the sequences cannot be used.
    """
    if options.write_rule is not None and not options.fit_filter:
        raise UserError("--write-rule writes what --fit-filter finds; give both.")
    tracker = open_tracker(options, lost_after=None, template_update_presence=None, presence_stays=None)
    rules = own_rules(resolve(options.model))
    results = track_all(tracker, options)
    is_right = [torch.from_numpy(right_boxes(result)[1:]) for result in results]
    labels = torch.cat(is_right)
    if labels.all() or not labels.any():
        raise UserError(
            f"All {len(labels)} boxes are {'right' if labels.any() else 'wrong'}: there is nothing to tell apart."
        )
    single = of_frames(results, "presence")
    if options.fit_filter:
        rules = replace(rules, rule=fit_filter(rules.rule, single, is_right))
        settings = rules.settings()
        Console().print("\n".join(f"{name}: {settings[name]}" for name in settings if name.startswith("presence_")))
        if options.write_rule is not None:
            write_text(options.write_rule, yaml.safe_dump(settings, sort_keys=False))
    predictions = {"presence": [filtered(rules.rule, frames) for frames in single], "of single frames": single}
    if tracker.network.critic is not None and not options.fit_filter:
        tracker.network.presence = CriticPresence(tracker.network.critic, tracker.rule.localization)
        predictions["critic"] = of_frames(track_all(tracker, options), "presence")
    predictions["softmax"] = of_frames(results, "scores")
    title = f"{len(labels):,} frames of {len(results)} sequences, {100 * labels.float().mean():.0f} % of boxes right"
    table = Table("", "AUROC", "minus the softmax's", "ECE", title=title)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(results), len(results)) for _ in range(RESAMPLES)]
    aurocs = {
        name: np.array([_auroc(values, is_right, draw) for draw in draws]) for name, values in predictions.items()
    }
    base = presence_scores(torch.cat(predictions["softmax"]), labels)["auroc"]
    for name, values in predictions.items():
        scores = presence_scores(torch.cat(values), labels)
        error, difference = np.nanstd(aurocs[name]), np.nanstd(aurocs[name] - aurocs["softmax"])
        table.add_row(
            name,
            f"{scores['auroc']:.3f} ± {error:.3f}",
            "" if name == "softmax" else f"{scores['auroc'] - base:+.3f} ± {difference:.3f}",
            f"{scores['calibration_error']:.3f}",
        )
    if options.plot is not None:
        reliability_plot(
            {name: (torch.cat(values), labels) for name, values in predictions.items()}, BINS, options.plot
        )
    return table


def _auroc(values: list[Tensor], is_right: list[Tensor], draw: np.ndarray) -> float:
    labels = torch.cat([is_right[i] for i in draw])
    if labels.all() or not labels.any():
        return float("nan")
    return float(BinaryAUROC(sync_on_compute=False)(torch.cat([values[i] for i in draw]), labels.long()))


def reliability_plot(predictions: Mapping[str, tuple[Tensor, Tensor]], bins: int, path: Path) -> None:
    """Draw how often events happen, over their predicted probability, and save the picture.

    A calibrated prediction's curve is the diagonal. Points are bins of equal width, the larger the more falls into
    them; empty ones have none.

    Args:
        predictions: probabilities [N] and whether the events happened [N], by name.
        bins: how many.
        path: of the picture; its ending names the format.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, (probabilities, happened) in predictions.items():
        index = (probabilities * bins).long().clamp(max=bins - 1)
        counts = index.bincount(minlength=bins)
        filled = counts > 0
        means, shares = (
            (index.bincount(values.double(), bins) / counts.clamp(min=1))[filled]
            for values in (probabilities, happened)
        )
        (line,) = axes.plot(means.tolist(), shares.tolist(), label=name)
        sizes = 4 + 120 * (counts[filled] / counts.sum()).sqrt()
        axes.scatter(means.tolist(), shares.tolist(), sizes.tolist(), color=line.get_color())
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    add_sequence_options(parser)
    parser.add_argument("--fit-filter", action="store_true", help="fit presence_stays, _returns and _evidence")
    parser.add_argument("--write-rule", type=Path, help="with --fit-filter: write the model's rule with them to a file")
    parser.add_argument("--plot", type=Path, help="draw the reliability curves here (.png, .svg, .pdf)")
    print_table(parser, arguments, compare)


if __name__ == "__main__":
    main()

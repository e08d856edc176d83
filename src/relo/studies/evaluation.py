"""A process that evaluates one checkpoint on some test sets: `python -m relo.studies.evaluation REQUEST.json`.

The request says what to do (see `relo.studies.steps.Evaluation.command`); the choice of the window and each test
set's scores are written as soon as they are complete.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import torch
from rich.console import Console

from relo.data.sequences import open_reader
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import sequence_auc
from relo.studies.oracle import OracleTracker, with_truth
from relo.tracking.boxes_file import write_whole
from relo.tracking.rule import TrackingRule, load_rule
from relo.tracking.tracker import Tracker


def evaluate(request: dict[str, Any]) -> None:
    """Choose the window, where the request has several; track every test set in one pass, and write the AUCs.

    Raises:
        UserError: the checkpoint, the rule or a test set cannot be used, or a sequence cannot be tracked.
    """
    cv2.setNumThreads(torch.get_num_threads())
    rule = None if request["rule"] is None else load_rule(Path(request["rule"]))
    tracker = _tracker(request, rule)
    if request["window"] is not None:
        exponent = request["window"]["chosen"]
        if exponent is None:
            exponent = _choose_window(request, tracker.rule)
        tracker = _tracker(request, replace(tracker.rule, window_exponent=exponent))
    for test in request["tests"]:
        results = _track(tracker, test, request)
        scores = _aucs(results)
        frames = sum(len(result.boxes_xywh) for result in results)
        content = {
            "digest": test["digest"],
            "localization": request["localization"],
            "window_exponent": tracker.rule.window_exponent,
            "auc_mean": sum(scores.values()) / len(scores),
            "frames": frames,
            "frames_per_second": round(frames / sum(float(result.seconds.sum()) for result in results), 1),
            "auc": scores,
        }
        write_whole(Path(test["output"]), json.dumps(content, indent=1) + "\n")


def _choose_window(request: dict[str, Any], rule: TrackingRule) -> float:
    """The exponent with the best AUC, the mean of the validation sets' own; of equal ones the first."""
    window = request["window"]
    means = {}
    for exponent in window["exponents"]:
        tracker = _tracker(request, replace(rule, window_exponent=exponent))
        of_sets = [_aucs(_track(tracker, source, request)).values() for source in window["validation"]]
        means[exponent] = mean(mean(aucs) for aucs in of_sets)
    chosen: float = max(means, key=means.__getitem__)
    content = {"digest": window["digest"], "window_exponent": chosen, "auc_by_exponent": means}
    write_whole(Path(window["output"]), json.dumps(content, indent=1) + "\n")
    return chosen


def _tracker(request: dict[str, Any], rule: TrackingRule | None) -> Tracker:
    """The checkpoint's tracker with a rule, or with its own."""
    checkpoint, precision, localization = (request[name] for name in ("checkpoint", "precision", "localization"))
    if localization == "oracle":  # it reads the network itself
        return OracleTracker.from_pretrained(checkpoint, rule, precision=precision, engine="torch")
    return Tracker.from_pretrained(checkpoint, rule, precision=precision, localization=localization)


def _track(tracker: Tracker, source: dict[str, str], request: dict[str, Any]) -> list[SequenceResult]:
    """One pass over some sequences, the longest first, so that the batch stays full to the end."""
    sequences = sorted(open_reader(source["dataset"], source["root"], source["split"]), key=len, reverse=True)
    if isinstance(tracker, OracleTracker):
        sequences = [with_truth(sequence) for sequence in sequences]
    return run_one_pass(tracker, sequences, batch_size=request["batch_size"], workers=torch.get_num_threads())


def _aucs(results: list[SequenceResult]) -> dict[str, float]:
    """The AUC of every sequence whose target can be seen, by name."""
    found = {result.name: sequence_auc(result) for result in results if result.sequence.visible.any()}
    return {name: round(auc, 6) for name, auc in sorted(found.items())}


if __name__ == "__main__":
    try:
        evaluate(json.loads(Path(sys.argv[1]).read_text()))
    except UserError as error:
        Console(soft_wrap=True).print(str(error), markup=False, highlight=False)
        sys.exit(2)

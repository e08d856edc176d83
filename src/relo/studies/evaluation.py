"""A process that evaluates a row with one seed: `python -m relo.studies.evaluation STUDY OUTPUT ROW SEED DIGEST`.

The choice of the window and each test set's scores are written as soon as they are complete.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import cv2
import torch

from relo.console import make_console
from relo.data.sequences import SequenceReader
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import sequence_auc
from relo.models.memory import enough_memory
from relo.processes import end_with_parent
from relo.studies.oracle import OracleTracker, with_truth
from relo.studies.plan import make_plan
from relo.studies.sequences import open_set
from relo.studies.steps import Evaluation
from relo.studies.study import read_study
from relo.tracking.rule import TrackingRule, read_rule_file
from relo.tracking.tracker import Tracker


def evaluate(evaluation: Evaluation) -> None:
    """Choose the window, where the study has several; track every test set in one pass, and write the AUCs.

    Raises:
        UserError: the checkpoint, the rule or a test set cannot be used, or a sequence cannot be tracked.
    """
    cv2.setNumThreads(torch.get_num_threads())
    study, output = evaluation.study, evaluation.output
    tracker = _tracker(evaluation, None if evaluation.rule is None else read_rule_file(evaluation.rule).rule)
    if study.evaluation.window_exponents and not isinstance(tracker, OracleTracker):
        exponent = evaluation.window.read().get("window_exponent")
        if exponent is None:
            exponent = _choose_window(evaluation, tracker.rule)
        tracker = _tracker(evaluation, replace(tracker.rule, window_exponent=exponent))
    for test in evaluation.missing():
        results = _track(tracker, open_set(study, output, "tests", test), study.evaluation.batch_size)
        scores = _aucs(results)
        frames = sum(len(result.boxes_xywh) for result in results)
        evaluation.scores(test).write(
            localization=study.rows[evaluation.row].localization,
            window_exponent=tracker.rule.window_exponent,
            auc_mean=sum(scores.values()) / len(scores),
            frames=frames,
            frames_per_second=round(frames / sum(float(result.seconds.sum()) for result in results), 1),
            auc=scores,
        )


def _choose_window(evaluation: Evaluation, rule: TrackingRule) -> float:
    """The exponent with the best AUC, the mean of the validation sets' own; of equal ones the first."""
    study, means = evaluation.study, {}
    for exponent in study.evaluation.window_exponents:
        tracker = _tracker(evaluation, replace(rule, window_exponent=exponent))
        readers = [open_set(study, evaluation.output, "validation", name) for name in study.validation]
        tracked = [_track(tracker, reader, study.evaluation.batch_size) for reader in readers]
        means[exponent] = mean(mean(_aucs(results).values()) for results in tracked)
    chosen = max(means, key=means.__getitem__)
    evaluation.window.write(window_exponent=chosen, auc_by_exponent=means)
    return chosen


def _tracker(evaluation: Evaluation, rule: TrackingRule | None) -> Tracker:
    """The checkpoint's tracker with a rule, or with its own."""
    checkpoint, precision = str(evaluation.training.checkpoint), evaluation.study.evaluation.precision
    localization = evaluation.study.rows[evaluation.row].localization
    if localization == "oracle":  # it reads the network itself
        return OracleTracker.from_pretrained(checkpoint, rule, precision=precision, engine="torch")
    return Tracker.from_pretrained(checkpoint, rule, precision=precision, localization=localization)


def _track(tracker: Tracker, reader: SequenceReader, batch_size: int) -> list[SequenceResult]:
    """One pass over some sequences, the longest first, so that the batch stays full to the end."""
    sequences = sorted(reader, key=len, reverse=True)
    if isinstance(tracker, OracleTracker):
        sequences = [with_truth(sequence) for sequence in sequences]
    return run_one_pass(tracker, sequences, batch_size=batch_size, workers=torch.get_num_threads())


def _aucs(results: list[SequenceResult]) -> dict[str, float]:
    """The AUC of every sequence whose target can be seen, by name."""
    found = {result.name: sequence_auc(result) for result in results if result.sequence.visible.any()}
    return {name: round(auc, 6) for name, auc in sorted(found.items())}


def main(study: str, output: str, row: str, seed: str, digest: str) -> None:
    """Carry out a step of a study.

    Raises:
        UserError: see `evaluate`; or the study, or a file that it names, has changed since the step was planned.
    """
    evaluation = make_plan(read_study(Path(study)), [int(seed)], Path(output)).get((row, int(seed)))
    if evaluation is None or evaluation.digest != digest:
        raise UserError(f"{study}, or a file that it names, has changed since this step was planned: run again.")
    evaluate(evaluation)


if __name__ == "__main__":
    end_with_parent()
    try:
        with enough_memory("lower evaluation.batch_size in the study, or --jobs"):
            main(*sys.argv[1:])
    except UserError as error:
        make_console(soft_wrap=True).print(str(error), highlight=False)
        sys.exit(2)

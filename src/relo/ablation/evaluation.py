"""A process that evaluates one checkpoint on some test sets: `python -m relo.ablation.evaluation REQUEST.json`.

The request says what to do (see `relo.ablation.steps.Evaluation.command`); a test set's scores are written as soon as
they are complete.
"""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.console import Console

from relo.ablation.oracle import OracleTracker, ReaderWithTruth
from relo.data.sequences import open_reader
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.run import ChosenSequences, longest_first
from relo.evaluation.sequence_auc import sequence_auc
from relo.tracking.boxes_file import write_whole
from relo.tracking.rule import load_rule
from relo.tracking.tracker import Tracker


def evaluate(request: dict[str, Any]) -> None:
    """Track the sequences of every test set in one pass, and write their AUCs.

    Raises:
        UserError: the checkpoint, the rule or a test set cannot be used, or a sequence cannot be tracked.
    """
    is_oracle = request["localization"] == "oracle"
    tracker = (OracleTracker if is_oracle else Tracker).from_pretrained(
        request["checkpoint"],
        None if request["rule"] is None else load_rule(Path(request["rule"])),
        precision=request["precision"],
        localization=None if is_oracle else request["localization"],
    )
    threads = torch.get_num_threads()
    cv2.setNumThreads(threads)
    for test in request["tests"]:
        reader = open_reader(test["dataset"], test["root"], test["split"])
        sequences = ReaderWithTruth(reader) if is_oracle else reader
        order, _ = longest_first(sequences)
        results = run_one_pass(
            tracker, ChosenSequences(sequences, order), batch_size=request["batch_size"], workers=threads
        )
        scores = {result.name: sequence_auc(result) for result in results if result.sequence.visible.any()}
        frames = sum(len(result.boxes_xywh) for result in results)
        content = {
            "digest": test["digest"],
            "localization": request["localization"],
            "auc_mean": sum(scores.values()) / len(scores),
            "frames": frames,
            "frames_per_second": round(frames / sum(float(result.seconds.sum()) for result in results), 1),
            "auc": {name: round(auc, 6) for name, auc in sorted(scores.items())},
        }
        write_whole(Path(test["output"]), json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    try:
        evaluate(json.loads(Path(sys.argv[1]).read_text()))
    except UserError as error:
        Console(soft_wrap=True).print(str(error), markup=False, highlight=False)
        sys.exit(2)

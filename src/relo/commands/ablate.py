"""`relo ablate`."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from relo.console import make_console
from relo.errors import UserError
from relo.files import reason
from relo.processes import POLL_SECONDS
from relo.studies.plan import Plan, chosen_rows, make_plan, steps_of
from relo.studies.report import write_results
from relo.studies.results import entries
from relo.studies.run import run_steps
from relo.studies.sequences import check_sequences, missing_sequences, render
from relo.studies.steps import Evaluation, Step, Training
from relo.studies.study import read_study

_PATIENCE = 3.0
"""Seconds in which what a killed `relo ablate` has started ends."""


def ablate(
    study: Path,
    *,
    output: Path | None = None,
    only: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: int = 1,
    threads: int | None = None,
    dry_run: bool = False,
) -> None:
    """Train and evaluate the rows of an ablation with several seeds, and compare them.

    Writes table.md, table.csv, results.json, report.html and plots. Where the study has validation sets, each row and
    seed chooses its tracking window on them. May be stopped or killed at any time: the same command goes on from there,
    and does nothing twice. A training whose settings have changed is begun again in another folder; changes of the code
    are not noticed.

    Args:
        study: the study, such as configs/studies/study.yaml or configs/studies/claim.yaml (two to four hours on
            two cores).
        output: the folder of data, trainings, scores and tables; runs/ablation/<the study's name> if not given.
        only: groups or rows; all of them if not given.
        seeds: the study's if not given.
        jobs: trainings and evaluations at once.
        threads: threads of each; the cores, shared evenly, if not given.
        dry_run: say what would be done.

    Raises:
        UserError: the study makes no sense, or steps failed: these are named, after all the others are done.
        KeyboardInterrupt: it was stopped; what was finished is kept.
    """
    if jobs < 1 or (threads is not None and threads < 1):
        raise UserError(f"Cannot work with --jobs {jobs} and --threads {threads}; both start at 1.")
    console = make_console()
    say = partial(console.print, highlight=False, soft_wrap=True)
    described = read_study(study)
    output = output or Path("runs/ablation") / study.stem
    if os.path.lexists(output) and not output.is_dir():
        raise UserError(f"{output} is not a folder; give --output one.")
    try:
        output.stat()
    except FileNotFoundError:
        pass  # it will be made
    except OSError as error:  # of a link to itself, or a file in the place of a folder
        raise _unusable(output, error) from error
    output = output.resolve()
    chosen = list(dict.fromkeys(seeds or described.seeds))
    whole = make_plan(described, sorted({*described.seeds, *chosen}), output)
    rows = chosen_rows(described, only or [])
    steps = steps_of({(row, seed): whole[row, seed] for seed in chosen for row in rows})
    check_sequences(described, output)
    missing = missing_sequences(described, output)
    ahead = [step for step in steps if not step.is_finished()]
    for line in _summary(steps, ahead, missing, whole):
        say(line)
    if dry_run:
        for line in [*(f"render {place}" for place in missing), *(step.name for step in ahead)]:
            say(line)
        return
    with _locked(output) as lock:
        threads = threads or max(1, (os.cpu_count() or 1) // jobs)
        render(described, output, missing, jobs * threads, console)
        failed: dict[Step, str] = {}
        try:
            failed = run_steps(steps, output, jobs=jobs, threads=threads, lock=lock, console=console)
        finally:
            if found := entries(described, whole, output):
                files = write_results(described, whole, found, output)
                say(f"Results: {', '.join(map(str, files))}")
    if failed:
        reasons = "; ".join(f"{step.name}: {reason}" for step, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(steps)} steps failed, the others are done. {reasons}")


def _summary(steps: Sequence[Step], ahead: Sequence[Step], missing: Sequence[str], whole: Plan) -> Iterator[str]:
    """How much there is to do, and what has changed since an earlier run."""
    trainings = [step for step in ahead if isinstance(step, Training)]
    evaluations = [step for step in ahead if isinstance(step, Evaluation)]
    yield (
        f"{len(steps)} steps, {len(steps) - len(ahead)} of them finished; ahead: {len(missing)} sets of sequences to "
        f"render, {len(trainings)} trainings, {len(evaluations)} evaluations."
    )
    planned = {step.folder.parent for step in steps_of(whole)}  # other rows' trainings of this name among them
    new = [step for step in trainings if not step.folder.parent.exists()]
    for label in dict.fromkeys(step.label for step in new if step.versions() - planned):
        yield f"The settings of {label} have changed: it is trained again, and the earlier training stays."
    if stale := list(dict.fromkeys(step.row for step in evaluations if step.is_stale())):
        yield f"Scores of other settings are written over: {', '.join(stale)}."


@contextmanager
def _locked(output: Path) -> Iterator[int]:
    """Keep others out of the results' folder; the lock is held until this process and those it started have ended."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise _unusable(output, error) from error
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _is_ours(descriptor):
            if time.monotonic() > deadline:
                raise UserError(
                    f"Another `relo ablate`, or a training that one has left behind, is at work in {output}: wait for "
                    "its end, stop it, or choose another --output."
                )
            time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _unusable(output: Path, error: OSError) -> UserError:
    return UserError(f"The results' folder {output} cannot be written ({reason(error)}).")


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

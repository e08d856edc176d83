"""Carries steps out: several processes at once, what is finished kept, and the rest done though one fails."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from relo.studies.steps import Step

_POLL_SECONDS = 0.1


def run_steps(
    steps: Sequence[Step], output: Path, *, jobs: int, threads: int, lock: int, console: Console
) -> dict[Step, str]:
    """Carry out the steps that are not finished.

    On Ctrl-C or SIGTERM the processes are asked to stop, so that they can save what they have, and waited for; at a
    second one they are killed.

    Args:
        steps: each after those that it needs.
        output: the results' folder, in which the processes run.
        jobs: processes at once.
        threads: threads of each.
        lock: a file descriptor that the processes keep open as long as they live.
        console: where to show what is going on.

    Returns:
        The steps that failed, or could not be begun as one before them had failed, each with the reason.

    Raises:
        KeyboardInterrupt: it was stopped; the processes have ended.
    """
    waiting = [step for step in steps if not step.is_finished()]
    finished = set(steps).difference(waiting)
    running: dict[Step, tuple[subprocess.Popen[bytes], float]] = {}  # with the time of their start
    failed: dict[Step, str] = {}
    with _progress(console) as progress, _interrupted_by_sigterm():
        bar = progress.add_task("", total=len(steps))
        try:
            while waiting or running:
                for step in list(waiting):
                    broken = next((need for need in step.needs if need in failed), None)
                    if broken is not None:
                        failed[step] = f"it needs {broken.name}"
                        waiting.remove(step)
                    elif len(running) < jobs and finished.issuperset(step.needs):
                        running[step] = (_start(step, output, threads, lock), time.monotonic())
                        waiting.remove(step)
                ended = {step: entry for step, entry in running.items() if entry[0].poll() is not None}
                for step, (process, started) in ended.items():
                    del running[step]
                    seconds = time.monotonic() - started
                    reason = _failure(step, process.returncode, seconds)
                    if reason is None:
                        finished.add(step)
                    else:
                        failed[step] = reason
                    outcome = "" if reason is None else "[red]failed:[/] "
                    console.print(f"{outcome}{step.name}: {_duration(seconds)}", highlight=False)
                now = time.monotonic()
                under_way = [f"{step.name}: {_duration(now - started)}" for step, (_, started) in running.items()]
                progress.update(bar, completed=len(finished) + len(failed), description="\n".join(under_way))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _stop([process for process, _ in running.values()])
            raise
    return failed


def _start(step: Step, output: Path, threads: int, lock: int) -> subprocess.Popen[bytes]:
    command = step.command()
    step.folder.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads), "OPENCV_FOR_THREADS_NUM": str(threads), "COLUMNS": "200"}
    with step.log.open("ab") as file:
        return subprocess.Popen(
            command,
            cwd=output,
            env={**os.environ, **limits},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which passes it on once
            pass_fds=(lock,),
        )


def _failure(step: Step, code: int, seconds: float) -> str | None:
    """Why a step whose process has ended is not finished."""
    if code == 0:
        step.finish(seconds)
        if step.is_finished():
            return None
    lines = [line.strip() for line in step.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    reason = next((line for line in reversed(lines) if line), "it said nothing").removeprefix("relo: error: ")
    if code < 0:
        reason = f"killed by {signal.Signals(-code).name}"
    return f"{reason} (see {step.log})"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    try:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Take SIGTERM, by which schedulers end jobs, as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(console: Console) -> Progress:
    """A bar over the steps with the time that is left if they go on as fast, and beside it those that are under way."""
    return Progress(
        TextColumn("steps"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        speed_estimate_period=float("inf"),  # steps take minutes
        console=console,
        transient=True,
    )


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"

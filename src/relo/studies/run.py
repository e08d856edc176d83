"""Carries steps out: several processes at once, what is finished kept, and the rest gone on with when one fails."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from relo.studies.steps import Step

_POLL_SECONDS = 0.1


@dataclass
class _Running:
    """A step under way."""

    step: Step
    process: "subprocess.Popen[bytes]"
    started: float
    task: TaskID


def run_steps(
    steps: Sequence[Step], output: Path, *, jobs: int, threads: int, lock: int, console: Console
) -> dict[Step, str]:
    """Carry out the steps that are not finished.

    On Ctrl-C or SIGTERM the processes are asked to stop, so that they can save what they have, and waited for; at a
    second one they are killed.

    Args:
        steps: each after those that it needs.
        output: the results' folder.
        jobs: processes at once.
        threads: threads of each.
        lock: a file descriptor that the processes keep open as long as they live.
        console: where to show what is going on.

    Returns:
        The steps that failed, or could not be begun as one before them had failed, each with the reason.

    Raises:
        KeyboardInterrupt: it was stopped; the processes have ended.
    """
    finished = {step for step in steps if step.is_finished(output)}
    waiting = [step for step in steps if step not in finished]
    failed: dict[Step, str] = {}
    running: list[_Running] = []
    with _progress(console) as progress, _interrupted_by_sigterm():
        overall = progress.add_task("steps", total=len(steps), completed=len(finished))
        try:
            while waiting or running:
                for step in list(waiting) if len(running) < jobs else ():
                    broken = next((need for need in step.needs if need in failed), None)
                    if broken is not None:
                        failed[step] = f"it needs {broken.name}"
                        waiting.remove(step)
                        progress.advance(overall)
                    elif len(running) < jobs and finished.issuperset(step.needs):
                        waiting.remove(step)
                        process = _start(step, output, threads, lock)
                        task = progress.add_task(step.name, total=None)
                        running.append(_Running(step, process, time.monotonic(), task))
                for member in [member for member in running if member.process.poll() is not None]:
                    running.remove(member)
                    reason = _end(member, output, console)
                    if reason is None:
                        finished.add(member.step)
                    else:
                        failed[member.step] = reason
                    progress.remove_task(member.task)
                    progress.advance(overall)
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _stop(running)
            raise
    return failed


class _Count(MofNCompleteColumn):
    """How many are done, where there are several."""

    def render(self, task: Task) -> Text:
        """The count."""
        return Text("") if task.total is None else super().render(task)


def _progress(console: Console) -> Progress:
    """A bar over the steps, with the time that is left if they go on as fast, and below it those that are under way."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        speed_estimate_period=float("inf"),  # steps take minutes
        console=console,
        transient=True,
    )


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


def _start(step: Step, output: Path, threads: int, lock: int) -> "subprocess.Popen[bytes]":
    command = step.command(output)
    log = step.log(output)
    log.parent.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads), "OPENCV_FOR_THREADS_NUM": str(threads), "COLUMNS": "200"}
    with log.open("ab") as file:
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


def _end(member: _Running, output: Path, console: Console) -> str | None:
    """Take note of a process that has ended; the reason if it failed."""
    seconds = time.monotonic() - member.started
    code = member.process.returncode
    if code == 0:
        member.step.finish(output, seconds)
        if member.step.is_finished(output):
            console.print(f"{member.step.name}: {_duration(seconds)}", highlight=False, markup=False)
            return None
    reason = _last_line(member.step.log(output))
    if code < 0:
        reason = f"killed by {signal.Signals(-code).name}"
    console.print(f"[red]failed:[/] {member.step.name}, after {_duration(seconds)}", highlight=False)
    return f"{reason} (see {member.step.log(output)})"


def _stop(running: Sequence[_Running]) -> None:
    try:
        for member in running:
            member.process.send_signal(signal.SIGINT)
        for member in running:
            member.process.wait()
    finally:
        for member in running:
            member.process.kill()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing").removeprefix("relo: error: ")


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"

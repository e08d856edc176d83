"""Carries steps out: several processes at once, what is finished kept, and the rest done though one fails."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from relo.errors import UserError
from relo.files import reason
from relo.processes import PARENT, exit_reason
from relo.progress import progress_bar
from relo.studies.steps import Step

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Running:
    """A step under way."""

    process: subprocess.Popen[bytes]
    started: float
    task: TaskID


def run_steps(
    steps: Sequence[Step], output: Path, *, jobs: int, threads: int, lock: int, console: Console
) -> dict[Step, str]:
    """Carry out the steps that are not finished.

    On Ctrl-C or SIGTERM the processes are asked to stop, so that they can save what they have, and waited for; at a
    second one they are killed. Where this process is killed, those of ours end with it.

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
    running: dict[Step, _Running] = {}
    failed: dict[Step, str] = {}
    # Steps take minutes: the time that is left is estimated from all of them.
    progress = progress_bar(console, transient=True, speed_estimate_period=float("inf"))
    # Schedulers end jobs by SIGTERM.
    on_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with progress:
        overall = progress.add_task("steps", total=len(steps))
        try:
            while waiting or running:
                for step in list(waiting):
                    broken = next((need for need in step.needs if need in failed), None)
                    if broken is not None:
                        waiting.remove(step)
                        failed[step] = f"it needs {broken.name}"
                    elif len(running) < jobs and finished.issuperset(step.needs):
                        waiting.remove(step)
                        try:
                            process = _start(step, output, threads, lock)
                        except (OSError, UserError) as error:  # of a full disk, or too many processes
                            failed[step] = f"it cannot be started ({_cause(error)})"
                            continue
                        running[step] = _Running(process, time.monotonic(), progress.add_task(step.name, total=None))
                for step in [step for step, member in running.items() if member.process.poll() is not None]:
                    member = running.pop(step)
                    seconds = time.monotonic() - member.started
                    progress.remove_task(member.task)
                    why = _failure(step, member.process.returncode, seconds)
                    if why is None:
                        finished.add(step)
                    else:
                        failed[step] = why
                    outcome = "" if why is None else "failed: "
                    time_taken = f"{int(seconds) // 60} min {int(seconds) % 60} s"
                    console.print(Text.assemble((outcome, "red"), f"{step.name}: {time_taken}"))
                progress.update(overall, completed=len(finished) + len(failed))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _stop([member.process for member in running.values()])
            raise
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
    return failed


def _start(step: Step, output: Path, threads: int, lock: int) -> subprocess.Popen[bytes]:
    command = step.command()
    step.folder.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads), "OPENCV_FOR_THREADS_NUM": str(threads), "COLUMNS": "200"}
    with step.log.open("ab") as file:
        return subprocess.Popen(
            command,
            cwd=output,
            env={**os.environ, **limits, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which passes it on once
            pass_fds=(lock,),
        )


def _failure(step: Step, code: int, seconds: float) -> str | None:
    """Why a step whose process has ended is not finished."""
    try:
        if code == 0:
            step.finish(seconds)
            if step.is_finished():
                return None
        lines = [line.strip() for line in step.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except (OSError, UserError) as error:
        return f"it has ended, but {_cause(error)}"
    said = next((line for line in reversed(lines) if line), "it said nothing").removeprefix("relo: error: ")
    if code < 0:
        said = exit_reason(code).removeprefix("was ")
    return f"{said} (see {step.log})"


def _cause(error: OSError | UserError) -> str:
    """What the system refuses, and of which file."""
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    return ": ".join(str(part) for part in (error.filename, reason(error)) if part is not None)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    try:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()

"""Ranks of a distributed run end together: where one ends before its time, the first says which, and why."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from rich.text import Text

from relo.console import make_console
from relo.errors import UserError
from relo.processes import PARENT, POLL_SECONDS, exit_reason, leave

_PATIENCE = 5.0
"""Seconds that the first rank waits for others to end on their own, and as many to end on its own."""

_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection was likely closed",
    "NCCL communicator was aborted",
    "remote process exited or there was a network error",
)


def watch_ranks(trainer: Trainer) -> None:
    """Let the ranks that a trainer starts as commands end together.

    Lightning's own launcher kills the first rank without a word, and leaves the others behind where that one is killed.
    """
    launcher = trainer.strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        places = launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        trainer.strategy._launcher = RankLauncher(*places)
        if not launcher.cluster_environment.creates_processes_externally:
            trainer._signal_connector._sigterm_notifier_fn = _end_by  # type: ignore[assignment]


def _end_by(number: int, _: FrameType | None) -> None:
    """End this rank, and the others with it; Lightning's own way waits in the handler for ranks that got no signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the other ranks of this node, and ends with them: none outlives the first, whatever happens to it."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the ranks, and do this one's part of the work.

        Raises:
            UserError: another rank has ended before its time, or its connection is lost.
        """
        is_first = not self.cluster_environment.creates_processes_externally
        if is_first:
            self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
            os.environ[PARENT] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[PARENT]
        is_over = threading.Event()
        threading.Thread(target=_watch, args=(self.procs, is_over), daemon=True, name="watch-ranks").start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            _wait(self.procs, _PATIENCE)
            if not is_lost_rank(error):
                raise
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else os.environ.get("RANK", 0)
            raise UserError(
                ended_rank(self.procs) or f"Rank {rank} stops, as another rank has ended, which may say why."
            ) from error
        else:
            for process in self.procs:
                process.wait()
            if (sentence := ended_rank(self.procs)) is not None:
                raise UserError(sentence)
            return result
        finally:
            is_over.set()
            self.kill(signal.SIGKILL)


def ended_rank(processes: Sequence[subprocess.Popen]) -> str | None:
    """A sentence about a rank that has failed, if one has; rather one that was killed than one that has given up.

    Args:
        processes: those of rank 1, 2 and so on of this node.
    """
    failed = [(process.poll() or 0, rank, process.pid) for rank, process in enumerate(processes, 1)]
    code, rank, number = min(failed, key=lambda found: (found[0] >= 0, found[0] == 0), default=(0, 0, 0))
    if code == 0:
        return None
    said = "" if code < 0 else ", and has said why"
    return f"Rank {rank} (process {number}) {exit_reason(code)}{said}; the other ranks were stopped with it."


def _wait(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    """Wait until all have ended, or one that was killed is known, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        if any((process.poll() or 0) < 0 for process in processes):
            return
        time.sleep(POLL_SECONDS / 5)


def _watch(processes: Sequence[subprocess.Popen], is_over: threading.Event) -> None:
    """End this process where another rank has failed and this one waits for it for ever."""
    while not is_over.wait(POLL_SECONDS):
        sentence = ended_rank(processes)
        if sentence is None:
            continue
        if is_over.wait(2 * _PATIENCE):
            return
        make_console(stderr=True, soft_wrap=True).print(Text.assemble(("relo: error:", "bold red"), f" {sentence}"))
        for process in processes:
            process.kill()
        leave(2)

"""The bar of long work: how much is done, at what rate, and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def progress_bar(console: Console, *columns: ProgressColumn, **settings: Any) -> Progress:
    """A bar whose `columns` stand between the count and the times; `settings` are those of `rich.progress.Progress`."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        **settings,
    )


@contextmanager
def sequence_progress(
    console: Console, described: str, total: int, done: int = 0
) -> Iterator[Callable[[int, int], None]]:
    """A bar over `total` sequences, `done` of them by an earlier run, while the console is a terminal.

    Yields:
        What to call when a sequence is done, with the number of its frames and of their bytes (0 leaves these out).
    """
    counted: dict[str, Any] = {"frames": 0, "bytes": 0}
    columns = TextColumn("sequences,"), FrameRate()
    with progress_bar(console, *columns, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(described, total=total, completed=done, **counted)

        def count(frames: int, size: int) -> None:
            counted["frames"] += frames
            counted["bytes"] += size
            bar.update(task, advance=1, **counted)

        yield count


class _Count(MofNCompleteColumn):
    """How many are done of how many, where that is known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class FrameRate(ProgressColumn):
    """Frames a second: what the task counts, or its field `frames`; and megabytes a second of its field `bytes`."""

    def render(self, task: Task) -> Text:
        """The rates, as far as they are known."""
        if "frames" not in task.fields:
            return Text("" if task.speed is None else f"{task.speed:.1f} frames/s", style="progress.data.speed")
        elapsed = task.elapsed or float("inf")
        rate = f"{task.fields['frames'] / elapsed:,.0f} frames/s"
        if size := task.fields.get("bytes"):
            rate += f", {size / elapsed / 1e6:,.1f} MB/s"
        return Text(rate, style="progress.data.speed")

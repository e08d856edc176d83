"""Sentences about data that a person should read, and that stop nothing."""

from collections.abc import Sequence

from rich.console import Console

_SHOWN = 20


def show(sentences: Sequence[str], console: Console) -> None:
    """Print each sentence in a line of its own; of many, the first and how many more there are."""
    for sentence in sentences[:_SHOWN]:
        console.print(f"- {sentence}", highlight=False, soft_wrap=True, markup=False)
    if len(sentences) > _SHOWN:
        console.print(f"... and {len(sentences) - _SHOWN} more.")

"""Where commands print."""

from typing import Any

from rich.console import Console


def make_console(**settings: Any) -> Console:
    """A console that prints names as they are: `[x]` is no markup, and `:x:` no emoji; what has a style is a `Text`.

    `settings` are those of `rich.console.Console`.
    """
    return Console(markup=False, emoji=False, **settings)

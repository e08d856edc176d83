"""Help texts: what a command's docstring lists comes from the table that knows it, and what stands behind an option."""

from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from jsonargparse import DefaultHelpFormatter

Function = TypeVar("Function", bound=Callable[..., Any])


def fill_help(**names: Iterable[str]) -> Callable[[Function], Function]:
    """Fill in `{key}` in a function's docstring, which is its command's help text, by lists of names."""

    def fill(function: Function) -> Function:
        for key, listed in names.items():
            function.__doc__ = (function.__doc__ or "").replace(f"{{{key}}}", ", ".join(listed))
        return function

    return fill


class HelpFormatter(DefaultHelpFormatter):
    """Names what is required, and defaults; the types of Python are nothing to a person at the command line."""

    def _get_help_string(self, action: Action) -> str:
        if action.required:
            return f"{action.help} (required)"
        unsaid = any(action.default is value for value in (None, False, SUPPRESS))
        if unsaid or action.dest == "help" or not action.option_strings:
            return action.help or ""
        return f"{action.help} (default: %(default)s)"

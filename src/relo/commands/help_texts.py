"""Names in help texts: what a command's docstring lists comes from the table that knows it."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def fill_help(**names: Iterable[str]) -> Callable[[Function], Function]:
    """Fill in `{key}` in a function's docstring, which is its command's help text, by lists of names."""

    def fill(function: Function) -> Function:
        for key, listed in names.items():
            function.__doc__ = (function.__doc__ or "").replace(f"{{{key}}}", ", ".join(listed))
        return function

    return fill

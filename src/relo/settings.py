"""What settings may be: their types and ranges, checked where a value enters."""

import types
from collections.abc import Collection, Mapping, Sequence, Set
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from relo.errors import UserError, excerpt

LARGEST = 1e12
"""No number of a setting is larger, on either side of 0, but for whole ones such as seeds: these have 63 bits."""

_LARGEST_WHOLE = 2**63 - 1

LARGEST_SIDE = 8192
"""Of a crop, in pixels."""

LARGEST_WIDTH = 16384
"""Channels of a layer."""

LARGEST_DEPTH = 512
"""Layers of a network."""


def check_whole(owner: str, least: int, most: int, **settings: object) -> None:
    """Refuse settings that are no whole numbers from `least` to `most`.

    Args:
        owner: what begins the sentence, such as "The encoder".
        least: the smallest number that is taken.
        most: the largest.
        settings: the values, by the names of the settings.

    Raises:
        UserError: one is something else.
    """
    for name, value in settings.items():
        if not is_of(value, int) or not least <= value <= most:  # type: ignore[operator]
            raise UserError(f"{owner} has {name} = {excerpt(value)}; it must be a whole number from {least} to {most}.")


def check_number(owner: str, least: float, most: float, **settings: object) -> None:
    """Refuse settings that are no finite numbers from `least` to `most`; arguments as of `check_whole`.

    Raises:
        UserError: one is something else.
    """
    for name, value in settings.items():
        if not is_of(value, float) or not least <= value <= most:  # type: ignore[operator]
            raise UserError(f"{owner} has {name} = {excerpt(value)}; it must be a number from {least:g} to {most:g}.")


def check_arguments(function: Any, arguments: Mapping[str, object], owner: str) -> None:
    """Refuse arguments that are not of the types that a function's or class's signature names.

    Raises:
        UserError: an argument is of another type.
    """
    called: Any = function
    if isinstance(function, type):
        called = function.__init__  # type: ignore[misc]
    try:
        hints = get_type_hints(called)
    except (NameError, TypeError):  # of names that a module imports for type checkers alone
        return
    for name in signature(called).parameters:
        if name in arguments and name in hints and not is_of(arguments[name], hints[name]):
            raise UserError(f"{owner} has {name} = {excerpt(arguments[name])}; it must be {described(hints[name])}.")


def is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: true is no number, and numbers are finite."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(is_of(value, alternative) for alternative in arguments)
    if hint in (int, float):
        is_number = isinstance(value, (int, Integral) if hint is int else (int, float, Real))
        return type(value) is not bool and is_number and abs(value) <= (_LARGEST_WHOLE if hint is int else LARGEST)
    if origin in (Sequence, Collection, list):
        kinds = (list, tuple, range, np.ndarray) + ((Set,) if origin is Collection else ())
        is_list = isinstance(value, kinds) and getattr(value, "ndim", 1) == 1
        return is_list and all(is_of(item, arguments[0]) for item in value)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def described(hint: Any) -> str:
    """An annotated type in words."""
    words = {
        bool: "true or false",
        int: "a whole number",
        float: f"a finite number up to {LARGEST:g}",
        str: "text",
        Path: "a path",
        types.NoneType: "null",
    }
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, arguments))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(described, arguments))
    if get_origin(hint) in (Sequence, Collection, list):
        return f"a list, each of it {described(arguments[0])}"
    return words.get(hint) or f"a {getattr(hint, '__name__', hint)}"

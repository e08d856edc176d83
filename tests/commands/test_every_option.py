"""Every option of every command arrives in its function as it was given."""

import functools
import importlib
import inspect
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from relo.commands.main import COMMANDS, Command, main

FUNCTIONS: dict[str, Command] = {
    f"{name} {inner}".strip(): command
    for name, entry in COMMANDS.items()
    for inner, command in (entry.items() if isinstance(entry, dict) else [("", entry)])
}


def example(kind: Any, default: Any) -> tuple[list[str], Any]:
    """Words of a command line for a type, and the value that they stand for; no default."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return example(next(each for each in arguments if each is not type(None)), default)
    if origin is list:
        words, value = example(arguments[0], None)
        return words * 2, [value] * 2
    if origin is Literal:
        choice = next(each for each in reversed(arguments) if each != default)
        return [str(choice)], choice
    if origin is dict:
        return ['{"camera": 2}'], {"camera": 2}
    if kind is bool:
        return [str(not default).lower()], not default
    value = {int: 3, float: 0.75, str: "word", Path: Path("a/b")}[kind]
    return [str(value)], value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_arrives(name, monkeypatch):
    module_name, _, function_name = FUNCTIONS[name][0].partition(":")
    module = importlib.import_module(module_name)
    function, calls = getattr(module, function_name), []

    @functools.wraps(function)
    def recorded(**settings):
        calls.append(settings)

    monkeypatch.setattr(module, function_name, recorded)
    hints, positional, options, expected = get_type_hints(function), [], [], {}
    for parameter in inspect.signature(function).parameters.values():
        words, expected[parameter.name] = example(hints[parameter.name], parameter.default)
        if parameter.kind is parameter.KEYWORD_ONLY:
            options += [f"--{parameter.name}", *words]
        else:
            positional += words
    main([*name.split(), *positional, *options])
    assert calls == [expected]

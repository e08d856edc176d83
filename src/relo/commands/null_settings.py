"""Settings that are null where a value belongs: the parser takes null for anything."""

from contextlib import suppress
from dataclasses import is_dataclass
from inspect import Parameter, signature
from pydoc import locate
from typing import Any, get_type_hints

from jsonargparse import Namespace

from relo.errors import UserError
from relo.settings import described, is_of


def require_values(settings: Namespace, kind: Any, place: str) -> None:
    """Refuse arguments of a class, and of classes that they name, that are null and must not be.

    Args:
        settings: the arguments, parsed.
        kind: the class.
        place: where in the config they are, such as "trainer".

    Raises:
        UserError: an argument is null; its place and what belongs there are named.
    """
    hints: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    with suppress(NameError, TypeError, ValueError):  # of names that a module imports for type checkers alone
        hints = get_type_hints(kind.__init__)
        defaults = {name: parameter.default for name, parameter in signature(kind).parameters.items()}
    for name, value in vars(settings).items():
        hint = hints.get(name, Any)
        if value is None and defaults.get(name) is not None and not is_of(None, hint):
            remedy = "" if defaults[name] is Parameter.empty else ", or leave it out"
            raise UserError(f"The config has {place}.{name}: null, where {described(hint)} belongs; give it{remedy}.")
        _look_into(value, hint, f"{place}.{name}")


def _look_into(value: Any, hint: Any, place: str) -> None:
    if isinstance(value, list):
        for number, item in enumerate(value):
            _look_into(item, Any, f"{place}.{number}")
    elif isinstance(value, Namespace):
        path, arguments = value.get("class_path"), value.get("init_args")
        if isinstance(path, str) and isinstance(arguments, Namespace):
            require_values(arguments, locate(path), f"{place}.init_args")
        elif path is None and is_dataclass(hint):
            require_values(value, hint, place)

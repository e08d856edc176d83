"""Parts that can be named in a config: `class_path` and `init_args`, resolved back to objects."""

import inspect
import os
import sys
from abc import ABC
from collections.abc import Collection
from importlib import import_module
from traceback import FrameSummary, extract_tb
from typing import Any

import numpy as np
from torch import nn

from relo.errors import EXCERPT, UserError, excerpt
from relo.settings import check_arguments

TRUST = "RELO_TRUST"
"""The environment variable that names modules whose classes a downloaded model may name; `trust` sets it."""


class Plugin(ABC):
    """Base of every part that a checkpoint must be able to name: it remembers the arguments it was built with."""

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Plugin":
        """Record the constructor's arguments by name (copy and unpickle restore them with the other attributes)."""
        instance = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(instance, *args, **kwargs)
        init_args = {name: value for name, value in bound.arguments.items() if name != "self"}
        object.__setattr__(instance, "_init_args", init_args)
        return instance

    def config(self) -> dict[str, Any]:
        """The `class_path` and `init_args` that build this part again, nested parts included, as plain data."""
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {name: _plain(value) for name, value in self._init_args.items()},
        }


class PluginModule(Plugin, nn.Module):
    """A `Plugin` that is a torch module."""


def _plain(value: Any) -> Any:
    if isinstance(value, Plugin):
        return value.config()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def build(config: dict[str, Any], named_by_user: bool = False) -> Any:
    """Build the part that `Plugin.config` described.

    A config may come with someone's weights. Its classes are those of `relo`, of modules that the program has imported
    by itself, and of modules that `trust` or the environment variable RELO_TRUST names (several with commas); no other
    module is imported. Nothing but subclasses of `Plugin` is called.

    Args:
        config: `class_path` and `init_args`.
        named_by_user: the person at the keyboard named the class: its module is trusted.

    Raises:
        UserError: the class is of a module that is not trusted, does not exist, is no plug-in, or does not take the
            arguments.
    """
    if not isinstance(config, dict) or not isinstance(init_args := config.get("init_args", {}), dict):
        raise UserError(f"The config names no class_path with init_args by name, but has {excerpt(config)}.")
    class_path = config.get("class_path", "")
    module_name, _, class_name = str(class_path).rpartition(".")
    if not (named_by_user or is_trusted(module_name)):
        top = module_name.partition(".")[0]
        raise UserError(
            f"The config names class {excerpt(str(class_path))}, whose code is not relo's and would be run: if "
            f"you know who wrote it, allow it with --trust {top[:EXCERPT] or 'its_module'} (in Python, with the "
            f"environment variable {TRUST})."
        )
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # of code that may be anyone's
        raise UserError(
            f"The config names class {excerpt(str(class_path))}, which cannot be imported: {import_fault(error)}."
        ) from error
    part = vars(module).get(class_name)  # a module's own `__getattr__` may import others
    if part is None:
        raise UserError(
            f"The config names class {excerpt(str(class_path))}, but there is none in the module {module_name}."
        )
    # Nothing but a plug-in may be called.
    if not (isinstance(part, type) and issubclass(part, Plugin)):
        raise UserError(f"The config names {class_path!r}, which is not a part of a network.")
    if any(getattr(getattr(part, name), "__isabstractmethod__", False) for name in dir(part)):
        raise UserError(f"The config names {class_path!r}, which is a kind of part: name one of its subclasses.")
    # What a part would begin its training from: another file, or the network; the weights come with the config.
    arguments = {str(name): _built(value) for name, value in init_args.items() if name != "pretrained"}
    check_arguments(part, arguments, f"{class_path} in the config")
    try:
        return part(**arguments)
    except TypeError as error:
        raise UserError(f"{class_path} does not take the arguments in the config: {error}.") from error


def import_fault(error: BaseException) -> str:
    """The kind of an error of a module that is imported, its message, and where in the module it is."""
    lines = [place for place in extract_tb(error.__traceback__) if not place.filename.startswith("<frozen importlib")]
    where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if any(map(_is_of_a_module, lines)) else ""
    return f"{type(error).__name__}: {excerpt(str(error))}{where}"


def is_of_an_import(error: BaseException) -> bool:
    """Whether an error that was caught was raised by a module while it was imported."""
    return isinstance(error, SyntaxError) or any(map(_is_of_a_module, extract_tb(error.__traceback__)))


def _is_of_a_module(place: FrameSummary) -> bool:
    return place.name == "<module>"


def trust(modules: Collection[str]) -> None:
    """Let configs that come with weights name classes of these modules, here and in processes started from here.

    Raises:
        UserError: a name is not a module's.
    """
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise UserError(f"{excerpt(module)} is no module that could be trusted; give a name such as my_module.")
    os.environ[TRUST] = ",".join(filter(None, (os.environ.get(TRUST), *modules)))


def is_trusted(module: str) -> bool:
    """Whether classes of a module may be named by a config that comes with weights; nothing is imported."""
    parts = module.split(".")
    allowed = [name.strip() for name in os.environ.get(TRUST, "").split(",")]
    if any(module == name or module.startswith(f"{name}.") for name in allowed if name):
        return True
    return module in sys.modules or (parts[0] == "relo" and not any(part.startswith("__") for part in parts))


def _built(value: Any) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return build(value)
    if isinstance(value, list):
        return [_built(item) for item in value]
    return value

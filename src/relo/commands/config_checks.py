"""What is wrong with a config of `relo fit | validate`, found before the parser, Lightning or the work would."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from pydoc import locate
from typing import Any, get_type_hints

from jsonargparse import Namespace

from relo.errors import UserError, excerpt
from relo.files import read_yaml
from relo.inputs import is_pipe_or_device
from relo.settings import LARGEST, check_number, check_whole, described, is_of

_MOST_DEVICES = 4096
_HALF_WEIGHTS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")


def check_config_files(arguments: list[str]) -> None:
    """Look at the files that arguments name before the parser does, whose messages leave out their names.

    Raises:
        UserError: a config cannot be read, or holds other than settings by name; or something is a pipe or a device.
    """
    _require_readable(argument.rpartition("=")[2] for argument in arguments)
    for path in _config_files(arguments):
        content = read_yaml(path, "The config")
        _require_readable(_words(content))
        if not isinstance(content, dict):
            raise UserError(f"The config {path} holds no settings by name, such as `trainer:`, `model:` and `data:`.")
        for part in ("trainer", "model", "data"):  # settings, or the name of a file that holds them
            if part in content and not isinstance(content[part], (dict, str)):
                found = excerpt(content[part])
                raise UserError(f"The config {path} has {part}: {found}, where settings by name belong.")


def _config_files(arguments: list[str]) -> Iterator[Path]:
    """The files that `--config FILE`, `--config=FILE` and `-c FILE` name."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        option, _, value = argument.partition("=")
        path = value or following
        if option in ("--config", "-c") and path is not None:
            yield Path(path)


def _words(content: Any) -> Iterator[str]:
    """All words among the values of a config."""
    if isinstance(content, str):
        yield content
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _words(value)


def _require_readable(words: Iterable[str]) -> None:
    """Refuse the name of what is no regular file: the parser opens what may hold settings, and would wait for a pipe.

    Raises:
        UserError: a word is such a name, or has a null character, which no name has.
    """
    for word in words:
        if "\0" in word:
            raise UserError(f"{excerpt(word)} has a null character: it is no name that a file can have.")
        with suppress(OSError, ValueError):
            if is_pipe_or_device(os.stat(word).st_mode):
                raise UserError(f"{excerpt(word)} is a pipe or a device: name a regular file.")


def check_trainer(settings: Any) -> None:
    """Refuse numbers that Lightning takes and fails on later.

    Raises:
        UserError: one is out of its range.
    """
    if type(settings.get("seed_everything")) is int:
        check_whole("The config", 0, 2**32 - 1, seed_everything=settings.seed_everything)
    trainer = settings.trainer
    leasts = {"accumulate_grad_batches": 1, "log_every_n_steps": 0, "check_val_every_n_epoch": 1}
    if type(trainer.get("val_check_interval")) is int:  # a number of batches; a fraction is a share of an epoch's
        leasts["val_check_interval"] = 1
    for name, least in leasts.items():
        if trainer.get(name) is not None:
            check_whole("The trainer", least, 2**31, **{name: trainer[name]})
    for name in ("devices", "num_nodes"):
        if type(trainer.get(name)) is int:
            check_whole("The trainer", -1, _MOST_DEVICES, **{name: trainer[name]})
    if trainer.get("limit_train_batches") == 0:
        raise UserError("trainer.limit_train_batches is 0: nothing would be trained.")
    if trainer.get("gradient_clip_val") is not None:
        check_number("The trainer", 0, LARGEST, gradient_clip_val=trainer.gradient_clip_val)
    if trainer.get("precision") in _HALF_WEIGHTS:
        raise UserError(
            f"trainer.precision is {trainer.precision}, but boxes and losses need weights in float32: "
            "set it to bf16-mixed or 16-mixed."
        )


def require_values(settings: Namespace, kind: Any, place: str) -> None:
    """Refuse arguments of a class, and of classes that they name, that are null and must not be: the parser takes them.

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

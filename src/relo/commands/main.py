"""The `relo` command: finds a command's function, and calls it with what the command line says."""

import errno
import importlib
import inspect
import os
import signal
import sys
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rich.text import Text

from relo.commands.arguments import NEGATIVE_NUMBER, regrouped
from relo.commands.process import set_defaults
from relo.console import make_console
from relo.errors import UserError, excerpt, one_sentence, printable
from relo.files import REFUSALS, reason
from relo.inputs import LONGEST_NAME
from relo.processes import SAID_WHEN_STOPPED, STOPPED, end_with_parent, raise_on_interrupt

Command = tuple[str, str]
"""Where a function is, and a sentence about it. Its signature and docstring are the command's options and help."""

LIGHTNING_COMMANDS: dict[str, Command] = {
    "fit": ("relo.commands.fit:run", "Train a network: a stage's config says which."),
    "validate": ("relo.commands.fit:run", "Track whole held-out sequences, and score policy and prior."),
}
"""These are handed the whole command line."""

COMMANDS: dict[str, dict[str, Command] | Command] = {
    "track": ("relo.commands.track:track", "Track a target in a video, a folder of frames or a camera."),
    "serve": ("relo.commands.serve:serve", "Serve a page to track videos in, on this machine."),
    "test": ("relo.commands.test:run_benchmark", "Track a whole benchmark, and leave result files."),
    "evaluate": ("relo.commands.evaluate:evaluate", "Score result files by a benchmark's own rule."),
    "submit": ("relo.commands.evaluate:submit", "Pack result files for a benchmark's server, checked."),
    "data": {
        "synthesize": ("relo.commands.data:synthesize", "Make synthetic sequences in a real dataset's layout."),
        "pack": ("relo.commands.data:pack", "Pack a dataset into a clip store (LMDB)."),
        "verify": ("relo.commands.data:verify", "Read back every record of a clip store."),
        "doctor": ("relo.commands.data:doctor", "Look at dataset folders and stores, and say what is missing."),
    },
    "import": ("relo.commands.import_released:import_released", "Turn a released checkpoint into a model folder."),
    "export": ("relo.commands.export:export", "Export a network to ONNX."),
    "ablate": ("relo.commands.ablate:ablate", "Train and evaluate the rows of an ablation, and compare them."),
    "report": ("relo.evaluation.demo_report:write_report", "Write the report of the demo's runs."),
}


_LONGEST_PATH = 4000  # bytes; Linux takes 4,095


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake prints one sentence and exits with code 2."""
    set_defaults()
    end_with_parent()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are no text
    try:
        folder = _working_folder()
        if folder not in sys.path:  # configs may name parts of the user's own, in a file beside them
            sys.path.append(folder)
        try:
            run(arguments)
        finally:
            if sys.stdout is not None:  # None: it was closed
                sys.stdout.flush()
    except UserError as error:
        _print_error(str(error))
        sys.exit(2)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _abandon(sys.stdout)  # whoever read it has read enough, as `head` does
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno in REFUSALS and error.filename is None:  # what has a name is refused by it
            _abandon(sys.stdout)
            _print_error(f"What is to be printed cannot be written ({reason(error)}).")
            sys.exit(2)
        # Of any look at a folder that may not be entered, or at a name that has become too long.
        expected = isinstance(error, PermissionError) or error.errno == errno.ENAMETOOLONG
        if not expected or not isinstance(error.filename, (str, bytes, os.PathLike)):
            raise
        name = printable(os.fsdecode(error.filename))
        quoted = name if error.errno != errno.ENAMETOOLONG else excerpt(name)
        _print_error(f"{quoted} cannot be opened ({reason(error)}).")
        sys.exit(2)
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        _print_error("No thread could be started: raise the limit of processes (`ulimit -u`), or end others.")
        sys.exit(2)
    except KeyboardInterrupt:
        make_console(stderr=True).print(SAID_WHEN_STOPPED)
        sys.exit(STOPPED)


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise UserError(
            f"The working folder cannot be used ({reason(error)}); it may have been removed: change to another."
        ) from error


def _abandon(stream: Any) -> None:
    """Forget what is still to be written to a stream that cannot be written: Python would try again at its end."""
    with suppress(OSError):  # it is not a file, but a test's
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(sentence: str) -> None:
    with suppress(OSError):  # of a full disk; the exit code says that there was one
        make_console(stderr=True, soft_wrap=True).print(Text.assemble(("relo: error:", "bold red"), f" {sentence}"))


def run(
    arguments: list[str],
    program: str = "relo",
    commands: Mapping[str, dict[str, Command] | Command] = LIGHTNING_COMMANDS | COMMANDS,
) -> None:
    """Find the command and run it.

    Args:
        arguments: the command line behind `program`.
        program: the command, or group of commands, that was named.
        commands: those to choose from.

    Raises:
        UserError: an unknown command or option, or a mistake that the command found.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_overview(program, commands)
        return
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        print(importlib.import_module("relo").__version__)
        return
    command = commands.get(name)
    if command is None:
        raise UserError(f"There is no command '{program} {name}'; there are {', '.join(commands)}.")
    if isinstance(command, dict):
        run(rest, f"{program} {name}", command)
        return
    module_name, _, function_name = command[0].partition(":")
    function = getattr(importlib.import_module(module_name), function_name)
    if name in LIGHTNING_COMMANDS:
        work = partial(function, arguments)
    else:
        work = partial(function, **_parse(f"{program} {name}", function, rest))
    raise_on_interrupt()
    work()


def _parse(program: str, function: Any, arguments: list[str]) -> dict[str, Any]:
    """A function's arguments from the command line that its signature and docstring describe.

    What may be given by position is positional. Lists take several values, at once or each behind a flag of its own,
    and a switch may stand without one.
    """
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    from relo.commands.help_texts import HelpFormatter

    documentation = parse(function.__doc__ or "")
    help_texts = {parameter.arg_name: parameter.description for parameter in documentation.params}
    parser: Any = ArgumentParser(
        prog=program, description=documentation.description, formatter_class=HelpFormatter, exit_on_error=False
    )
    parser._negative_number_matcher = NEGATIVE_NUMBER
    types = get_type_hints(function)
    lists, switches, positionals = [], [], 0
    for name, parameter in inspect.signature(function).parameters.items():
        kind = types[name]
        settings = {"type": kind, "help": help_texts.get(name)}
        if kind is bool:
            settings |= {"nargs": "?", "const": True}
        elif items := [candidate for candidate in (kind, *get_args(kind)) if get_origin(candidate) is list]:
            settings |= {"type": get_args(items[0])[0], "nargs": "+"}
        if parameter.default is not parameter.empty:
            settings["default"] = parameter.default
        elif parameter.kind is parameter.KEYWORD_ONLY:
            settings["required"] = True
        flag = f"--{name}" if parameter.kind is parameter.KEYWORD_ONLY else name
        parser.add_argument(flag, **settings)
        positionals += flag == name and "default" not in settings
        lists += [flag] if settings.get("nargs") == "+" else []
        switches += [flag] if settings.get("nargs") == "?" else []
    try:
        values: dict[str, Any] = parser.parse_args(regrouped(arguments, lists, switches, positionals)).as_dict()
    except ArgumentError as error:
        surplus = str(error).partition("nrecognized arguments: ")[2].split()
        if len(surplus) > 1 and all(map(os.path.isfile, surplus)):  # what a shell makes of a pattern
            raise UserError(
                f"{excerpt(surplus[0])} and {len(surplus) - 1} more files are one source too many: put a pattern such "
                f'as "*.png" in quotation marks (see `{program} --help`).'
            ) from error
        if "surrogates not allowed" in str(error):  # which stand for such bytes
            name = next((word for word in arguments if word.encode(errors="ignore").decode() != word), "")
            raise UserError(
                f"The name {excerpt(name)} has bytes that are no UTF-8; rename the file or folder."
            ) from error
        raise UserError(f"{one_sentence(str(error))} (see `{program} --help`)") from error
    except OverflowError as error:  # of an option that takes numbers with fractions
        number = excerpt(max(arguments, key=lambda word: sum(map(str.isdigit, word))))
        raise UserError(f"{number} is too large a number (see `{program} --help`).") from error
    _require_values(arguments)
    for name, value in values.items():
        _require_names(name, value)
    return values


def _require_values(arguments: Sequence[str]) -> None:
    """Refuse an empty value, which as a path would be the working folder."""
    option = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            option = name
        if not word or (word.startswith("--") and equals and not value):
            raise UserError(
                f"{f'Option {option}' if option else 'The command'} was given an empty value, as by a shell's variable "
                "that is not set; give one, or leave it out."
            )


def _require_names(setting: str, value: Any) -> None:
    """Refuse paths, and words that may be one, that no file can have."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, (str, Path)) and (
            "\0" in str(text)
            or len(os.fsencode(text)) > _LONGEST_PATH
            or any(len(os.fsencode(name)) > LONGEST_NAME for name in str(text).split(os.sep))
        ):
            raise UserError(
                f"Setting '{setting}': {excerpt(str(text))} is no name that a file can have: at most {LONGEST_NAME} "
                f"bytes between two separators, and {_LONGEST_PATH:,} in all."
            )


def _print_overview(program: str, commands: Mapping[str, dict[str, Command] | Command]) -> None:
    console = make_console()
    console.print(f"Usage: {program} COMMAND ...\n")
    width = max(map(len, commands)) + 2
    for name, command in commands.items():
        text = f"{', '.join(command)}: sequences and clip stores." if isinstance(command, dict) else command[1]
        console.print(Text.assemble("  ", (f"{name:<{width}}", "bold"), text))
    console.print(f"\n`{program} COMMAND --help` explains a command.", highlight=False)

"""The `relo` command: the Lightning CLI for training and validation, plain functions for everything else."""

import importlib
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any, NoReturn, get_args, get_origin

from rich.console import Console
from rich.text import Text

from relo.commands.process import set_defaults
from relo.errors import UserError, one_sentence

LIGHTNING_COMMANDS = {
    "fit": "Train a network: a stage's config says which.",
    "validate": "Track whole held-out sequences, and score policy and prior.",
}

# Each is a typed function; its signature and docstring are the command's options and help.
COMMANDS: dict[str, dict[str, tuple[str, str]] | tuple[str, str]] = {
    "track": ("relo.commands.track:track", "Track a target in a video, a folder of frames or a camera."),
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake prints one sentence and exits with code 2."""
    set_defaults()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are no text
    if os.getcwd() not in sys.path:  # configs may name parts of the user's own, in a file beside them
        sys.path.append(os.getcwd())
    try:
        run(arguments)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("relo: error:", "bold red"), f" {error}"))
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("relo: stopped; what was finished is kept.")
        sys.exit(128 + signal.SIGINT)


def run(arguments: list[str]) -> None:
    """Find the command and run it.

    Raises:
        UserError: an unknown command or option, or a mistake that the command found.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_overview()
        return
    if arguments[0] == "--version":
        print(importlib.import_module("relo").__version__)
        return
    name, rest = arguments[0], arguments[1:]
    if name in LIGHTNING_COMMANDS:
        importlib.import_module("relo.commands.fit").run(arguments)
        return
    command = COMMANDS.get(name)
    if command is None:
        known = ", ".join([*LIGHTNING_COMMANDS, *COMMANDS])
        raise UserError(f"There is no command {name!r}; the commands are {known}.")
    if isinstance(command, dict):
        if not rest or rest[0] in ("-h", "--help"):
            _print_table(f"relo {name}", {key: text for key, (_, text) in command.items()})
            return
        if rest[0] not in command:
            raise UserError(f"There is no command 'relo {name} {rest[0]}'; there are {', '.join(command)}.")
        name, command, rest = f"{name} {rest[0]}", command[rest[0]], rest[1:]
    _call(f"relo {name}", command[0], rest)


def _call(program: str, target: str, arguments: list[str]) -> None:
    """Call a function with the command line that its signature describes: positional arguments first, then options."""
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(f"{one_sentence(message)} (see `{program} --help`)")

    module_name, _, function_name = target.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module_name), function_name)
    parameters = inspect.signature(function).parameters.values()
    positional = {p.name for p in parameters if p.kind is not p.KEYWORD_ONLY}
    options = {p.name for p in parameters} - positional
    several = {p.name: item for p in parameters if (item := _item_type(p.annotation)) is not None}
    documentation = parse(function.__doc__ or "")
    help_texts = {parameter.arg_name: parameter.description for parameter in documentation.params}
    parser: Any = Parser(prog=program, description=documentation.description)
    # No option begins with a digit: "-5,30,30,30" is a value, as argparse by itself knows of "-5".
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    switches = {p.name: p.default for p in parameters if p.annotation is bool}
    own = several.keys() | switches.keys()
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=options | own, fail_untyped=True)
    for name, item in several.items():
        flag = name if name in positional else f"--{name}"
        parser.add_argument(flag, type=item, nargs="+", help=help_texts.get(name))
    parser.add_function_arguments(function, as_group=False, skip=positional | own, fail_untyped=True)
    for name, default in switches.items():
        parser.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=default, help=help_texts.get(name))
    values = parser.instantiate(parser.parse_args(arguments))
    function(**values.as_dict())


def _item_type(annotation: Any) -> Any:
    """The type of the items of a list, or of a list that may be left out; None for anything else."""
    lists = [candidate for candidate in (annotation, *get_args(annotation)) if get_origin(candidate) is list]
    return get_args(lists[0])[0] if lists else None


def _print_overview() -> None:
    described = LIGHTNING_COMMANDS | {
        name: command[1] if isinstance(command, tuple) else f"{', '.join(command)}: sequences and clip stores."
        for name, command in COMMANDS.items()
    }
    _print_table("relo", described)


def _print_table(program: str, described: dict[str, str]) -> None:
    console = Console()
    console.print(f"Usage: {program} COMMAND ...\n")
    width = max(map(len, described)) + 2
    for name, text in described.items():
        console.print(f"  [bold]{name:<{width}}[/]{text}", highlight=False)
    console.print(f"\n`{program} COMMAND --help` explains a command.", highlight=False)


if __name__ == "__main__":
    main()

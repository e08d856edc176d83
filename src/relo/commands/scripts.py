"""Scripts beside the package, such as those of `data_prep/`: a function as a command line of its own."""

import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser

from relo.errors import UserError


def run_script(function: Callable[..., None], description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Call a function with what the command line says; a mistake is one sentence and exit code 2."""
    parser = ArgumentParser(description=description)
    parser.add_function_arguments(function, as_group=False)
    try:
        function(**parser.parse_args(arguments).as_dict())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

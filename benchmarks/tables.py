"""What benchmarks that print one table share."""

import argparse
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from relo.errors import UserError


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring as it stands."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def print_table(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    tabulate: Callable[[argparse.Namespace], Table],
) -> None:
    """Print the table of what was asked for; a `UserError` ends as a mistake in the arguments does."""
    options = parser.parse_args(arguments)
    try:
        Console().print(tabulate(options))
    except UserError as error:
        parser.error(str(error))

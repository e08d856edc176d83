"""The benchmarks' own tables of sequences, carried with the package as CSV files whose first column is the name."""

import csv
from functools import cache
from importlib import resources
from pathlib import Path

from relo.data.sequences.parsing import read_text
from relo.errors import UserError


def read_table(name: str, override: Path | None = None) -> dict[str, dict[str, str]]:
    """The rows of table `name`, by sequence; or those of the file `override`, where it exists.

    Raises:
        UserError: `override` is not such a table.
    """
    if override is None or not override.exists():
        return _packaged(name)
    table = _rows(read_text(override))
    if table and (wanted := set(next(iter(_packaged(name).values())))) != set(next(iter(table.values()))):
        raise UserError(f"{override} needs the columns {', '.join(sorted(wanted))}.")
    return table


@cache
def _packaged(name: str) -> dict[str, dict[str, str]]:
    return _rows(resources.files("relo.data.sequences").joinpath("splits", name).read_text())


def _rows(text: str) -> dict[str, dict[str, str]]:
    return {next(iter(row.values())): row for row in csv.DictReader(text.splitlines())}

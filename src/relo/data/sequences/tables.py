"""The benchmarks' own tables of sequences, carried with the package as CSV files whose first column is the name."""

import csv
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from relo.data.sequences.parsing import NamedTwiceError, first_doubled, is_given, read_text
from relo.data.sequences.specification import Dataset
from relo.errors import EXCERPT, UserError, excerpt
from relo.inputs import can_be_a_name, leads_outside


def read_table(name: str, override: Path | None = None) -> dict[str, dict[str, str]]:
    """The rows of table `name`, by sequence; or those of the file `override`, where it exists.

    Raises:
        UserError: `override` is not such a table.
    """
    if override is None or not is_given(override):
        return _packaged(name)
    wanted = set(next(iter(_packaged(name).values())))
    try:
        table = _rows(read_text(override))
    except csv.Error as error:
        raise UserError(f"{override} is not a table of comma-separated columns ({error}).") from error
    except NamedTwiceError as error:
        raise UserError(f"{override} has {error}; keep one of them.") from error
    for sequence, row in table.items():
        if set(row) != wanted or None in row.values():
            raise UserError(f"{override} needs the columns {', '.join(sorted(wanted))}.")
        if any(map(leads_outside, row.values())):
            raise UserError(f"{override}: {excerpt(sequence)} leads out of the dataset's folder.")
        if not _is_range(row["first"], row["last"]):
            raise UserError(
                f"{override}: {sequence[:EXCERPT]} has no range of frames, but first {excerpt(row['first'])} and last "
                f"{excerpt(row['last'])}; frames are counted from 1."
            )
        for name in row.values():
            if not can_be_a_name(name):
                raise UserError(f"{override}: {excerpt(name)} is no name that a file can have.")
    return table


def frame_range(row: dict[str, str], every: int = 1) -> tuple[int, int | None]:
    """The numbers of the first and last frame in a table's row, where only each `every`-th frame is there and these
    are numbered from 1; None for a last frame that the row leaves open.
    """
    first, last = row["first"], row["last"]
    return (int(first) - 1) // every + 1, (int(last) - 1) // every + 1 if last else None


def table_row(dataset: Dataset, name: str) -> Mapping[str, str]:
    """A sequence's row in the packaged table of its dataset; empty where there is none."""
    return read_table(dataset.table).get(name, {}) if dataset.table else {}


def rows_before(dataset: Dataset, row: Mapping[str, str], rows: int) -> int:
    """How many of the `rows` of a sequence's annotation or result lie before the frames that count in its table's row.

    OTB scores some sequences from a later image on (Tiger1 from the 6th), but some files start at the first image.
    """
    last = row.get("last", "")
    return int(row["first"]) - 1 if dataset.counted_from_image_1 and last and int(last) == rows else 0


def _is_range(first: str, last: str) -> bool:
    """Whether these are frame numbers, from 1 on and in order, the last of which may be left open."""
    if not re.fullmatch(r"\d{1,18}", first) or not re.fullmatch(r"\d{0,18}", last):
        return False
    return int(first) >= 1 and (not last or int(first) <= int(last))


@cache
def _packaged(name: str) -> dict[str, dict[str, str]]:
    return _rows(resources.files("relo.data.sequences").joinpath("splits", name).read_text())


def _rows(text: str) -> dict[str, dict[str, str]]:
    table = csv.DictReader(line for line in text.splitlines() if line.strip())
    if (column := first_doubled(table.fieldnames or ())) is not None:
        raise NamedTwiceError(f"two columns named {excerpt(column)}")
    rows = [(next(iter(row.values())), row) for row in table]
    if (name := first_doubled(name for name, _ in rows)) is not None:
        raise NamedTwiceError(f"two rows named {excerpt(name)}")
    return dict(rows)

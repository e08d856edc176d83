"""YAML that is refused before it is read: what stands for far more than it says, and what people mean otherwise.

The latter, which YAML 1.1 reads all the same: a name given twice, octal numbers, and those of base 60.
"""

import math
import re
from dataclasses import dataclass, field

import yaml  # type: ignore[import-untyped]

from relo.errors import EXCERPT, excerpt

MOST_LEVELS = 100
"""Of values within values: YAML's reader takes time that grows with their square."""

MOST_DIGITS = 300
"""Of a whole number: larger ones are beyond floats."""

MOST_NODES = 100_000
"""Of values in a file, where each alias counts as all that it stands for."""

_BITS = {"x": 4, "o": 3, "b": 1}  # of a digit of numbers that begin with 0x, 0o or 0b
_WHOLE = re.compile(r"[-+]?(?:0([xob]))?([\da-f_]+)", re.IGNORECASE)
# 010 is 8, and 1:30 is 90.
_UNMEANT_NUMBER = re.compile(r"[-+]?(?:0[0-7_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)")
_MERGE = "<<"  # what it brings in may be given again


class AmbiguousYAML(yaml.MarkedYAMLError):  # type: ignore[misc]
    """It can be read, but not as a person would."""


@dataclass
class _Opened:
    """A collection whose end is still to come."""

    start: yaml.CollectionStartEvent
    before: int  # values in the file before it
    names: set[str] = field(default_factory=set)
    nodes: int = 0

    def take(self, event: yaml.NodeEvent) -> None:
        """Refuse a name that the mapping has already."""
        is_name = isinstance(self.start, yaml.MappingStartEvent) and self.nodes % 2 == 0
        self.nodes += 1
        if is_name and isinstance(event, yaml.ScalarEvent) and event.value != _MERGE:
            if event.value in self.names:
                problem = f"{excerpt(event.value)} is given twice; keep one of them"
                raise AmbiguousYAML(problem=problem, problem_mark=event.start_mark)
            self.names.add(event.value)


def refuse_traps(text: str) -> None:
    """Refuse YAML whose aliases stand for one another again and again, or that is too much, before memory is taken.

    Raises:
        AmbiguousYAML: a mapping has a name twice, or a number is written as few people read it.
        yaml.YAMLError: it has more values than are taken, or an alias within what it stands for.
    """
    sizes: dict[str, int] = {}  # values that an anchor stands for
    opened: list[_Opened] = []
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            sizes[ended.start.anchor] = count - ended.before
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.ScalarEvent):
            _check_number(event)
        if opened:
            opened[-1].take(event)
        if isinstance(event, yaml.AliasEvent):
            if any(collection.start.anchor == event.anchor for collection in opened):
                raise yaml.YAMLError(f"alias {event.anchor[:EXCERPT]} lies within what it stands for")
            count += sizes.get(event.anchor, 1)
        else:
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_Opened(event, count))
            else:
                sizes[event.anchor] = 1
            count += 1
        if len(opened) > MOST_LEVELS:
            raise yaml.YAMLError(f"its values lie within one another over {MOST_LEVELS} times")
        if count > MOST_NODES:
            raise yaml.YAMLError(f"it holds more than {MOST_NODES:,} values, aliases counted as what they stand for")


def _check_number(scalar: yaml.ScalarEvent) -> None:
    """Refuse a number that is not meant, or too long."""
    if scalar.implicit[0] and _UNMEANT_NUMBER.fullmatch(scalar.value):
        read, written = excerpt(yaml.safe_load(scalar.value)), excerpt(scalar.value)
        problem = f"{written[1:-1]} stands for the number {read}; write {read}, or {written} for a text"
        raise AmbiguousYAML(problem=problem, problem_mark=scalar.start_mark)
    if _digits(scalar) > MOST_DIGITS:
        raise yaml.YAMLError(f"it holds a number of over {MOST_DIGITS} digits")


def _digits(scalar: yaml.ScalarEvent) -> float:
    """How many decimal digits a whole number has, zeros at its beginning counted; 0 for anything else."""
    is_called_so = scalar.tag is not None and scalar.tag.endswith(":int")  # also in quotation marks, or of base 60
    if is_called_so and ":" in scalar.value:
        return len(scalar.value)
    number = _WHOLE.fullmatch(scalar.value) if is_called_so or scalar.style is None else None
    if number is None:
        return 0
    base, digits = (number[1] or "").lower(), number[2].replace("_", "")
    if base:
        return len(digits) * _BITS[base] * math.log10(2)
    return len(digits) if digits.isdecimal() else 0

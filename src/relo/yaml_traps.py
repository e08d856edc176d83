"""What YAML 1.1 reads otherwise than people mean it: a name given twice, octal numbers, and those of base 60."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import yaml  # type: ignore[import-untyped]

from relo.errors import excerpt

# 010 is 8, and 1:30 is 90.
_UNMEANT_NUMBER = re.compile(r"[-+]?(?:0[0-7_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)")
_MERGE = "<<"  # what it brings in may be given again


class AmbiguousYAML(yaml.MarkedYAMLError):  # type: ignore[misc]
    """It can be read, but not as a person would."""


@dataclass
class _Collection:
    is_mapping: bool
    names: set[str] = field(default_factory=set)
    nodes: int = 0


def without_traps(events: Iterable[yaml.Event]) -> Iterator[yaml.Event]:
    """The events of a YAML file as they are.

    Raises:
        AmbiguousYAML: a mapping has a name twice, or a number is written as few people read it.
    """
    opened: list[_Collection] = []
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
        elif isinstance(event, yaml.NodeEvent):
            is_plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            if is_plain and _UNMEANT_NUMBER.fullmatch(event.value):
                read, written = excerpt(yaml.safe_load(event.value)), excerpt(event.value)
                problem = f"{written[1:-1]} stands for the number {read}; write {read}, or {written} for a text"
                raise AmbiguousYAML(problem=problem, problem_mark=event.start_mark)
            if opened:
                _count(opened[-1], event)
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_Collection(isinstance(event, yaml.MappingStartEvent)))
        yield event


def _count(collection: _Collection, event: yaml.NodeEvent) -> None:
    is_name = collection.is_mapping and collection.nodes % 2 == 0
    collection.nodes += 1
    if is_name and isinstance(event, yaml.ScalarEvent) and event.value != _MERGE:
        if event.value in collection.names:
            problem = f"{excerpt(event.value)} is given twice; keep one of them"
            raise AmbiguousYAML(problem=problem, problem_mark=event.start_mark)
        collection.names.add(event.value)

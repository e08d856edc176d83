"""What exported graphs say of themselves, so that whoever has the two files can track with them alone."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from relo import __version__
from relo.errors import EXCERPT, UserError, excerpt
from relo.models.heads import Localization
from relo.models.network import HEADS, Head
from relo.settings import LARGEST, LARGEST_SIDE, check_whole

GraphKind = Literal["templates", "step"]
FILES: dict[GraphKind, str] = {"templates": "templates.onnx", "step": "step.onnx"}

ENTRY = "relo"
"""The name under which the metadata of an ONNX model hold ours, as JSON."""

MOST_TEMPLATES = 64
"""Of a target."""

MOST_TARGETS = 4096
"""Of a run, where their number is fixed."""

FORMAT = 1
"""The version of what is written: the metadata, and the meaning of the graphs' inputs and outputs."""


@dataclass(frozen=True)
class GraphMetadata:
    """The metadata that both graphs of a network share.

    Attributes:
        search_size, template_size: side of the crops, in pixels.
        map_size: cells on a side of the maps.
        templates: how many templates a target has.
        batch: how many targets a run has; None is any number.
        heads: those whose maps a step gives.
        presence_localization: the map that the presence head belongs to; None where there is no such head.
        parameters: how many numbers the network's weights are.
        weights: a hash of them.
        tracking: the settings of the network's tracking rule.
    """

    search_size: int
    template_size: int
    map_size: int
    templates: int
    batch: int | None
    heads: tuple[Head, ...]
    presence_localization: Localization | None
    parameters: int
    weights: str
    tracking: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what no export writes.

        Raises:
            UserError: a number is out of its range.
            ValueError: the others are of no network.
        """
        sizes = {name: getattr(self, name) for name in ("search_size", "template_size", "map_size")}
        check_whole("The export", 1, LARGEST_SIDE, **sizes)
        check_whole("The export", 1, MOST_TEMPLATES, templates=self.templates)
        if self.batch is not None:
            check_whole("The export", 1, MOST_TARGETS, batch=self.batch)
        check_whole("The export", 1, int(LARGEST), parameters=self.parameters)
        has_heads = {"policy", "box"} <= set(self.heads) <= set(HEADS)
        has_presence = self.presence_localization in (get_args(Localization) if "presence" in self.heads else (None,))
        if not (has_heads and has_presence and bytes.fromhex(self.weights) and isinstance(self.tracking, Mapping)):
            raise ValueError("settings that no export writes")

    def to_json(self, graph: GraphKind) -> str:
        """The entry of one of the graphs; it also says what a program without relo needs."""
        own = {"format": FORMAT, "version": __version__, "graph": graph}
        pixels = {"pixel_mean": IMAGENET_DEFAULT_MEAN, "pixel_deviation": IMAGENET_DEFAULT_STD}
        return json.dumps(own | pixels | asdict(self))


def graphs_in(folder: Path) -> list[str]:
    """The names of the exported graphs that a folder holds."""
    return [name for name in FILES.values() if os.path.isfile(folder / name)]


def read_metadata(entries: Mapping[str, str], path: Path) -> tuple[GraphKind, GraphMetadata]:
    """Which graph a file holds, and its metadata.

    Args:
        entries: the metadata of the ONNX model.
        path: the file, for errors.

    Raises:
        UserError: they are not ours, broken, or of another version.
    """
    if ENTRY not in entries:
        raise UserError(
            f"{path} does not say how to track with it, as graphs of `relo export` do: export the model with this "
            "version of relo."
        )
    try:
        entry = json.loads(entries[ENTRY])
        found = entry["format"]
        if found == FORMAT:
            graph: GraphKind = entry["graph"]
            FILES[graph]  # there are no others
            settings = {setting.name: entry[setting.name] for setting in fields(GraphMetadata)}
            return graph, GraphMetadata(**settings | {"heads": tuple(entry["heads"])})
    except (UserError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} has broken metadata ({excerpt(str(error))}): export the model again.") from error
    raise UserError(
        f"{path} is a graph of format {str(found)[:EXCERPT]}, and relo {__version__} reads format {FORMAT}: "
        "export the model with this version of relo, or take the version that wrote it."
    )

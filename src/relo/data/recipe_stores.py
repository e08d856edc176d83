"""The clip stores that the recipes name, and what to do where one is absent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.errors import UserError

RECIPE_STORES = {
    "lasot_train": ("lasot", "train"),
    "got10k_train": ("got10k", "vot-train"),
    "coco_train": ("coco", "train2017"),
    "trackingnet_train": ("trackingnet", "train"),
    "vasttrack_train": ("vasttrack", "train"),
    "got10k_val": ("got10k", "val"),
}
"""The stores of the configs' recipes, which `make data` leaves in `data` -> the dataset and its split."""


def require_stores(named: Mapping[str, Sequence[Any]]) -> None:
    """See to it that every clip store is there.

    Args:
        named: sources (dataclasses with a `path`; a `dataset` where that is no store), by the setting that lists them.
            The command cannot do without those of the first setting.

    Raises:
        UserError: some are absent; the sentence names them all, how to make them and how to do without.
    """
    stores = [s.path for sources in named.values() for s in sources if getattr(s, "dataset", None) is None]
    absent = [path for path in dict.fromkeys(stores) if not Path(path).exists()]
    if not absent:
        return
    present = {
        setting: [source for source in sources if source.path not in absent]
        for setting, sources in named.items()
        if any(source.path in absent for source in sources)
    }
    if present.get(next(iter(named))) == []:
        remedy = f"name others in {_enumerate(present, 'and')}"
    else:
        remedy = "do without by " + " ".join(f"--{name} '{_in_yaml(sources)}'" for name, sources in present.items())
    raise UserError(
        f"There is no clip store {_enumerate(absent, 'or')}: make what is absent with {_commands(absent)}, or {remedy}."
    )


def _commands(paths: Sequence[str]) -> str:
    """The commands that make the stores at some paths."""
    recipes = {Path("data", store): dataset for store, (dataset, _) in RECIPE_STORES.items()}
    made = dict.fromkeys(recipes[Path(path)] for path in paths if Path(path) in recipes)
    roots = " ".join(f"{dataset.upper()}=/path" for dataset in made)
    others = [f"`relo data pack DATASET ROOT {path}`" for path in paths if Path(path) not in recipes]
    return _enumerate([*([f"`make data {roots}`"] if roots else []), *others], "and")


def _in_yaml(sources: Sequence[Any]) -> str:
    """Sources as a config writes them, without what is as by default."""
    changed = [
        {field.name: value for field in fields(source) if (value := getattr(source, field.name)) != field.default}
        for source in sources
    ]
    return str(yaml.safe_dump(changed, default_flow_style=True, sort_keys=False, width=float("inf"))).strip()


def _enumerate(items: Iterable[str], last: str) -> str:
    *others, final = items
    return f"{', '.join(others)} {last} {final}" if others else final

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
    absent = list(dict.fromkeys(s.path for sources in named.values() for s in sources if _is_absent(s)))
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


def _is_absent(source: Any) -> bool:
    return getattr(source, "dataset", None) is None and not Path(source.path).exists()


def _commands(paths: Sequence[str]) -> str:
    """The commands that make the stores at some paths."""
    recipes = {path: RECIPE_STORES[Path(path).name][0] for path in paths if _is_of_a_recipe(path)}
    roots = " ".join(f"{dataset.upper()}=/path" for dataset in dict.fromkeys(recipes.values()))
    others = [f"`relo data pack DATASET ROOT {path}`" for path in paths if path not in recipes]
    return _enumerate([*([f"`make data {roots}`"] if roots else []), *others], "and")


def _is_of_a_recipe(path: str) -> bool:
    return Path(path).parent == Path("data") and Path(path).name in RECIPE_STORES


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

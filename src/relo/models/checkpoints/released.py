"""The variants of the public release: one file each holds the network, how it tracks, and what benchmarks change."""

from importlib.resources import files
from typing import Any, Literal, get_args

import yaml  # type: ignore[import-untyped]

from relo.errors import UserError

Variant = Literal["t256", "b256", "l256"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

FOLDER = files("relo.models") / "released"


def read_variant(variant: str) -> dict[str, Any]:
    """The file of a variant.

    Returns:
        `network`: its class_path and init_args; `tracking`: settings of a `TrackingRule`; `benchmarks`: what differs
        from those, by benchmark.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UserError(f"There is no variant {variant!r}; the release has {', '.join(VARIANTS)}.")
    contents: dict[str, Any] = yaml.safe_load((FOLDER / f"{variant}.yaml").read_text())
    return contents


def released_rule(variant: str) -> dict[str, Any]:
    """A variant's tracking settings, with those of benchmarks under `benchmarks`: a file of tracking settings.

    Raises:
        UserError: there is no such variant.
    """
    contents = read_variant(variant)
    return {**contents["tracking"], "benchmarks": contents["benchmarks"]}


def resolve_reference(contents: Any) -> Any:
    """Settings as read from YAML; for `released_network: b256` or `released_rule: b256` alone, those of the variant.

    Raises:
        UserError: there is no such variant.
    """
    if isinstance(contents, dict) and len(contents) == 1:
        for key, part in (("released_network", "network"), ("released_rule", "tracking")):
            if key in contents:
                return read_variant(contents[key])[part]
    return contents

"""YAML files that people hand in."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


def load_yaml(path: Path) -> Any:
    """The contents of a YAML file of plain data.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is no text.
        yaml.YAMLError: it is no YAML, also where a value (such as the date 2001-13-45) breaks YAML's own types.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return yaml.safe_load(text)
    except (ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error

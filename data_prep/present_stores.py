"""What `make weights` runs before a stage: write which of the stores that its config names are there.

Composites must be; of photo sets, those that are missing are left out, and named.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from get_photographs import listed
from rich.console import Console

from relo.commands.scripts import run_script
from relo.errors import UserError
from relo.files import read_yaml, write_text


def write_present(configs: list[Path], output: Path, stores: Path = Path("data")) -> None:
    """Write a config with the sources of data that are there, for `relo fit` behind the others.

    Args:
        configs: The stage's configs, a later one over those before it; their stores lie in `data`.
        output: The config to write.
        stores: The folder that the stores are really in.

    Raises:
        UserError: a config cannot be read, or a store is missing that is no photo set.
    """
    sources: dict[str, list[dict[str, Any]]] = {}
    for path in configs:
        data = read_yaml(path, "The config").get("data", {})
        sources |= {part: data[part] for part in ("train", "validation") if part in data}
    optional = {row["set"] for row in listed()}
    present: dict[str, list[dict[str, Any]]] = {part: [] for part in sources}
    missing = []
    for part, entries in sources.items():
        for entry in entries:
            store = stores / Path(entry["path"]).name
            if store.is_dir():
                present[part].append(entry | {"path": str(store)})
            elif store.name in optional:
                missing.append(store.name)
            else:
                raise UserError(f"There is no clip store {store}: run data_prep/make_composites.py first.")
    if missing:
        sentence = f"Trained without photo sets that are not in {stores}: {', '.join(dict.fromkeys(missing))}."
        Console(stderr=True).print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)
    write_text(output, yaml.safe_dump({"data": present}, sort_keys=False))


def main(arguments: list[str] | None = None) -> None:
    """Write the config; a mistake is one sentence and exit code 2."""
    run_script(write_present, __doc__, arguments)


if __name__ == "__main__":
    main()

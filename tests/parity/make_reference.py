"""Make `reference.npz`: what the public release computes from seeded weights, and the names and shapes of its tensors.

    python tests/parity/make_reference.py FOLDER

FOLDER holds `{t,b}256_s0.npz` (outputs of the release, recorded once) and `manifest_{t,b,l}256.json`. Of each
recorded array at most `KEPT` numbers are kept, evenly spaced in its flattened order; the test applies `subsample` to
its own outputs, too.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEPT = 256

VARIANTS = ("t256", "b256", "l256")


def subsample(values: NDArray) -> NDArray:
    flat = np.asarray(values).reshape(-1)
    return flat[np.unique(np.linspace(0, len(flat) - 1, KEPT).round().astype(int))]


def main(folder: Path) -> None:
    reference = {}
    for variant in VARIANTS:
        manifest = json.loads((folder / f"manifest_{variant}.json").read_text())
        lines = [f"{name} {'x'.join(map(str, shape))}".strip() for name, shape in sorted(manifest.items())]
        reference[f"{variant}.manifest"] = np.frombuffer("\n".join(lines).encode(), np.uint8)
        recorded = folder / f"{variant}_s0.npz"
        if recorded.exists():
            with np.load(recorded) as arrays:
                reference |= {f"{variant}.{key}": subsample(arrays[key]) for key in arrays.files}
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **reference)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

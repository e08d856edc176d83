"""Synthetic sequences: rendered targets with exact boxes, and writers that lay them out as the real datasets are.

`scene` plans and renders one sequence, out of `motion` (smooth curves) and a `material`, which makes the pictures:

- `procedural`: shapes and grounds that are drawn from the generator alone;
- `photographic`: photographs and cut-outs (`image_sources`), bent and turned (`flexible`), in other colours, through a
  poor camera (`degradation`).

`layouts` writes a sequence as a dataset does; `command` writes whole splits, several processes at a time.
"""

from relo.data.synthetic.scene import RenderedSequence, render_sequence
from relo.data.synthetic.settings import SceneSettings

__all__ = ["RenderedSequence", "SceneSettings", "render_sequence"]

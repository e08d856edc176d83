"""Synthetic sequences: rendered targets with exact boxes, and writers that lay them out as the real datasets are.

`scene` renders one sequence, out of `motion` (smooth curves) and `textures` (patterns, shapes, backgrounds); `layouts`
writes a sequence as a dataset does; `command` writes whole splits, several processes at a time.
"""

from relo.data.synthetic.scene import RenderedSequence, render_sequence
from relo.data.synthetic.settings import SceneSettings

__all__ = ["RenderedSequence", "SceneSettings", "render_sequence"]

"""The pictures of README and docs come from the commands below them."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from training_runs import relo_here

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / page).read_text(encoding="utf-8")
    for name, page in {"tracked": "README.md", "synthetic": "docs/data.md"}.items()
}
PICTURES = [
    picture for page in PAGES.values() for picture in re.findall(r'<img src="(?:docs/)?(\w+?)_(\d+)\.jpg"', page)
]


def commands_of(name):
    """The `relo` commands below a page's pictures, up to the next text."""
    below = PAGES[name][PAGES[name].rindex(f"{name}_") :]
    (block,) = re.findall(r"\n\n((?: {4}.*\n)+)", below)[:1]
    return re.findall(r"^ {4}relo (.*)", block, re.MULTILINE)


def test_every_picture_is_there():
    assert len(PICTURES) == 6
    assert all((ROOT / f"docs/{name}_{frame}.jpg").is_file() for name, frame in PICTURES)
    for page in PAGES.values():
        assert "](docs/" not in re.sub(r"\]\(docs/\w+\.md\)", "", page), "a picture without a command"


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_end_in_a_folder_of_frames(name):
    (output,) = re.findall(r"--render (\S+)/$", commands_of(name)[-1])
    assert f"`{output}/`" in PAGES[name]


def test_the_synthetic_sequence_is_drawn_and_tracked_as_shown(tmp_path, monkeypatch):
    for command in commands_of("synthetic"):
        relo_here(monkeypatch, *shlex.split(command), cwd=tmp_path)
    frames = [int(frame) for name, frame in PICTURES if name == "synthetic"]
    for frame in frames:
        stored, made = (
            cv2.imread(str(path))
            for path in (ROOT / f"docs/synthetic_{frame}.jpg", tmp_path / f"synthetic/{frame:08d}.jpg")
        )
        assert stored.shape == made.shape
        # Another processor's rounding may move a box by a pixel.
        assert np.abs(stored.astype(int) - made).mean() < 1

"""The Python of docs/tracking.md runs as printed."""

import re
from pathlib import Path

import numpy as np
import pytest

from relo.tracking.sources import open_frames
from relo.tracking.video_writer import VideoWriter

PAGE = Path(__file__).parents[2] / "docs/tracking.md"
FRAMES = 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (320, 400, 3), np.uint8)
    with VideoWriter(Path("video.mp4"), 25) as video:
        for index in range(FRAMES):
            video.write(np.roll(image, 2 * index, axis=1))
    return tmp_path


def test_the_code_runs_from_top_to_bottom(folder, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:FRAMES]] == [str(index) for index in range(FRAMES)]
    assert len(names["states"]) == 2
    assert len((folder / "boxes.jsonl").read_text().splitlines()) == FRAMES
    assert len(list(open_frames(folder / "out.mp4"))) == FRAMES
    assert isinstance(names["ok"], bool)

"""A small tracker and videos for the page."""

import tempfile
from pathlib import Path

import pytest
from moving_square import write_video

from relo.tracking.tracker import Tracker
from small_networks import make_network


@pytest.fixture
def video(tmp_path) -> Path:
    return write_video(tmp_path / "clip.avi")


@pytest.fixture
def make_small_app(tmp_path, monkeypatch):
    """Makes an app with a small network, whose files are in `tmp_path / "visitors"`."""
    pytest.importorskip("starlette")
    from relo.app.server import Limits, make_app
    from relo.app.shared_tracker import SharedTracker

    folder = tmp_path / "visitors"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def make(limits=None, names=("localhost", "127.0.0.1", "testserver"), rule=None):
        tracker = SharedTracker(Tracker(make_network(), rule))
        return make_app(tracker, "small", limits or Limits(), names)

    return make

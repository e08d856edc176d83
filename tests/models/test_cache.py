from pathlib import Path

import pytest

from relo.errors import UserError
from relo.models.checkpoints.cache import cache_folder
from relo.models.checkpoints.weights import load_network
from relo.tracking.engine import PACKAGED
from relo.tracking.engine import _graph_folders as graph_folders


@pytest.mark.parametrize(
    ("platform", "own", "folder"),
    [
        ("linux", {}, "/home/someone/.cache/relo"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/relo"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/someone/.cache/relo"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "/home/someone/Library/Caches/relo"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/relo"),
        ("win32", {"LOCALAPPDATA": "/local", "RELO_CACHE": "~/mine"}, "/home/someone/mine"),
    ],
)
def test_the_folder_is_where_the_platform_keeps_caches(monkeypatch, platform, own, folder):
    for name in ("RELO_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (own | {"HOME": "/home/someone"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert cache_folder() == Path(folder)


@pytest.mark.parametrize("own", ["", "~nobody-of-this-name/caches"])
def test_a_home_that_nobody_knows(monkeypatch, own):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("RELO_CACHE", own)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(UserError, match=r"no cache folder ~.*: set RELO_CACHE to a folder\."):
        load_network("relo-t256")
    assert graph_folders() == [PACKAGED], "graphs are made without one"

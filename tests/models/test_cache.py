from pathlib import Path

import pytest

from relo.models.checkpoints.cache import cache_folder


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

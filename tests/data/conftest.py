"""Clip stores of the fake sequences."""

from pathlib import Path

import pytest
from fake_sequences import FakeReader

from relo.data.clip_store import ClipStore, PackingOptions
from relo.data.packing import pack


@pytest.fixture
def reader(tmp_path: Path) -> FakeReader:
    return FakeReader(tmp_path / "fake")


@pytest.fixture
def store(reader: FakeReader, tmp_path: Path) -> ClipStore:
    return pack(reader, tmp_path / "store", split="train")


@pytest.fixture
def cut_store(reader: FakeReader, tmp_path: Path) -> ClipStore:
    return pack(reader, tmp_path / "cut", options=PackingOptions(cut=3.0, max_side=32, quality=95))

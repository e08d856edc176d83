"""Fixtures that several test files use."""

import itertools
import os
from pathlib import Path

import hypothesis
import pytest
import torch

import relo.models.checkpoints.released
from relo.data.clip_batch import ClipBatch
from relo.models.network import LocalizationNetwork
from small_networks import make_clip, make_network, write_small_release
from training_runs import Data, make_data

# What tracks a few frames is done before a step graph is exported; those who test the engines say so.
os.environ.setdefault("RELO_ENGINE", "torch")

# The same examples in every run, however busy the machine.
hypothesis.settings.register_profile("relo", deadline=None, derandomize=True)
hypothesis.settings.load_profile("relo")

# As the processes that tests start have: sums are then equal to the bit, and small tensors are faster.
torch.set_num_threads(1)


_FOLDERS = itertools.count()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name says nothing: messages name files, and pytest's own folders have the test's name.

    Nor was it another test's: pytest gives the number of a folder that is gone once more, and stores may still be open.
    """
    return tmp_path_factory.mktemp(f"t{next(_FOLDERS)}", numbered=False)


@pytest.fixture
def network() -> LocalizationNetwork:
    return make_network()


@pytest.fixture
def small_release(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the release's variants small enough to write in a test."""
    folder = tmp_path_factory.mktemp("released")
    write_small_release(folder)
    monkeypatch.setattr(relo.models.checkpoints.released, "FOLDER", folder)


@pytest.fixture
def clip() -> ClipBatch:
    return make_clip()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real annotations and videos, which is no part of the project."""
    folder = Path(os.environ.get("RELO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder with real data beside the project (RELO_SHARED)")
    return folder

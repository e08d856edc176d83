import shutil
from pathlib import Path

import pytest

from graph_files import BENCHMARKS, RULE, nano
from relo.models.export import export_onnx
from relo.tracking.rule import RuleFile


@pytest.fixture(scope="session")
def nano_graphs(tmp_path_factory) -> Path:
    """The graphs of `nano()`, for any number of targets."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(nano(), folder, templates=2, heads=("prior",), tracking=RuleFile(RULE, BENCHMARKS).settings())
    return folder


@pytest.fixture
def copied(nano_graphs, tmp_path) -> Path:
    return Path(shutil.copytree(nano_graphs, tmp_path / "graphs"))

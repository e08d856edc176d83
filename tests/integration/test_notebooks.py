"""The notebooks run from top to bottom, offline, and are stored with small pictures."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells_of(notebook, kind):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel: this interpreter, without a network, its temporary files in the test's folder."""
    pytest.importorskip("ipykernel")
    folder = tmp_path / "kernels/here"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "here", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    return "here"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, kernel, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(notebook, as_version=4)
    stored = [pictures(cell) for cell in cells.cells]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(cells, kernel_name=kernel, timeout=300, resources=resources).execute()
    assert [pictures(cell) for cell in cells.cells] == stored


def pictures(cell):
    """How many pictures a cell shows."""
    return sum("image/jpeg" in output.get("data", {}) for output in cell.get("outputs", []))


def test_there_are_the_notebooks():
    assert [path.stem[3:] for path in NOTEBOOKS] == [
        "data_and_clips",
        "reward_and_policy_maps",
        "track_a_video",
        "score_your_tracker",
    ]


def test_they_are_stored_with_their_outputs_and_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1.5e6
    for notebook in NOTEBOOKS:
        code = cells_of(notebook, "code")
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
        assert sum(map(pictures, code)) >= 2
        kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
        assert "error" not in kinds


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_their_links_lead_somewhere(notebook):
    text = "".join("".join(cell["source"]) for cell in cells_of(notebook, "markdown"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links
    assert all((notebook.parent / link).is_file() for link in links)

"""The network that comes with the package: what it is, how it tracks, and that an installed wheel has it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import relo
import relo.models.export as relo_export
from relo.data.sequences import Sequence
from relo.data.sequences.parsing import read_boxes
from relo.data.synthetic import render_sequence
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.sequence_scores import sequence_auc
from relo.models.checkpoints.weights import SHIPPED_FOLDER

REPOSITORY = Path(__file__).parents[2]
CARD = REPOSITORY / "docs/model_card.md"

LARGEST_SIZE = 16_000_000  # bytes
LEAST_AUC = 0.75

BUILD_SOURCES = "import os, sys, setuptools.build_meta as b; os.chdir(sys.argv[1]); b.build_sdist(sys.argv[2])"


@pytest.fixture(scope="module")
def composites():
    """Sequences of the test split, whose textures no training has seen."""
    names = [f"held-out-{number}" for number in range(8)]
    rendered = [render_sequence(name, frames=30, seed=14, split="test") for name in names]
    return [
        Sequence(name, "synthetic", composite.frames, composite.boxes_xywh, composite.visible)
        for name, composite in zip(names, rendered, strict=True)
    ]


def test_the_weights_are_those_of_the_model_card():
    weights = SHIPPED_FOLDER / "model.safetensors"
    assert weights.stat().st_size <= LARGEST_SIZE
    (told,) = re.findall(r"sha256[^\n]*`([0-9a-f]{64})`", CARD.read_text())
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == told


@pytest.mark.parametrize("page", [CARD, REPOSITORY / "README.md"], ids=["card", "README"])
def test_no_number_is_left_to_be_filled_in(page):
    assert "TBD" not in page.read_text()


def test_it_needs_nothing_but_its_folder():
    assert sorted(path.name for path in SHIPPED_FOLDER.iterdir()) == [
        "config.yaml",
        "model.safetensors",
        "tracking.yaml",
    ]
    encoder = yaml.safe_load((SHIPPED_FOLDER / "config.yaml").read_text())["init_args"]["encoder"]
    assert encoder["init_args"].get("pretrained") is None


def test_it_tracks_held_out_composites(composites):
    results = run_one_pass(relo.Tracker.from_pretrained(device="cpu"), composites)
    assert np.mean([sequence_auc(result) for result in results]) >= LEAST_AUC


@pytest.mark.parametrize("localization", ["policy", "prior"])
def test_its_graphs_come_with_the_package(localization, tmp_path, monkeypatch):
    monkeypatch.delenv("RELO_ENGINE", raising=False)
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    monkeypatch.setattr(relo_export, "find_spec", lambda name: None)  # no package to make a graph with
    assert relo.Tracker.from_pretrained(device="cpu", localization=localization).engine == "onnxruntime"


@pytest.mark.slow
def test_a_wheel_from_the_source_archive_tracks_a_video_outside_the_checkout(composites, tmp_path):
    source, installed, elsewhere = (tmp_path / name for name in ("source", "installed", "elsewhere"))
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-APACHE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    frames = elsewhere / "frames"
    frames.mkdir(parents=True)
    for number, image in enumerate(composites[0].frames):
        cv2.imwrite(str(frames / f"{number}.png"), image[..., ::-1])

    def python(*words: object) -> str:
        environment = os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        ).stdout

    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    python("-c", BUILD_SOURCES, source, tmp_path)
    (sources,) = tmp_path.glob("relo-*.tar.gz")
    python("-m", "pip", "wheel", "--no-build-isolation", *offline, "--wheel-dir", tmp_path, sources)
    (wheel,) = tmp_path.glob("relo-*.whl")
    python("-m", "pip", "install", *offline, "--target", installed, wheel)
    assert Path(python("-c", "import relo; print(relo.__file__)").strip()).is_relative_to(installed)
    box = ",".join(f"{value:g}" for value in composites[0].boxes_xywh[0])
    python("-m", "relo", "track", "frames", "--box", box, "--device", "cpu", "--save", "boxes.txt")
    (here,) = run_one_pass(relo.Tracker.from_pretrained(device="cpu"), composites[:1])
    np.testing.assert_allclose(read_boxes(elsewhere / "boxes.txt"), here.boxes_xywh, atol=0.02)

"""A disk that fills up: one sentence, nothing half-written under its name, and the work goes on when there is room."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch

from full_disk import mounted_disk
from relo.commands.main import main
from relo.data.clip_store import ClipStore
from relo.data.packing import verify
from relo.data.store_environment import close_environments, forget_environment
from relo.data.synthetic.layouts import LayoutWriter
from relo.errors import UserError
from relo.evaluation.plots import save_png, success_plot
from relo.evaluation.submissions import _write_zip
from relo.files import machine, write_text
from relo.models.checkpoints.weights import save_network
from relo.training.checkpoints import InertCheckpointIO
from small_networks import make_network
from training_runs import WARMUP, config, relo_here, write_config

FULL = "the disk is full"


@contextmanager
def small_disk(folder: Path, size: int):
    """A file system of this size at a folder."""
    with mounted_disk(folder, size):
        try:
            yield folder
        finally:
            close_environments()


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB."""
    with small_disk(tmp_path / "disk", 64 * 1024) as folder:
        yield folder


def fill(folder: Path, left: int = 0) -> Path:
    """Fill a disk up but for some bytes, by the file that is returned."""
    file = folder / "filler"
    state = os.statvfs(folder)
    file.write_bytes(bytes(state.f_bavail * state.f_frsize - left))
    return file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(*arguments: object, capsys) -> str:
    """What a command says that ends with exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


# --------------------------------------------------------------------------------------------------------------- files


def _checkpoint(path: Path) -> None:
    InertCheckpointIO(None).save_checkpoint({"state_dict": {"weight": torch.zeros(100_000)}}, path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "a" * 100_000),
        _checkpoint,
        lambda path: save_network(make_network(), path.parent),
        lambda path: save_png(success_plot({"relo": np.linspace(1, 0, 21).tolist()}), path),
        lambda path: _write_zip(path, {f"{number}.txt": os.urandom(2000).hex() for number in range(100)}),
    ],
    ids=["text", "checkpoint", "model", "plot", "zip"],
)
def test_a_file_is_whole_or_as_it_was(disk, write):
    (disk / "out").write_text("before")
    fill(disk, left=8192)
    with pytest.raises(UserError, match=rf"^{disk}/[\w.]+ cannot be written \({FULL}\)\.$"):
        write(disk / "out")
    assert (disk / "out").read_text() == "before"
    assert names(disk) == ["filler", "out"]


def test_a_sequence_is_whole_or_not_there(disk):
    class Scene:
        def render(self):
            for seed in range(5):
                yield np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8), 1.0

    with pytest.raises(UserError, match=rf"badge-1 cannot be written \({FULL}\)"):
        LayoutWriter("lasot", disk, "train").write("badge-1", Scene())
    assert names(disk / "badge") == []


@pytest.mark.parametrize(
    ("folder", "why"), [("/proc/relo", "No such file"), ("/sys/relo", "permission|permitted|read-only")]
)
def test_folders_that_nobody_can_write(folder, why):
    if not Path(folder).parent.is_dir():
        pytest.skip("no such file system here")
    with pytest.raises(UserError, match=rf"^{folder}/out cannot be written \(.*({why})"):
        write_text(Path(folder) / "out", "text")


# ------------------------------------------------------------------------------------------------------------- packing


def make_videos(root: Path, videos: int = 3, frames: int = 6) -> Path:
    """A folder of one's own with videos of about 20 kB a frame."""
    random = np.random.default_rng(0)
    for video in range(videos):
        folder = root / f"video{video}" / "img"
        folder.mkdir(parents=True)
        for number in range(frames):
            cv2.imwrite(str(folder / f"{number:04d}.png"), random.integers(0, 256, (80, 80, 3), np.uint8))
        (root / f"video{video}" / "groundtruth.txt").write_text("10,10,30,30\n" * frames)
    return root


def packing(root: Path, store: Path) -> list[str]:
    return ["data", "pack", "plain", str(root), str(store), "--workers=0"]


def records(store: Path) -> dict[bytes, bytes]:
    forget_environment(store)
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def test_packing_with_no_room_at_all_kills_no_process(tmp_path, disk):
    fill(disk)
    command = [sys.executable, "-m", "relo", *packing(make_videos(tmp_path / "videos"), disk / "store")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2  # and not the number of a signal
    assert f"The clip store {disk / 'store'} cannot be written ({FULL})" in refused.stderr


@pytest.mark.parametrize("left", [4096, 8192, 12288, 16384])
def test_packing_with_little_room_is_refused_and_done_later(tmp_path, disk, left, capsys):
    root = make_videos(tmp_path / "videos", videos=1, frames=1)
    filler = fill(disk, left)
    said = refusal(*packing(root, disk / "store"), capsys=capsys)
    assert f"The clip store {disk / 'store'} cannot be written ({FULL})" in said
    filler.unlink()
    main(packing(root, disk / "store"))
    assert verify(disk / "store") == []


@pytest.mark.parametrize("leftover", [{"lock.mdb": 8192}, {"lock.mdb": 0, "data.mdb": 4096}, {"data.mdb": 0}])
def test_what_a_start_that_failed_left_is_packed_over(tmp_path, leftover):
    root = make_videos(tmp_path / "videos", videos=1, frames=1)
    main(packing(root, tmp_path / "whole"))
    (tmp_path / "begun").mkdir()
    for name, size in leftover.items():
        (tmp_path / "begun" / name).write_bytes((tmp_path / "whole" / name).read_bytes()[:size])
    main(packing(root, tmp_path / "begun"))
    assert records(tmp_path / "begun") == records(tmp_path / "whole")


def test_a_disk_that_fills_up_while_packing(tmp_path, capsys):
    root = make_videos(tmp_path / "videos")
    main(packing(root, tmp_path / "whole"))
    with small_disk(tmp_path / "disk", 300 * 1024) as disk:
        said = refusal(*packing(root, disk / "store"), capsys=capsys)
        assert f"cannot be written ({FULL}); what is packed is kept" in said
        assert 0 < len(ClipStore(disk / "store", partial=True)) < 3
        subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
        main(packing(root, disk / "store"))
        assert records(disk / "store") == records(tmp_path / "whole")


# ------------------------------------------------------------------------------------------- training, testing, scoring


def test_a_fit_on_a_disk_that_fills_up(data, tmp_path, monkeypatch, capsys):
    """The first checkpoint finds room, the second does not."""
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP))
    with small_disk(tmp_path / "run", 8 << 20) as disk:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
        last = disk / "checkpoints" / "last.ckpt"
        before = last.read_bytes()
        fill(disk, left=65536)
        arguments = ["fit", f"--config={path}", "--ckpt_path=last", "--trainer.max_epochs=2"]
        said = refusal(*arguments, capsys=capsys)
        assert FULL in said
        assert "cannot be written" in said
        assert last.read_bytes() == before
        assert not list(disk.rglob(".*"))
        (disk / "filler").unlink()
        (disk / "checkpoints" / f".last.ckpt.999999999@{machine()}").write_bytes(b"of a fit that was killed")
        relo_here(monkeypatch, *arguments, cwd=tmp_path)
        assert last.read_bytes() != before
        assert not list(disk.rglob(".*"))


def test_testing_and_scoring_on_a_full_disk(data, network, tmp_path, disk, capsys):
    model, target = tmp_path / "model", disk / "model"
    save_network(network, model)
    tracking = ["test", "--model", model, "--dataset=lasot", "--root", data.test_root, "--device=cpu"]
    scoring = ["--benchmark", "lasot", "--annotations", data.test_root]
    filler = fill(disk, left=8192)  # of the files of a sequence some find room
    assert f"_time.txt cannot be written ({FULL})" in refusal(*tracking, "--output", disk / "out", capsys=capsys)
    assert not list(disk.rglob(".*"))
    filler.unlink()
    main([*map(str, tracking), "--output", str(disk / "out")])
    (disk / "scores.json").write_text("before")
    fill(disk)
    said = refusal("evaluate", disk / "out", *scoring, "--json", disk / "scores.json", capsys=capsys)
    assert f"{disk / 'scores.json'} cannot be written ({FULL})" in said
    assert (disk / "scores.json").read_text() == "before"
    said = refusal("evaluate", disk / "out", *scoring, "--report", disk / "report", capsys=capsys)
    assert f"cannot be written ({FULL})" in said
    said = refusal("export", "--model", model, "--format=safetensors", "--output", target, capsys=capsys)
    assert f"{target / 'model.safetensors'} cannot be written ({FULL})" in said


@pytest.mark.parametrize("output", ["--render=video.mp4", "--save=boxes.json", "--save=boxes.txt"])
def test_tracking_onto_a_full_disk_calls_nothing_written(output, data, network, tmp_path, disk, capsys):
    save_network(network, tmp_path / "model")
    images = next(path.parent for path in data.test_root.rglob("*.jpg"))
    fill(disk)
    arguments = ["track", images, "--box=10,10,20,20", "--model", tmp_path / "model", "--device=cpu"]
    option, _, name = output.partition("=")
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), option, str(disk / name)])
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert FULL in captured.err
    assert "Written" not in captured.out

"""Disks that fill up at a random moment, folders that nobody can write, and names of every kind.

A command ends with exit code 0, or with 2 and a sentence; what was there stays, nothing is half-written under its name,
and with room the same command ends as on an empty disk.
"""

import csv
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import forked_relo
import lmdb
import numpy as np
import pytest

from full_disk import mounted_disk, remount
from relo.data.sequences.parsing import read_boxes
from relo.models.checkpoints.weights import load_network, read_checkpoint, save_network
from small_networks import make_network
from training_runs import WARMUP, config, write_config

SENTENCE = "relo: error: "
ROOM = 64 << 20


@dataclass(frozen=True)
class Case:
    """A command that writes into its working folder.

    Attributes:
        command: its words, from what is there.
        read: what it leaves, to be compared with another run.
        check: of what an unsuccessful run has left, under its final name.
        before: files that are there before, which stay as they are until they are replaced.
    """

    command: Callable[[Path], list[str]]
    read: Callable[[Path], Any]
    check: Callable[[Path], None] = lambda folder: None
    before: tuple[str, ...] = ()
    clear: tuple[str, ...] = field(default=())  # to be removed before it runs again


def tables(folder: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def result_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("_time.txt")}


def check_results(folder: Path) -> None:
    for file in folder.glob("results/*.txt"):
        assert len(file.read_text().splitlines()) == 24, file


def check_checkpoints(folder: Path) -> None:
    for file in folder.glob("run/checkpoints/*"):
        read_checkpoint(file)


def tracked_files(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in ("b.csv", "b.json", "b.txt")}
    return found | {"frames": playable(folder / "b.mp4")}


def playable(path: Path) -> int:
    """The frames of a video up to one that is cut off."""
    count = 0
    with av.open(str(path)) as video, suppress(av.error.InvalidDataError):
        for _ in video.decode(video=0):
            count += 1
    return count


def check_tracked(folder: Path) -> None:
    """Every line is whole, and a video that is there can be played."""
    for name, parts in (("b.txt", 4), ("b.csv", 10)):
        if (folder / name).exists() and (text := (folder / name).read_text()):
            assert text.endswith("\n")
            assert {len(row) for row in csv.reader(text.splitlines())} == {parts}
    for line in (folder / "b.jsonl").read_text().splitlines() if (folder / "b.jsonl").exists() else []:
        json.loads(line)
    if (folder / "b.json").exists():
        json.loads((folder / "b.json").read_text())
    if (folder / "b.mp4").exists():
        assert playable(folder / "b.mp4") > 0


def last_training(folder: Path) -> Any:
    last = read_checkpoint(folder / "run/checkpoints/last.ckpt")
    return last["global_step"], {name: tensor.tolist() for name, tensor in last["state_dict"].items()}


def fitting(path: Path) -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        resumed = (folder / "run/checkpoints/last.ckpt").exists()
        return ["fit", f"--config={path}", *(["--ckpt_path=last"] if resumed else [])]

    return command


@pytest.fixture(scope="module")
def cases(data, tmp_path_factory) -> dict[str, Case]:
    material = tmp_path_factory.mktemp("material")
    model, raw, results = material / "model", data.test_root.with_name("raw_train"), material / "results"
    save_network(make_network(), model)
    content = config(data, WARMUP)
    content["trainer"]["callbacks"][0]["init_args"] |= {"every_n_train_steps": 1, "enable_version_counter": False}
    config_path = write_config(material / "config.yaml", content)
    results.mkdir()
    for file in data.test_root.rglob("groundtruth.txt"):
        (results / f"{file.parent.name}.txt").write_text(file.read_text())
    first = min(raw.rglob("groundtruth.txt"))
    box = first.read_text().splitlines()[0]
    frames = ["track", str(first.parent), "--box", box, "--model", str(model), "--device=cpu"]
    source = ["--dataset=got10k", "--root", str(raw), "--split=train"]
    scoring = ["evaluate", str(results), "--benchmark=lasot", "--annotations", str(data.test_root)]
    saved = [word for name in ("txt", "jsonl", "csv", "json") for word in ("--save", f"b.{name}")]
    return {
        "pack": Case(
            lambda folder: ["data", "pack", "got10k", str(raw), "store", "--split=train", "--workers=0"],
            lambda folder: tables(folder / "store"),
        ),
        "fit": Case(fitting(config_path), last_training, check_checkpoints),
        "test": Case(
            lambda folder: ["test", "--model", str(model), *source, "--output=results", "--device=cpu", "--workers=1"],
            lambda folder: result_files(folder / "results"),
            check_results,
        ),
        "track": Case(lambda folder: [*frames, *saved, "--render=b.mp4"], tracked_files, check_tracked),
        "track into a folder": Case(
            lambda folder: [*frames, "--render=images/"],
            lambda folder: result_files(folder / "images"),
            lambda folder: [av.open(str(file)).close() for file in folder.glob("images/*")] and None,
            clear=("images",),
        ),
        "evaluate": Case(
            lambda folder: [*scoring, "--json=scores.json"],
            lambda folder: (folder / "scores.json").read_bytes(),
            lambda folder: json.loads((folder / "scores.json").read_text()) and None,
            before=("scores.json",),
        ),
        "evaluate with a report": Case(
            lambda folder: [*scoring, "--report=report"],
            lambda folder: sorted(file.name for file in (folder / "report").iterdir()),
        ),
        "export": Case(
            lambda folder: ["export", "--model", str(model), "--format=safetensors", "--output=exported"],
            lambda folder: result_files(folder / "exported"),
            lambda folder: (
                load_network(folder / "exported") and None
                if (folder / "exported/model.safetensors").exists() and (folder / "exported/config.yaml").exists()
                else None
            ),
        ),
        "export to ONNX": Case(
            lambda folder: ["export", "--model", str(model), "--output=graphs"],
            lambda folder: sorted(result_files(folder / "graphs")),
        ),
        "synthesize": Case(
            lambda folder: [
                "data",
                "synthesize",
                "made",
                "--layout=lasot",
                "--sequences=2",
                "--frames=6",
                "--workers=0",
            ],
            lambda folder: {
                str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("made/**/*") if file.is_file()
            },
        ),
    }


def run_whole(case: Case, folder: Path) -> tuple[Any, int]:
    """What a case leaves on an empty disk, and how many bytes that takes."""
    folder.mkdir()
    forked_relo.finish(case.command(folder), folder)
    size = sum(4096 * -(-file.stat().st_size // 4096) for file in folder.rglob("*"))
    return case.read(folder), size


def refused(code: int, said: str) -> bool:
    """Whether a command ended in a sentence; else it went well."""
    assert "Traceback" not in said, said
    assert code in (0, 2), (code, said)
    assert (code == 2) == (SENTENCE in said), said
    return code == 2


def fill_disks(case: Case, folder: Path, generator: random.Random, times: int) -> None:
    """Run a case on disks with room for a random part of what it writes, or with a limit of the size of files."""
    expected, size = run_whole(case, folder / "whole")
    for _ in range(times):
        room = 4096 * max(1, round(size * generator.random() ** 2 / 4096))
        with mounted_disk(folder / "disk", ROOM) as disk:
            for name in case.before:
                (disk / name).write_text('"before"')
            limit = max(16384, room // generator.choice([1, 4])) if generator.random() < 0.3 else None
            if limit is None:
                remount(disk, f"size={room}")
            print(f"{room} bytes of {size}, files of at most {limit}")
            if refused(*forked_relo.ending(case.command(disk), disk, limit)):
                said = forked_relo.printed(disk)
                assert "full" in said or "larger than is allowed" in said or "File too large" in said, said
                assert not [path for path in disk.rglob(".*") if not path.name.startswith(".lock")], said
                case.check(disk)
                for name in case.before:
                    assert (disk / name).read_text() == '"before"'
                remount(disk, f"size={ROOM}")
                for name in case.clear:
                    shutil.rmtree(disk / name, ignore_errors=True)
                forked_relo.finish(case.command(disk), disk)
            assert case.read(disk) == expected


QUICK = ["pack", "test", "track", "evaluate", "export"]
ALL = [*QUICK, "fit", "track into a folder", "evaluate with a report", "export to ONNX", "synthesize"]


@pytest.mark.parametrize("name", QUICK)
def test_a_disk_that_fills_up(cases, name, tmp_path, generator):
    fill_disks(cases[name], tmp_path, generator, 1)


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ALL)
def test_disks_that_fill_up(cases, name, tmp_path, generator, minutes):
    fill_disks(cases[name], tmp_path, generator, max(1, round(10 * minutes / 60)))


@pytest.mark.torture
@pytest.mark.parametrize("name", ALL)
def test_a_file_system_that_is_read_only(cases, name, tmp_path):
    with mounted_disk(tmp_path / "disk", ROOM) as disk:
        remount(disk, "ro")
        assert refused(*forked_relo.ending(cases[name].command(disk), disk))
        assert "read-only" in forked_relo.printed(disk).lower()


# -------------------------------------------------------------------------------------------------------------- stores


def test_two_packers_on_one_store(cases, tmp_path, generator):
    """Both begin at once, one is killed: the other's store is whole."""
    case = cases["pack"]
    expected, _ = run_whole(case, tmp_path / "whole")
    (tmp_path / "both").mkdir()
    packers = [forked_relo.start(case.command(tmp_path / "both"), tmp_path / "both") for _ in range(2)]
    packers[0].join(generator.uniform(0, 0.5))
    forked_relo.kill(packers[0])
    packers[1].join(120)
    assert packers[1].exitcode == 0, forked_relo.printed(tmp_path / "both")
    assert case.read(tmp_path / "both") == expected


@pytest.mark.torture
def test_many_packers_on_one_store(cases, tmp_path):
    case = cases["pack"]
    expected, _ = run_whole(case, tmp_path / "whole")
    for number in range(10):
        folder = tmp_path / f"several{number}"
        folder.mkdir()
        packers = [forked_relo.start(case.command(folder), folder) for _ in range(3)]
        for packer in packers:
            packer.join(120)
            assert packer.exitcode == 0, forked_relo.printed(folder)
        assert case.read(folder) == expected


# --------------------------------------------------------------------------------------------------------------- names

NAMES = [
    "a b",
    "it's",
    'the "best"',
    "two\nlines",
    "Übergrößenträger",
    "目标追踪",
    "[red]markup",
    "{name}",
    "-n",
    "100%s",
    "$HOME `id`",
    "café\u0301 \U0001f431",
]


def test_names_of_every_kind(tmp_path):
    root, folder = tmp_path / "ro\not '\" 目标", tmp_path / "out"
    pixels = np.random.default_rng(0)
    for name in NAMES:
        (root / name / "img").mkdir(parents=True)
        for number in range(3):
            image = av.VideoFrame.from_ndarray(pixels.integers(0, 255, (48, 64, 3), np.uint8), "rgb24").to_image()
            image.save(root / name / "img" / f"{number}.png")
        (root / name / "groundtruth.txt").write_text("10,10,20,20\n" * 3)
    folder.mkdir()
    save_network(make_network(), tmp_path / "mo\ndel 目")
    model = ["--model", str(tmp_path / "mo\ndel 目"), "--device=cpu"]
    words = ["--dataset=plain", "--root", str(root), "--output", "re sul\nts 目"]
    for command in (
        ["data", "pack", "plain", str(root), "st\nore 'ü'", "--workers=0"],
        ["data", "verify", "st\nore 'ü'", "--workers=0"],
        ["data", "doctor", str(root), "--dataset=plain", "--workers=0"],
        ["test", *model, *words],
        [
            "evaluate",
            "re sul\nts 目",
            "--benchmark=plain",
            f"--annotations={root}",
            "--json=sc\no 目.json",
            "--report=r\np",
        ],
        [
            "track",
            str(root / "two\nlines/img"),
            "--box=10,10,20,20",
            *model,
            "--save=b\n目.json",
            "--render=v\n'目.mp4",
        ],
    ):
        code, said = forked_relo.ending(command, folder)
        assert not refused(code, said), said
    scores = json.loads((folder / "sc\no 目.json").read_text())
    assert len(tables(folder / "st\nore 'ü'")) >= len(NAMES)
    assert {name for name in NAMES if f'"{name}"' in json.dumps(scores, ensure_ascii=False)} >= {"a b", "目标追踪"}
    for name in NAMES:
        assert read_boxes(folder / "re sul\nts 目" / f"{name}.txt").shape == (3, 4)

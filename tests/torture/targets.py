"""Every command with good inputs: which of its files and options are broken, and where its answer stands."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from good_inputs import GOOD, LAYOUT_NAMES, SCORED, read_split_of, small_variants

from relo.data.clip_store import ClipStore
from relo.data.store_environment import forget_environment

Answer = Callable[[Path], Any]


@dataclass(frozen=True)
class Target:
    """A command line that succeeds in a folder which holds good inputs.

    Attributes:
        name: what it is called in reports.
        arguments: the command line; the folder is the working directory.
        inputs: the good inputs that it needs.
        files: patterns of those that are broken.
        answer: what the command found, read from its folder, to hold against what it finds in good inputs.
        prepare: changes the process, before the command runs.
    """

    name: str
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    files: tuple[str, ...] = ()
    answer: Answer = lambda folder: None
    prepare: Callable[[Path], None] = lambda folder: None


def _scores(folder: Path) -> Any:
    scores = json.loads((folder / "scores.json").read_text())
    return {name: value for name, value in scores.items() if name != "training"}


def _text(folder: Path) -> Any:
    return (folder / "boxes.out.txt").read_text()


def _boxes_in_store(folder: Path) -> Any:
    store = ClipStore(folder / "store")
    sequences = [store[number] for number in range(len(store))]
    found = [(each.name, each.boxes_xywh.tolist(), each.visible.tolist()) for each in sequences]
    forget_environment(folder / "store")
    return repr(found)  # NaN is equal to itself


def _tracked(folder: Path) -> Any:
    return {path.name: path.read_text() for path in folder.glob("tracked/**/*.txt") if "time" not in path.name}


def _losses(folder: Path) -> Any:
    log = folder / "run/log/metrics.csv"
    return log.read_text() if log.exists() else "no step"


def _members(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "out.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _weights(folder: Path) -> Any:
    return (folder / "out/model.safetensors").read_bytes()


def evaluations() -> list[Target]:
    targets = []
    for layout in SCORED:
        inputs = (f"root {layout}", f"results {layout}")
        files = ("results/*.txt", "names.txt", f"{layout}/**/*.txt", f"{layout}/**/*.csv", f"{layout}/**/*.label")
        options = ("--benchmark", layout, "--annotations", layout, "--json", "scores.json")
        targets.append(Target(f"evaluate {layout}", ("evaluate", "results", *options), inputs, files, _scores))
    options = ("--benchmark", "otb100", "--json", "scores.json", "--annotations")
    for given, annotations in (
        ("results", "annotations"),
        ("results", "annotations.json"),
        ("results", "annotations.zip"),
    ):
        name, arguments = f"evaluate {annotations}", ("evaluate", given, *options, annotations)
        targets.append(
            Target(name, arguments, ("flat",), (f"{given}/*", annotations, f"{annotations}/**/*.txt"), _scores)
        )
    zipped = ("evaluate", "results.zip", *options[:1], "lasot", *options[2:], "lasot")
    zipped += ("--sequences", "names.txt", "--report", "page")
    inputs = ("root lasot", "results lasot")
    targets.append(Target("evaluate results.zip", zipped, inputs, ("results.zip", "names.txt"), _scores))
    submit = ("submit", "results", "--benchmark", "got10k", "--dataset", "got10k", "--output", "out.zip")
    files = ("results/*1/*.txt", "got10k/test/list.txt", "got10k/test/*1/*")
    targets.append(Target("submit", submit, ("got10k test",), files, _members))
    return targets


def datasets() -> list[Target]:
    targets = []
    for layout in LAYOUT_NAMES:
        split, inputs, files = read_split_of(layout), (f"root {layout}",), (f"{layout}/**/*",)
        pack = ("data", "pack", layout, layout, "store", "--split", split, "--workers", "0")
        doctor = ("data", "doctor", layout, "--dataset", layout, "--split", split, "--frames", "true", "--workers", "0")
        targets.append(Target(f"pack {layout}", pack, inputs, files, _boxes_in_store))
        targets.append(Target(f"doctor {layout}", doctor, inputs, files))
    for dataset, split in (("coco", "val2017"), ("photos", "all")):
        pack = ("data", "pack", dataset, ".", "store", "--split", split, "--workers", "0")
        targets.append(Target(f"pack {dataset}", pack, (dataset,), ("*.jsonl", "*/**/*"), _boxes_in_store))
    cut = ("data", "pack", "lasot", "lasot", "store", "--split", "test", "--workers", "0")
    cut += ("--cut", "4", "--max_side", "64", "--quality", "80", "--reader", '{"partial": true}')
    targets.append(Target("pack, cut", cut, ("root lasot",), ("lasot/**/*",), _boxes_in_store))
    verify = ("data", "verify", "train", "--workers", "0")
    targets.append(Target("verify", verify, ("clips",), ("train/data.mdb",)))
    synthesize = (
        "data",
        "synthesize",
        "out",
        "--layout",
        "plain",
        "--sequences",
        "1",
        "--frames",
        "3",
        "--workers",
        "0",
    )
    synthesize += ("--width", "96", "--height", "72", "--seed", "1")
    targets.append(Target("synthesize", synthesize, ()))
    pictures = (*synthesize, "--photographs", "images", "--cutouts", ".")
    targets.append(Target("synthesize of photographs", pictures, ("photos",), ("images/*", "masks/*")))
    return targets


def tracking() -> list[Target]:
    common = ("--device", "cpu", "--save", "boxes.out.txt")
    own = ("--model", "model", "--engine", "torch", *common)
    box = ("--box", "20,20,20,25")
    inputs, files = ("frames", "model"), ("model/*",)
    track = ("track", "frames", *own)
    targets = [
        Target("track frames", (*track, *box, "--start", "0", "--limit", "9"), inputs, ("frames/*",), _text),
        Target("track video", ("track", "video.mp4", *own, *box), inputs, ("video.mp4",), _text),
        Target("track a model", (*track, *box), inputs, files, _text),
        Target(
            "track by files",
            (*track, "--box", "box.txt", "--truth", "truth.txt", "--rule", "rule.yaml"),
            inputs,
            ("box.txt", "truth.txt", "rule.yaml"),
            _text,
        ),
        Target("track --boxes", (*track[:6], *common[:2], "--boxes", "boxes.txt"), inputs, ("boxes.txt",)),
        Target(
            "track into files",
            (*track, *box, "--render", "out.mp4", "--save", "b.jsonl", "--save", "c.csv", "--save", "d.json"),
            inputs,
            ("frames/*",),
            _text,
        ),
        Target(
            "track a checkpoint", ("track", "frames", "--model", "last.ckpt", *common, *box), inputs, ("last.ckpt",)
        ),
        Target(
            "track graphs", ("track", "frames", "--model", "onnx", *common, *box), ("frames", "graphs"), ("onnx/*",)
        ),
        Target("serve", ("serve", "--model", "nowhere", "--port", "8000", "--max_size", "1"), ()),
    ]
    test = ("test", "--model", "model", "--dataset", "lasot", "--root", "lasot", "--output", "tracked")
    test += ("--device", "cpu", "--engine", "torch", "--batch_size", "2", "--workers", "1", "--rule", "rule.yaml")
    files = ("lasot/**/*", "rule.yaml", "model/*")
    targets.append(Target("test", test, ("root lasot", "model", "frames"), files, _tracked))
    return targets


def models() -> list[Target]:
    safetensors = ("export", "--model", "last.ckpt", "--format", "safetensors", "--output", "out")
    onnx = ("export", "--model", "model", "--output", "out", "--templates", "1")
    released = ("import", "RELO_ep0090.pth.tar", "--variant", "b256", "--output", "out")
    fit = ("fit", "--config", "fit.yaml", "--config", "stage.yaml", "--trainer.max_steps", "1")
    full = ("fit", "--config", "full.yaml", "--trainer.max_steps", "1")
    fit_from = ("fit", "--config", "fit.yaml", "--model.init_from", "last.ckpt")
    resume = ("fit", "--config", "fit.yaml", "--ckpt_path", "last.ckpt", "--trainer.max_steps", "2")
    validate = ("validate", "--config", "fit.yaml", "--ckpt_path", "last.ckpt", "--trainer.limit_val_batches", "1")
    ablate = ("ablate", "study.yaml", "--dry_run", "true", "--jobs", "1", "--threads", "1", "--seeds", "0")
    settings = ("fit.yaml", "stage.yaml")
    return [
        Target("export a checkpoint", safetensors, ("model",), ("last.ckpt",), _weights),
        Target("export a model", onnx, ("model",), ("model/*",)),
        Target("import", released, ("release",), ("RELO_ep0090.pth.tar",), _weights, small_variants),
        *(Target(f"fit {number}", fit, ("clips",), settings, _losses) for number in range(4)),
        *(Target(f"fit, every setting {number}", full, ("clips",), ("full.yaml",), _losses) for number in range(8)),
        Target("fit on a store", fit, ("clips",), ("train/data.mdb",), _losses),
        *(Target(f"fit resumed {number}", resume, ("clips",), ("last.ckpt",), _losses) for number in range(2)),
        Target("fit from a checkpoint", fit_from, ("clips",), ("last.ckpt",), _losses),
        Target("validate", validate, ("clips",), ("last.ckpt", "fit.yaml", "test/data.mdb")),
        Target("ablate", ablate, ("study",), ("*.yaml",)),
        Target("report", ("report", "."), ("model", "clips"), ()),
    ]


TARGETS = {target.name: target for target in (*evaluations(), *datasets(), *tracking(), *models())}
assert all(name in GOOD for target in TARGETS.values() for name in target.inputs)

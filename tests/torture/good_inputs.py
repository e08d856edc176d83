"""Good inputs at the size of thumbnails, for each to be broken in one thing: every kind of file that people hand in."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from forked_command import run_forked
from rich.console import Console

from relo.commands.export import export
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.sequences.datasets import BENCHMARKS, DATASETS
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.layouts import LAYOUTS
from relo.models.checkpoints import released
from relo.models.checkpoints.released import released_names, released_network, to_published_shape
from relo.models.checkpoints.weights import save_network
from relo.tracking.video_writer import VideoWriter
from small_networks import make_network, write_small_release
from training_runs import WARMUP, Data, config

SIZE = {"width": 96, "height": 72, "workers": 0}
FRAMES = 10
LAYOUT_NAMES = tuple(LAYOUTS)
SCORED = tuple(name for name in LAYOUTS if name in BENCHMARKS and not DATASETS[name].first_box_only)

_QUIET = Console(quiet=True)


def split_of(layout: str) -> str:
    """The split that is made of a layout: one with boxes for every frame."""
    splits = LAYOUTS[layout].splits or DATASETS[layout].splits
    return "test" if "test" in splits and "test" not in DATASETS[layout].first_box_only else "train"


def read_split_of(layout: str) -> str:
    """The split by which it is read."""
    return split_of(layout) if split_of(layout) in DATASETS[layout].splits else DATASETS[layout].splits[0]


def root(layout: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        synthesize(folder / layout, layout=layout, split=split_of(layout), sequences=2, frames=FRAMES, **SIZE)

    return make


def results(layout: str) -> Callable[[Path], None]:
    """Result files as `relo test` names them, with times, in a folder and in a zip."""

    def make(folder: Path) -> None:
        root(layout)(folder / "made")
        results = folder / "results"
        results.mkdir()
        for sequence in open_reader(layout, folder / "made" / layout, read_split_of(layout)):
            boxes_xywh = np.nan_to_num(sequence.boxes_xywh) + np.array([1, 1, 2, 2])
            np.savetxt(results / f"{sequence.name}.txt", boxes_xywh, "%.2f", ",")
            np.savetxt(results / f"{sequence.name}_time.txt", np.full(len(boxes_xywh), 0.1), "%.4f")
        (results / "training.txt").write_text("LaSOT\n")
        _zip(results, folder / "results.zip")
        (folder / "names.txt").write_text(
            "".join(f"{name}\n" for name in open_reader(layout, folder / "made" / layout, read_split_of(layout)).names)
        )
        shutil.rmtree(folder / "made")

    return make


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{folder.name}/{file.name}")


def flat_annotations(folder: Path) -> None:
    """One sequence's boxes as text in a folder and in a zip, and as JSON of pysot's style."""
    boxes = [[10 + i, 10, 20, 20] for i in range(FRAMES)]
    text = "".join(f"{','.join(map(str, box))}\n" for box in boxes)
    for name in ("annotations/absent", "results"):
        (folder / name).mkdir(parents=True)
    for place in ("annotations/Basketball.txt", "results/Basketball.txt"):
        (folder / place).write_text(text)
    (folder / "annotations/absent/Basketball.txt").write_text("0\n" * FRAMES)
    truth = {"Basketball": {"gt_rect": boxes, "absent": [1] * FRAMES, "img_names": ["a.jpg"] * FRAMES}}
    (folder / "annotations.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps({"Basketball": boxes}))
    with zipfile.ZipFile(folder / "annotations.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Basketball.txt", text)
        archive.writestr("absent/Basketball.txt", "0\n" * FRAMES)


def coco(folder: Path) -> None:
    (folder / "annotations").mkdir()
    images = folder / "images" / "val2017"
    images.mkdir(parents=True)
    content: dict[str, list[object]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for number in (1, 2):
        cv2.imwrite(str(images / f"{number}.jpg"), _picture(number))
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "width": 96, "height": 72})
        one = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 20, 30], "iscrowd": 0}
        content["annotations"].append(one)
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def photos(folder: Path) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir()
    lines = []
    for number in range(12):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), _picture(number))
        lines.append(json.dumps({"image": f"{number}.png", "boxes_xywh": [[10, 10, 20, 30]], "labels": ["cat"]}))
        mask = np.zeros((72, 96), np.uint8)
        mask[10:40, 20 : 60 + number] = 255
        cv2.imwrite(str(folder / "masks" / f"{number}_0.png"), mask)
    (folder / "boxes.jsonl").write_text("\n".join(lines))


def frames(folder: Path) -> None:
    """A folder of images, a video, a box in each kind of file, a truth and a rule."""
    (folder / "frames").mkdir()
    with VideoWriter(folder / "video.mp4", 10) as video:
        for index in range(4):
            image = _picture(0)
            cv2.rectangle(image, (20 + 3 * index, 20), (40 + 3 * index, 45), (0, 0, 255), -1)
            cv2.imwrite(str(folder / "frames" / f"{index}.jpg"), image)
            video.write(np.ascontiguousarray(image[..., ::-1]))
    (folder / "box.txt").write_text("20,20,20,25\n")
    (folder / "boxes.txt").write_text("20,20,20,25\n40,30,20,20\n")
    (folder / "truth.txt").write_text("".join(f"{20 + 3 * index},20,20,25\n" for index in range(4)))
    (folder / "rule.yaml").write_text("templates: 1\nlocalization: policy\nbenchmarks:\n  lasot: {templates: 2}\n")


def _picture(seed: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8), (96, 72))


def model(folder: Path) -> None:
    save_network(make_network(), folder / "model")
    network = make_network()
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "relo_network": network.config(), "epoch": 3}, folder / "last.ckpt")


def graphs(folder: Path) -> None:
    save_network(make_network(), folder / "model")
    export(model=str(folder / "model"), output=str(folder / "onnx"), templates=1)
    shutil.rmtree(folder / "model")


def small_variants(folder: Path) -> None:
    """The release's variants in miniature, in this process."""
    (folder / "variants").mkdir(exist_ok=True)
    if folder / "variants" != released.FOLDER:
        write_small_release(folder / "variants")
        released.FOLDER = folder / "variants"


def release(folder: Path) -> None:
    small_variants(folder)
    network = released_network("b256")
    own = network.state_dict()
    net = {there: to_published_shape(name, own[name]).clone() for name, there in released_names(network).items()}
    torch.save({"net": net, "epoch": 90}, folder / "RELO_ep0090.pth.tar")


def clips(folder: Path) -> None:
    """A clip store, and the config of a fit on it."""
    synthesize(folder / "made", layout="got10k", split="train", sequences=4, frames=24, **SIZE)
    for name in ("train", "test"):
        pack(open_reader("got10k", folder / "made", "train"), folder / name, split="train", workers=0, console=_QUIET)
    shutil.rmtree(folder / "made")
    for lock in folder.glob("*/lock.mdb"):
        lock.unlink()
    content = config(Data(Path("train"), Path("test"), Path("none")), WARMUP)
    content["trainer"]["max_steps"] = 1
    (folder / "fit.yaml").write_text(yaml.safe_dump(content))
    (folder / "stage.yaml").write_text(yaml.safe_dump({"model": {"encoder_lr_factor": 0.5}}))
    every = run_forked(["fit", "--config", "fit.yaml", "--print_config"], folder)
    (folder / "full.yaml").write_text(every.out)  # with every setting that there is
    run_forked(["fit", "--config", "fit.yaml"], folder)
    shutil.move(folder / "run/checkpoints/last.ckpt", folder / "last.ckpt")
    shutil.rmtree(folder / "run")


def study(folder: Path) -> None:
    clips(folder)
    for name in ("train", "test"):
        shutil.rmtree(folder / name)
    shutil.copy(folder / "fit.yaml", folder / "warmup.yaml")
    shutil.move(folder / "fit.yaml", folder / "rl.yaml")
    short = {"sequences": 2, "frames": 6, "width": 96, "height": 72}
    content = {
        "warmup": "warmup.yaml",
        "rl": "rl.yaml",
        "seeds": [0, 1],
        "data": {"clips": short},
        "tests": {"short": short},
        "validation": {"other": {**short, "seed": 1}},
        "changes": {"slow": {"model": {"encoder_lr_factor": 0.1}}},
        "evaluation": {"batch_size": 4, "window_exponents": [0.0, 0.5]},
        "rows": {"policy": {"rl": "slow"}, "prior": {"stages": ["warmup"], "localization": "prior"}},
        "groups": {"main": {"title": "Main", "reference": "prior", "rows": {"prior": "the prior", "policy": "RL"}}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content))


def got10k_test(folder: Path) -> None:
    """The whole test set of a server, with a picture a sequence, and results."""
    names = [f"GOT-10k_Test_{number:06d}" for number in range(1, 181)]
    for name in names:
        (folder / "got10k/test" / name).mkdir(parents=True)
        (folder / "results" / name).mkdir(parents=True)
        (folder / "got10k/test" / name / "00000001.jpg").write_bytes(cv2.imencode(".jpg", _picture(0))[1].tobytes())
        (folder / "got10k/test" / name / "groundtruth.txt").write_text("1,1,9,9\n")
        (folder / "results" / name / f"{name}_001.txt").write_text("1,1,9,9\n")
        (folder / "results" / name / f"{name}_time.txt").write_text("0.1\n")
    (folder / "got10k/test/list.txt").write_text("\n".join(names))


GOOD: dict[str, Callable[[Path], None]] = {
    **{f"root {name}": root(name) for name in LAYOUT_NAMES},
    **{f"results {name}": results(name) for name in SCORED},
    "flat": flat_annotations,
    "coco": coco,
    "photos": photos,
    "frames": frames,
    "model": model,
    "graphs": graphs,
    "release": release,
    "clips": clips,
    "study": study,
    "got10k test": got10k_test,
}
"""What makes each kind of good input in a folder."""

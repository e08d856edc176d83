"""Photo sets made from checkouts of the repositories that publish them, in the form that docs/data.md shows."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.io.matlab import MatReadError

from relo.data.intact_frames import decode_intact
from relo.errors import UserError
from relo.geometry import iou_xywh
from relo.tracking.boxes_file import write_boxes
from relo.tracking.sources import open_frames

_SIDE = 640  # px, of photographs, the longer at most
_AERIAL_SIDE = 1280  # things in them are small
_LEAST_SIDE = 12  # px, of marked things
_LEAST_SHARE = 0.005  # of the image, of things that have a mask
_LEAST_FRAMES = 20  # of a sequence
_LEAST_OVERLAP = 0.3  # IoU of a thing's box with the one before; where it is less, the box has jumped
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)

Mask = NDArray[np.bool_]
Things = tuple[list[list[float]], list[str]]
"""What is in an image: boxes x, y, w, h, and a label each."""


@dataclass(frozen=True)
class Photograph:
    """A photograph with its things: masks [H, W], or boxes with a label each."""

    image: Path
    masks: list[Mask] = field(default_factory=list)
    boxes_xywh: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def convert(name: str, checkout: Path, target: Path) -> None:
    """Make a set of a checkout; what is there is whole.

    Raises:
        UserError: the folder is no such checkout, or holds nothing of use.
    """
    if target.is_dir():
        return
    unfinished = target.with_name(f".{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        CONVERTERS[name](checkout, unfinished)
    except (OSError, ValueError, KeyError, IndexError, ElementTree.ParseError, MatReadError) as error:
        raise UserError(
            f"{checkout} is no checkout that the set {name} can be made of ({type(error).__name__}: {error}); clone it "
            "again."
        ) from error
    if not any(unfinished.glob("*/*")):
        raise UserError(f"{checkout} holds nothing that the set {name} could be made of; clone it again.")
    unfinished.rename(target)


# ------------------------------------------------------------------------------------------------------- photographs


def _write_photographs(
    photographs_of: Callable[[Path], Iterator[Photograph]], checkout: Path, target: Path, side: int = _SIDE
) -> None:
    """Write those of a checkout, scaled down to a side, but for damaged ones and those without a thing large enough."""
    records = []
    for photograph in photographs_of(checkout):
        try:
            image = decode_intact(photograph.image.read_bytes(), str(photograph.image))[..., ::-1]
        except UserError as error:  # as their publisher has them
            Console().print(f"left out: {error}", markup=False, highlight=False, soft_wrap=True)
            continue
        scale = min(1.0, side / max(image.shape[:2]))
        boxes_xywh, labels = [], []
        for box_xywh, label in zip(photograph.boxes_xywh, photograph.labels, strict=True):
            box_xywh = [round(scale * value, 1) for value in box_xywh]
            if min(box_xywh[2:]) >= _LEAST_SIDE:
                boxes_xywh.append(box_xywh)
                labels.append(label)
        if not boxes_xywh and not photograph.masks:
            continue
        (target / "images").mkdir(parents=True, exist_ok=True)
        name = photograph.image.stem
        if scale == 1 and photograph.image.suffix == ".jpg":
            shutil.copy(photograph.image, target / "images")
        else:
            image = cv2.resize(np.ascontiguousarray(image), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(target / "images" / f"{name}.jpg"), image, _JPEG)
        for index, mask in enumerate(photograph.masks):
            (target / "masks").mkdir(exist_ok=True)
            height, width = image.shape[:2]
            scaled = cv2.resize(255 * mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(target / "masks" / f"{name}_{index}.png"), scaled)
        if boxes_xywh:
            records.append({"image": f"{name}.jpg", "boxes_xywh": boxes_xywh, "labels": labels})
    if records:
        (target / "boxes.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


def _parts(mask: Mask) -> list[Mask]:
    """The connected parts of a mask that are large enough."""
    _, marks, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return [
        marks == part
        for part, (_, _, width, height, area) in enumerate(stats)
        if part and min(width, height) >= _LEAST_SIDE and area >= _LEAST_SHARE * mask.size
    ]


def _read_grey(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{path.name} is no image")
    return np.asarray(image, np.uint8)


def _masked(images: str, masks: str, checkout: Path) -> Iterator[Photograph]:
    """Things by the masks in a folder, which have the images' names."""
    for image in sorted((checkout / images).glob("*.jpg")):
        yield Photograph(image, _parts(_read_grey(checkout / masks / f"{image.stem}.png") > 127))


def _bsds500(checkout: Path) -> Iterator[Photograph]:
    """Regions of the first annotator that another one agrees on (IoU of 0.7), between 0.5 and 50 % of the image."""
    for image in sorted((checkout / "BSDS500/data/images").glob("*/*.jpg")):
        file = checkout / f"BSDS500/data/groundTruth/{image.parent.name}/{image.stem}.mat"
        annotators = scipy.io.loadmat(file)["groundTruth"][0]
        first, *others = [annotator["Segmentation"][0, 0] for annotator in annotators]
        masks = [first == region for region in np.unique(first)]
        yield Photograph(image, [mask for mask in masks if mask.mean() < 0.5 and _is_agreed_on(mask, others)])


def _is_agreed_on(mask: Mask, others: list[NDArray[np.integer]]) -> bool:
    height, width = np.ptp(np.argwhere(mask), axis=0) + 1
    if min(height, width) < _LEAST_SIDE or mask.mean() < _LEAST_SHARE:
        return False
    for other in others:
        region = other == np.bincount(other[mask]).argmax()
        if (mask & region).sum() / (mask | region).sum() >= 0.7:
            return True
    return False


def _clothing_coparsing(checkout: Path) -> Iterator[Photograph]:
    """A person each: all that is no background."""
    for file in sorted((checkout / "annotations/pixel-level").glob("*.mat")):
        mask = scipy.io.loadmat(file)["groundtruth"] > 0
        if mask.any():
            yield Photograph(checkout / f"photos/{file.stem}.jpg", [mask])


def _camvid(checkout: Path) -> Iterator[Photograph]:
    """Signs, cars, pedestrians and cyclists."""
    for split in ("train", "val", "test"):
        for image in sorted((checkout / "CamVid" / split).glob("*.png")):
            classes = _read_grey(checkout / f"CamVid/{split}annot/{image.name}")
            yield Photograph(image, [part for kind in (6, 8, 9, 10) for part in _parts(classes == kind)])


def _vedai_aerial(checkout: Path) -> Iterator[Photograph]:
    folder = checkout / "tensorflow-yolo/data"
    with (folder / "annotation1024.csv").open() as file:
        for name, rows in groupby(csv.DictReader(file), key=lambda row: row["filename"].split("_")[0]):
            corners = [[float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")] for row in rows]
            boxes_xywh = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]
            yield Photograph(folder / f"images_jpg/{name}.jpg", [], boxes_xywh, ["vehicle"] * len(boxes_xywh))


def _aerial_cars(checkout: Path) -> Iterator[Photograph]:
    """All but the frames of a video whose terms are YouTube's."""
    for image in sorted(checkout.iterdir()):
        labels = image.with_suffix(".txt")
        if image.suffix in (".jpg", ".JPG", ".png") and labels.is_file() and not image.name.startswith("harlem"):
            height, width = _read_grey(image).shape
            boxes_xywh = []
            for line in labels.read_text().splitlines():
                x, y, w, h = (float(value) for value in line.split()[1:])
                boxes_xywh.append([(x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
            yield Photograph(image, [], boxes_xywh, ["car"] * len(boxes_xywh))


def _objects(annotation: Path) -> Things:
    """Boxes x, y, w, h and labels of a file in the form of PASCAL VOC."""
    boxes_xywh, labels = [], []
    for thing in ElementTree.parse(annotation).getroot().iter("object"):
        x1, y1, x2, y2 = (float(thing.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        boxes_xywh.append([x1, y1, x2 - x1, y2 - y1])
        labels.append(thing.findtext("name") or "")
    return boxes_xywh, labels


def _animals(annotations: str, checkout: Path) -> Iterator[Photograph]:
    for image in sorted((checkout / "images").glob("*.jpg")):
        yield Photograph(image, [], *_objects(checkout / annotations / f"{image.stem}.xml"))


def _copy_backgrounds(patterns: Iterable[str], checkout: Path, target: Path) -> None:
    """Photographs without boxes or masks."""
    for image in (image for pattern in patterns for image in sorted(checkout.glob(pattern))):
        (target / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target / "images" / "_".join(image.relative_to(checkout).with_suffix(".jpg").parts))


# ------------------------------------------------------------------------------------------------------------ videos


def _write_sequence(frames: list[Path], boxes_xywh: list[list[float]], folder: Path) -> None:
    (folder / "img").mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        shutil.copy(frame, folder / "img" / f"{number:08d}{frame.suffix}")
    write_boxes(folder / "groundtruth.txt", np.array(boxes_xywh))


def _davis16_val(checkout: Path, target: Path) -> None:
    """Boxes of masks; NaN where a mask is empty."""
    listed = (checkout / "ImageSets/480p/val.txt").read_text().split()
    for name in dict.fromkeys(path.split("/")[3] for path in listed):  # of a frame or a mask each
        frames = sorted((checkout / "JPEGImages/480p" / name).glob("*.jpg"))
        boxes_xywh = []
        for frame in frames:
            mask = _read_grey(checkout / f"Annotations/480p/{name}/{frame.stem}.png")
            box_xywh = cv2.boundingRect((mask > 0).astype(np.uint8))
            boxes_xywh.append([float(value) for value in box_xywh] if mask.any() else [float("nan")] * 4)
        _write_sequence(frames, boxes_xywh, target / name)


def _w_tracking(checkout: Path, target: Path) -> None:
    """A sequence for each time that the person is in view of a camera."""
    for camera in (1, 2, 3):
        boxes_xywh = np.loadtxt(checkout / f"annotations/Person1/boundingbox/gt_cam{camera}.txt", ndmin=2)
        frames = sorted((checkout / f"ProcessedSeq/video{camera}").glob("*.jpg"))
        for is_there, run in groupby(range(len(frames)), key=lambda index: bool(boxes_xywh[index, 2] > 0)):
            indices = list(run)
            if is_there and len(indices) >= _LEAST_FRAMES:
                chosen = [boxes_xywh[index].tolist() for index in indices]
                _write_sequence([frames[index] for index in indices], chosen, target / f"{camera}_{indices[0]:04d}")


def _runs_of_one_thing(frames: Iterable[Things]) -> Iterator[tuple[int, list[list[float]], str]]:
    """The stretches in which one thing of one label is in view, and its box does not jump.

    Yields:
        The number of a stretch's first frame, the thing's box x, y, w, h in each of its frames, and the label.
    """
    start, run_label = 0, ""
    run_xywh: list[list[float]] = []
    for index, (boxes_xywh, labels) in enumerate((*frames, ([], []))):
        goes_on = bool(run_xywh) and labels == [run_label] and _overlap(run_xywh[-1], boxes_xywh[0]) >= _LEAST_OVERLAP
        if run_xywh and not goes_on:
            yield start, run_xywh, run_label
            run_xywh = []
        if len(labels) == 1:
            if not goes_on:
                start, run_label = index, labels[0]
            run_xywh.append(boxes_xywh[0])


def _overlap(a_xywh: list[float], b_xywh: list[float]) -> float:
    return float(iou_xywh(torch.tensor(a_xywh), torch.tensor(b_xywh)))


def _fod_a(checkout: Path, target: Path) -> None:
    annotations = sorted((checkout / "Annotations").glob("*.xml"))
    images = [checkout / f"JPEGImages/{annotation.stem}.jpg" for annotation in annotations]
    things = [
        _objects(annotation) if image.is_file() else ([], [])
        for annotation, image in zip(annotations, images, strict=True)
    ]
    for start, boxes_xywh, label in _runs_of_one_thing(things):
        if len(boxes_xywh) >= _LEAST_FRAMES:
            frames = images[start : start + len(boxes_xywh)]
            _write_sequence(frames, boxes_xywh, target / f"{frames[0].stem}_{label}")


_SKY_KINDS = ("airplane", "bird", "drone", "helicopter")
_SKY_STRIDE = 3  # ten frames per second
_SKY_LEAST_SIDE = 36  # px, sqrt(w h); boxes of things that are smaller have much room about them
_SKY_SHOWN = "V_HELICOPTER_028"  # the README's example: not to train on
_MATLAB_BOXES = re.compile(
    # The head of a matrix of doubles that has no name: its rows, and four columns, or none where there is no row.
    rb"\x06\0{3}\x08\0{3}\x06\0{7}\x05\0{3}\x08\0{3}(....)[\0\x04]\0{3}\x01\0{7}\x09\0{3}....",
    re.DOTALL,
)


def _svanstrom(checkout: Path, target: Path) -> None:
    """Things in the sky, filmed from the ground; frames with several, or with one that is small, are left out."""
    for video in sorted((checkout / "Data/Video_V").glob("*.mp4")):
        if video.stem == _SKY_SHOWN:
            continue
        things = _sky_things(video.with_name(f"{video.stem}_LABELS.mat"))
        places: dict[int, Path] = {}  # of the frames to keep
        for start, boxes_xywh, _ in _runs_of_one_thing(found if _are_tight(found[0]) else ([], []) for found in things):
            kept_xywh = boxes_xywh[::_SKY_STRIDE]
            if len(kept_xywh) >= _LEAST_FRAMES:
                folder = target / f"{video.stem}_{start:03d}"
                (folder / "img").mkdir(parents=True)
                write_boxes(folder / "groundtruth.txt", np.array(kept_xywh))
                for number in range(len(kept_xywh)):
                    places[start + _SKY_STRIDE * number] = folder / "img" / f"{number + 1:08d}.jpg"
        count = 0
        for count, image in enumerate(open_frames(video), 1):
            if (place := places.get(count - 1)) is not None:
                cv2.imwrite(str(place), np.ascontiguousarray(image[..., ::-1]), _JPEG)
        if count != len(things):
            raise ValueError(f"{video.name} has {count} frames, and labels for {len(things)}")


def _sky_things(labels: Path) -> list[Things]:
    """The things in each frame; scipy hands out MATLAB's `groundTruth` as bytes, with a matrix per frame and kind."""
    content = scipy.io.loadmat(labels)["__function_workspace__"].tobytes()
    cells = []
    for match in _MATLAB_BOXES.finditer(content):
        rows = int.from_bytes(match[1], "little")
        columns = np.frombuffer(content, "<f8", 4 * rows, match.end()).reshape(4, rows)
        cells.append((columns.T - (1, 1, 0, 0)).tolist())  # MATLAB counts from 1
    frames = [cells[index : index + len(_SKY_KINDS)] for index in range(0, len(cells), len(_SKY_KINDS))]
    return [
        (list(chain(*frame)), [kind for kind, boxes_xywh in zip(_SKY_KINDS, frame, strict=True) for _ in boxes_xywh])
        for frame in frames
    ]


def _are_tight(boxes_xywh: list[list[float]]) -> bool:
    return all(w * h >= _SKY_LEAST_SIDE**2 for _, _, w, h in boxes_xywh)


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "davis16_val": _davis16_val,
    "svanstrom": _svanstrom,
    "fod_a": _fod_a,
    "w_tracking": _w_tracking,
    "ecssd": partial(_write_photographs, partial(_masked, "data/images", "data/ground_truth_mask")),
    "bsds500": partial(_write_photographs, _bsds500),
    "human_segmentation": partial(_write_photographs, partial(_masked, "Training_Images", "Ground_Truth")),
    "clothing_coparsing": partial(_write_photographs, _clothing_coparsing),
    "camvid": partial(_write_photographs, _camvid),
    "vedai_aerial": partial(_write_photographs, _vedai_aerial, side=_AERIAL_SIDE),
    "aerial_cars": partial(_write_photographs, _aerial_cars, side=_AERIAL_SIDE),
    "raccoon": partial(_write_photographs, partial(_animals, "annotations")),
    "kangaroo": partial(_write_photographs, partial(_animals, "annots")),
    # Shelves; not the products' pictures, which have white backgrounds.
    "grocery_store": partial(_copy_backgrounds, [f"dataset/{part}/**/*.jpg" for part in ("train", "val", "test")]),
    "caltech101": partial(_copy_backgrounds, ["101_ObjectCategories/**/*.jpg"]),
    "imagenet_sample": partial(_copy_backgrounds, ["*.JPEG"]),
}
"""What makes a set of a checkout, by the set's name in photo_sets.csv."""

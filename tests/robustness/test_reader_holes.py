"""Readers of data refuse what once passed them by: one sentence, and nothing is waited for, written or scored."""

import json
import os
import shutil
import struct

import cv2
import numpy as np
import pytest

from refusals import refused
from relo.data.intact_frames import decode_intact
from relo.data.sequences import COCO, Photographs
from relo.data.sequences.base import ImageFiles, decode_frame
from relo.data.sequences.frame_files import natural_key
from relo.data.sequences.parsing import parse_box, parse_rows, read_numbers
from relo.data.sequences.specification import Place, canonical_name
from relo.data.sequences.tables import read_table
from relo.data.sequences.traps import got10k_image_size, read_vatic
from relo.data.store_environment import reserve_lock
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.image_sources import find_sources
from relo.errors import UserError

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (72, 96, 3), np.uint8))[1].tobytes()
SMALL = {"sequences": 2, "frames": 4, "width": 96, "height": 72, "workers": 0, "split": "test"}


# ---------------------------------------------------------------------------------------------------------------- COCO


def coco(root, number: object = 7, image: str = "a.jpg"):
    (root / "annotations").mkdir()
    (root / "images/val2017").mkdir(parents=True)
    (root / "images/val2017/a.jpg").write_bytes(JPEG)
    (root / "a.jpg").write_bytes(JPEG)
    content = {
        "images": [{"id": 1, "file_name": image}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": number, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}],
    }
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("number", ["../evil", "x\0y", "\ud800", "7", 7.0, True, None, [7], 2**63])
def test_an_annotation_of_coco_is_called_by_a_number(tmp_path, number):
    with pytest.raises(UserError, match=r"instances_val2017\.json is not .*the id of an annotation is no whole number"):
        COCO(coco(tmp_path, number), "val2017").names  # noqa: B018


@pytest.mark.parametrize("image", ["../../a.jpg", "/a.jpg", "..\\a.jpg", "C:\\a.jpg"])
def test_an_image_of_coco_lies_in_its_folder(tmp_path, image):
    with pytest.raises(UserError, match="leads out of the images' folder"):
        COCO(coco(tmp_path, image=image), "val2017").names  # noqa: B018


def test_a_name_stands_once_in_an_object_of_coco(tmp_path):
    file = coco(tmp_path) / "annotations/instances_val2017.json"
    file.write_text(file.read_text().replace('"id": 7', '"id": 7, "id": 8'))
    with pytest.raises(UserError, match=r"instances_val2017\.json has two values named 'id'; keep one of them"):
        COCO(tmp_path, "val2017").names  # noqa: B018


def test_coco_as_it_is(tmp_path):
    assert COCO(coco(tmp_path, 2**62), "val2017")[0].name == str(2**62)


@pytest.mark.parametrize("split", ["a" * 250, "a\0"])
def test_a_split_that_no_file_can_be_called_by(tmp_path, split):
    with pytest.raises(UserError, match="There is no file"):
        COCO(coco(tmp_path), split)


# ------------------------------------------------------------------------------------------------------------- numbers


def test_underscores_are_in_no_number(tmp_path):
    with pytest.raises(ValueError, match="line 2: '1_5 2 3 4' is not 4 numbers"):
        parse_rows("1,2,3,4\n1_5,2,3,4\n", 4)
    with pytest.raises(ValueError, match="is not 4 numbers"):
        parse_box("1_0,10,20,20")
    (tmp_path / "a.txt").write_text("1\n1_0\n")
    with pytest.raises(UserError, match="line 2: numbers expected, '1_0' found"):
        read_numbers(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text('0 1_0 1 5 5 0 0 0 0 "a_b"\n')
    with pytest.raises(UserError, match="line 1: no row of a VATIC annotation"):
        read_vatic(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text('0 1 1 5 5 0 0 0 0 "a_b"\n')
    assert read_vatic(tmp_path / "a.txt")[0].tolist() == [[1, 1, 4, 4]]


@pytest.mark.parametrize("line", ["(0, 72)", "(96, 0)", "(9x, 72)", "96 x 72", "", f"({'9' * 5000}, 1)"])
def test_a_size_that_would_change_scores(tmp_path, line):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/meta_info.ini").write_text(f"[METAINFO]\nresolution: {line}\nbegin: 0\n")
    with pytest.raises(UserError, match=r"a/meta_info\.ini has resolution .*, which is no size"):
        got10k_image_size(Place(tmp_path, {"name": "a"}))


@pytest.mark.parametrize(
    ("text", "size"),
    [("resolution: (96, 72)\n", (96, 72)), ("resolution = ( 96,72 ) \r\n", (96, 72)), ("begin: 0\n", None), ("", None)],
)
def test_a_size_or_none(tmp_path, text, size):
    (tmp_path / "meta_info.ini").write_text(f"[METAINFO]\n{text}")
    assert got10k_image_size(Place(tmp_path.parent, {"name": tmp_path.name})) == size


@pytest.mark.parametrize("last", ["", "0", "6"])
def test_frames_of_a_table_are_counted_from_one(tmp_path, last):
    (tmp_path / "t.csv").write_text(f"sequence,folder,annotation,first,last\nA,A,g.txt,0,{last}\n")
    with pytest.raises(UserError, match=r"A has no range of frames, but first '0' .*; frames are counted from 1\."):
        read_table("otb100.csv", tmp_path / "t.csv")


# -------------------------------------------------------------------------------------------------------------- images


def test_a_table_without_codes_in_a_jpeg():
    empty = b"\xff\xc4\0\x13\x10" + bytes(16) + b"\xff\xfe\0\x2a" + bytes(40)
    encoded = JPEG[:2] + empty + JPEG[2:]
    np.testing.assert_array_equal(decode_intact(encoded, "frame"), decode_frame(JPEG, "frame"))


@pytest.mark.parametrize(
    "encoded",
    [
        b"GIF89a"
        + struct.pack("<HH", 15000, 15000)
        + b"\x80\0\0"
        + bytes(6)
        + b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02D\1\0;",
        b"P5 15000 15000 255\n",
        b"PF\n15000 15000\n-1.0\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 15000 +X 15000\n",
        struct.pack(">8I", 0x59A66A95, 15000, 15000, 24, 0, 1, 0, 0),
        b"\0\0\0\x20ftypavif" + bytes(20),
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"RIFF\0\0\0\0WAVE",
        b"II+\0\x08\0\0\0",
        b"",
    ],
    ids=["GIF", "PNM", "PFM", "HDR", "Sun", "AVIF", "JPEG 2000", "WAVE", "BigTIFF", "empty"],
)
@pytest.mark.parametrize("decode", [decode_frame, decode_intact])
def test_kinds_whose_size_is_not_known_are_not_decoded(monkeypatch, encoded, decode):
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(UserError, match=r"^frame is not a readable image "):
        decode(encoded, "frame")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_kinds_that_are_read(suffix):
    encoded = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    assert decode_frame(encoded, "frame").shape == decode_intact(encoded, "frame").shape == (30, 50, 3)


def test_a_file_of_terabytes_is_not_read(tmp_path):
    photograph = tmp_path / "images/a.jpg"
    photograph.parent.mkdir()
    with photograph.open("wb") as file:
        file.truncate(1 << 42)
    (tmp_path / "boxes.jsonl").write_text('{"image": "a.jpg", "boxes_xywh": [[1, 1, 9, 9]]}\n')
    for read in (
        lambda: ImageFiles(photograph.parent, ("a.jpg",))[0],
        lambda: Photographs(tmp_path, "train").names,
        lambda: find_sources([tmp_path], [tmp_path], "train"),
    ):
        with pytest.raises(UserError, match=r"a\.jpg has 4,194,304 MiB; at most 512 MiB"):
            read()


# --------------------------------------------------------------------------------------------------------------- names


def test_long_numbers_in_names_sort_as_numbers():
    digits = "1" * 5000
    expected = ["a2", "a010", f"a{digits}", f"a{digits}0", "aa", "b1"]
    assert sorted({*expected}, key=natural_key) == expected
    assert natural_key("a007") == natural_key("A7") == natural_key("a\u0667")
    assert natural_key("0") == natural_key("00") < natural_key("1") < natural_key("a")


@pytest.mark.parametrize("image", ["b\0.jpg", "b\ud800.jpg"])
@pytest.mark.parametrize("split", ["all", "train"])
def test_photographs_that_no_file_can_be_called_by(tmp_path, image, split):
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": image, "boxes_xywh": [[1, 1, 9, 9]]}))
    with pytest.raises(UserError, match=r"boxes\.jsonl, line 1: 'b.*jpg' is not the name of an image"):
        Photographs(tmp_path, split).names  # noqa: B018


@pytest.mark.parametrize("split", ["all", "train"])
def test_a_photograph_with_a_name_too_long(tmp_path, split):
    (tmp_path / "images").mkdir()
    line = {"image": "1" * 5000 + ".jpg", "boxes_xywh": [[1, 1, 9, 9]]}
    (tmp_path / "boxes.jsonl").write_text(json.dumps(line))
    with pytest.raises(UserError, match=r"boxes\.jsonl.*'1111.* is not the name of an image"):
        Photographs(tmp_path, split)[0]


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("Jogging(2)", "jogging_2"),
        ("__MotorRolling--1 ", "motorrolling_1"),
        ("猫1", "猫1"),
        ("Кот-2", "кот_2"),
        ("cafe\u0301", "café"),
        ("कि", "कि"),
        ("🐱", "🐱"),
        ("", ""),
    ],
)
def test_letters_of_any_script_make_a_name(name, canonical):
    assert canonical_name(name) == canonical


def test_options_of_readers_have_names(tmp_path, capsys):
    error = refused(capsys, "data", "pack", "lasot", tmp_path, tmp_path / "store", "--reader", "{1: 2}")
    assert "--reader has 1 in place of a setting's name" in error


def test_a_split_that_looks_like_markup(tmp_path, capsys):
    error = refused(capsys, "data", "doctor", coco(tmp_path), "--split", "[/b]", "--workers", "0")
    assert "instances_[/b].json" in error


# --------------------------------------------------------------------------------------------------------------- pipes


def test_pipes_are_not_waited_for(tmp_path):
    (tmp_path / "boxes.jsonl").write_text('{"image": "a.jpg", "boxes_xywh": [[1, 1, 9, 9]]}\n')
    (tmp_path / "images").mkdir()
    pipes = [tmp_path / "images/a.jpg", tmp_path / "lock.mdb", tmp_path / "synthetic_test.json"]
    for pipe in pipes:
        os.mkfifo(pipe)
    for wait in (
        lambda: Photographs(tmp_path, "train").names,
        lambda: reserve_lock(pipes[1]),
        lambda: synthesize(tmp_path, layout="plain", **SMALL),
    ):
        with pytest.raises(UserError, match=r"(a\.jpg|lock\.mdb|synthetic_test\.json) is a pipe or a device"):
            wait()


# ----------------------------------------------------------------------------------------------------------- synthesis


@pytest.mark.parametrize(
    ("layout", "lost", "folder"),
    [
        ("otb100", "Badge1/img", "Badge1"),
        ("uav123", "anno/UAV123/badge1.txt", "data_seq/UAV123/badge1"),
        ("uav123", "anno/UAV123/badge2_1.txt", "data_seq/UAV123/badge2"),
    ],
)
def test_a_damaged_sequence_is_named_and_made_anew(tmp_path, layout, lost, folder):
    settings = SMALL | {"frames": 6}
    synthesize(tmp_path, layout=layout, **settings)
    if (tmp_path / lost).is_dir():
        shutil.rmtree(tmp_path / lost)
    else:
        (tmp_path / lost).unlink()
    with pytest.raises(UserError, match=rf"{lost} cannot be read .*; delete {tmp_path / folder}, and run again"):
        synthesize(tmp_path, layout=layout, **settings)
    shutil.rmtree(tmp_path / folder)
    synthesize(tmp_path, layout=layout, **settings)
    assert (tmp_path / lost).exists()


@pytest.fixture
def images(tmp_path):
    """A dozen photographs and as many cut-outs, in folders `scenes` and `things`."""
    rng = np.random.default_rng(0)
    for name in ("scenes", "things"):
        (tmp_path / name).mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"scenes/{number}.png"), rng.integers(0, 255, (60, 80, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"things/{number}.png"), cut_out(number))
    return tmp_path


def cut_out(seed: int):
    image = np.random.default_rng(seed).integers(0, 255, (60, 50, 4)).astype(np.uint8)
    image[..., 3] = 0
    image[10:50, 10:40, 3] = 255
    return image


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32, np.uint16])
def test_only_whole_numbers_of_8_or_16_bits_are_pixels(images, kind):
    pixels = cut_out(99).astype(kind) * (257 if kind is np.uint16 else 1)
    cv2.imwrite(str(images / "things/odd.tif"), pixels)
    if kind is np.uint16:
        find_sources([images / "scenes"], [images / "things"], "train")
    else:
        with pytest.raises(
            UserError, match=rf"odd\.tif has pixels of type {np.dtype(kind)}; save it with 8 or 16 bits"
        ):
            find_sources([images / "scenes"], [images / "things"], "train")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"image": "0.png", "labels": "cat"}'])
def test_a_line_of_labels_that_is_none(images, line):
    (images / "things/boxes.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(UserError, match=r"boxes\.jsonl, line 2, is no JSON object with .*, a list of words"):
        find_sources([images / "scenes"], [images / "things"], "train")


def test_blank_lines_among_labels(images):
    lines = [json.dumps({"image": f"{number}.png", "labels": ["cat"]}) for number in range(12)]
    (images / "things/boxes.jsonl").write_text("\n \n".join(lines) + "\n\n")
    assert set(find_sources([images / "scenes"], [images / "things"], "train").cut_outs_of_kinds) == {"cat"}


def test_a_pipe_of_labels(images):
    os.mkfifo(images / "things/boxes.jsonl")
    with pytest.raises(UserError, match=r"boxes\.jsonl is a pipe or a device"):
        find_sources([images / "scenes"], [images / "things"], "train")

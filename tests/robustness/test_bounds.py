"""Sizes are bounded before memory is taken, and what is no regular file is refused: one sentence, exit code 2."""

import errno
import json
import os
import struct
import zipfile
import zlib
from copy import copy
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import yaml

from refusals import refused
from relo.commands.main import main
from relo.data.clip_store import ClipStore
from relo.data.image_headers import announced_pixels
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.sequences.base import decode_frame
from relo.data.store_environment import forget_environment
from relo.errors import UserError, excerpt
from relo.files import load_yaml, read_yaml, unwritable, write_text
from relo.models.checkpoints.states import read_torch_file
from relo.yaml_traps import MOST_NODES

FRAME = cv2.imencode(".jpg", np.zeros((32, 40, 3), np.uint8))[1].tobytes()


@pytest.fixture
def scored(tmp_path) -> Path:
    """A folder with annotations in `gt` and results in `res` of one sequence."""
    for name in ("gt", "res"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Basketball.txt").write_text("1,1,9,9\n2,2,9,9\n")
    return tmp_path


def evaluation(folder: Path, results: str = "res", annotations: str = "gt") -> list[object]:
    return ["evaluate", folder / results, "--benchmark", "otb100", "--annotations", folder / annotations]


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["res/Basketball.txt", "gt/Basketball.txt"])
@pytest.mark.parametrize("target", ["pipe", "/dev/null", "/dev/zero"])
def test_no_regular_file(name, target, scored, capsys):
    if target == "pipe":
        replaced_by_a_pipe(scored / name)
    else:
        (scored / name).unlink()
        (scored / name).symlink_to(target)
    assert "is a pipe or a device" in refused(capsys, *evaluation(scored))


def test_pipes_in_the_place_of_roots_rules_and_models(scored, capsys, tmp_path):
    for name in ("a.zip", "a.json", "rule.yaml", "model.ckpt", "truth.txt", "config.yaml"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/1.jpg").write_bytes(FRAME)
    track = ["track", tmp_path / "frames", "--box", "1,1,9,9"]
    for arguments in (
        evaluation(scored, results="a.zip"),
        evaluation(scored, annotations="a.zip"),
        evaluation(scored, annotations="a.json"),
        [*track, "--rule", tmp_path / "rule.yaml"],
        [*track, "--model", tmp_path / "model.ckpt"],
        [*track, "--truth", tmp_path / "truth.txt"],
        ["import", tmp_path / "model.ckpt", "--variant", "b256", "--output", tmp_path / "model"],
        ["fit", "--config", tmp_path / "config.yaml"],
    ):
        assert "is a pipe or a device" in refused(capsys, *arguments)


def test_a_text_file_too_large(scored, capsys):
    with (scored / "res/Basketball.txt").open("wb") as file:
        file.truncate(2**25)
    assert "at most 16 MiB" in refused(capsys, *evaluation(scored))


def test_a_long_line_is_quoted_in_part(scored, capsys):
    (scored / "res/Basketball.txt").write_text("a,b,c," + "d" * 3_000_000)
    assert "'a b c ddd" in refused(capsys, *evaluation(scored))


@pytest.mark.parametrize(("files", "rows"), [(1, 3_000_000), (40, 1_800_000)])
def test_a_zip_that_expands_far(files, rows, scored, capsys):
    with zipfile.ZipFile(scored / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Basketball.txt", "1,1,9,9\n" * rows)
        entry = archive.infolist()[0]
        for number in range(files - 1):  # one content under many names
            twin = zipfile.ZipInfo(f"s{number}.txt")
            for attribute in ("file_size", "compress_size", "CRC", "header_offset", "compress_type"):
                setattr(twin, attribute, getattr(entry, attribute))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    assert f"{16 if files == 1 else 512} MiB" in refused(capsys, *evaluation(scored, results="bomb.zip"))


def test_a_zip_whose_files_lie_one_upon_another(scored, capsys):
    with zipfile.ZipFile(scored / "res.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("Basketball.txt", "1,1,9,9\n" * 1000)
        twin = copy(archive.infolist()[0])
        twin.filename = "Other.txt"
        archive.filelist.append(twin)
        archive.NameToInfo[twin.filename] = twin
    assert "files that lie one upon another" in refused(capsys, *evaluation(scored, results="res.zip"))


@pytest.mark.parametrize(
    "content",
    [
        '{"Basketball": {"gt_rect": [[1, 1, 1, 1' + "0" * 400 + "]]}}",
        '{"Basketball": {"gt_rect": [[1, 1, 1, 1' + "0" * 5000 + "]]}}",
        '{"Basketball": {"gt_rect": [["one", 1, 1, 1]]}}',
        '{"Basketball": {"gt_rect": ' + "[" * 70 + "]" * 70 + "}}",
        "[" * 100_000,
        '{"Basketball": 3}',
        "[1]",
        '{"' + "x" * 10**6 + '": {"gt_rect": 3}}',
        "",
    ],
)
def test_json_annotations_of_something_else(content, scored, capsys):
    (scored / "a.json").write_text(content)
    assert "a.json" in refused(capsys, *evaluation(scored, annotations="a.json"))


def nested_aliases(levels: int, width: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines)


def test_yaml_with_nested_aliases(tmp_path, capsys):
    path = tmp_path / "bomb.yaml"
    path.write_text(nested_aliases(12))
    with pytest.raises(UserError, match=f"more than {MOST_NODES:,} values"):
        read_yaml(path, "The file")
    assert "more than" in refused(capsys, "fit", "--config", path)


def test_yaml_whose_merges_grow(tmp_path):
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n  k{i}: 1" for i in range(1, 9)]
    with pytest.raises(yaml.YAMLError, match="more than"):
        load_yaml("\n".join(lines))
    with pytest.raises(yaml.YAMLError, match="lies within"):
        load_yaml("a: &a [*a]")


def test_aliases_of_everyday_size_are_read():
    assert load_yaml("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}")["d"] == {"b": [1, 2], "e": 3}


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + header + bytes(100)


def tiff(width: int, height: int, order: str = "<") -> bytes:
    return tiff_of([(256, 4, 1, width), (257, 4, 1, height)], order)


def tiff_of(sides: list[tuple[int, int, int, int]], order: str) -> bytes:
    tags = [*sides, (258, 3, 1, 8), (273, 4, 1, 200), (279, 4, 1, 100)]
    entries = b"".join(struct.pack(order + "HHII", *tag) for tag in tags)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(300)


@pytest.mark.parametrize("encode", [png, bmp, tiff, lambda *size: tiff(*size, ">")])
def test_an_image_that_declares_too_much(encode):
    assert announced_pixels(encode(60000, 60000)) == (60000, 60000)
    with pytest.raises(UserError, match="60000 x 60000 px, where at most"):
        decode_frame(encode(60000, 60000), "frame")


@pytest.mark.parametrize(
    "tags",
    [
        [(256, 4, 1, 60000), (256, 4, 1, 8)],
        [(256, 16, 1, 8)],
        [(256, 4, 1, 8), (322, 4, 1, 60000), (323, 4, 1, 60000)],
    ],
    ids=["a side twice", "a side of eight bytes", "tiles"],
)
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_that_declares_too_much_in_other_ways(tags, order):
    with pytest.raises(UserError, match=r"\d{5,} x \d{5,} px, where at most"):
        decode_frame(tiff_of([*tags, (257, 4, 1, 60000)], order), "frame")


def test_a_jpeg_of_a_thousand_scans():
    parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    encoded = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8), parameters)[1].tobytes()
    assert decode_frame(encoded, "frame").shape == (64, 64, 3)
    assert decode_frame(encoded + 1000 * b"\xff\xda", "frame").shape == (64, 64, 3)  # a video behind it
    last = encoded.rindex(b"\xff\xda")
    with pytest.raises(UserError, match=r"frame is not a readable image .10.. scans, where at most 500 are read"):
        decode_frame(encoded[:-2] + 1000 * encoded[last:-2] + b"\xff\xd9", "frame")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_sizes_of_headers(suffix):
    encoded = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    assert announced_pixels(encoded) == (50, 30)
    assert all(announced_pixels(encoded[:length]) is not False for length in range(len(encoded)))


def test_packing_an_image_that_declares_too_much(tmp_path, capsys):
    (tmp_path / "root/one/img").mkdir(parents=True)
    (tmp_path / "root/one/img/1.png").write_bytes(png(60000, 60000))
    (tmp_path / "root/one/groundtruth.txt").write_text("1,1,9,9\n")
    assert "60000 x 60000" in refused(capsys, "data", "pack", "plain", tmp_path / "root", tmp_path / "s", "--workers=0")


def plain(root: Path) -> Path:
    (root / "one/img").mkdir(parents=True)
    (root / "one/img/1.jpg").write_bytes(FRAME)
    (root / "one/groundtruth.txt").write_text("1,1,9,9\n")
    return root


@pytest.mark.parametrize(
    "arguments",
    [
        ["track", "frames", "--box", "1,1,9,9", "--save"],
        ["track", "frames", "--box", "1,1,9,9", "--render"],
        ["track", "frames", "--box", "1,1,9,9", "--model"],
        ["data", "pack", "plain", "root"],
        ["data", "doctor"],
        ["data", "verify"],
        ["export", "--model", "relo-small", "--output"],
        ["evaluate", "res", "--benchmark", "otb100", "--annotations", "gt", "--json"],
    ],
)
def test_a_name_of_300_characters(arguments, capsys):
    assert "at most 255 bytes" in refused(capsys, *arguments, "x" * 300)


@pytest.mark.parametrize("command", [["data", "verify"], ["data", "doctor"], ["data", "synthesize"]])
def test_a_name_of_bytes_that_are_no_text(command, capsys):
    said = refused(capsys, *command, os.fsdecode(b"x\xff"))
    assert r"The name 'x\udcff' has bytes that are no UTF-8; rename the file or folder." in said


@pytest.mark.parametrize("workers", ["-1", "5000"])
def test_a_number_of_workers_out_of_range(workers, tmp_path, capsys):
    arguments = ["data", "pack", "plain", plain(tmp_path / "root"), tmp_path / "store", "--workers", workers]
    assert f"workers = {workers}" in refused(capsys, *arguments)


@pytest.mark.parametrize(("option", "value"), [("--templates", -1), ("--templates", 0), ("--batch", -1)])
def test_an_export_of_a_size_out_of_range(option, value, tmp_path, capsys):
    assert f"= {value}" in refused(
        capsys, "export", "--model", "relo-small", "--output", tmp_path / "graphs", option, value
    )


@pytest.mark.parametrize("settings", ['{"partial": [1]}', '{"list_file": 3}', '{"split": "x"}', '{"zero_based": 2}'])
def test_settings_of_a_reader(settings, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    arguments = ["data", "pack", "vasttrack", tmp_path / "root", tmp_path / "store", "--reader", settings]
    assert next(iter(json.loads(settings))) in refused(capsys, *arguments)


def test_a_list_file_given_as_text(tmp_path):
    folder = tmp_path / "root/Bird/Bird-1"
    (folder / "imgs").mkdir(parents=True)
    (folder / "imgs/00001.jpg").write_bytes(FRAME)
    (folder / "Groundtruth.txt").write_text("1,1,9,9\n")
    (tmp_path / "list.txt").write_text("Bird-1\n")
    reader = open_reader("vasttrack", tmp_path / "root", "train", list_file=str(tmp_path / "list.txt"))
    assert reader.names == ["Bird-1"]


@pytest.fixture
def uav123(tmp_path):
    (tmp_path / "data_seq/UAV123/bike1").mkdir(parents=True)
    (tmp_path / "anno/UAV123").mkdir(parents=True)
    (tmp_path / "data_seq/UAV123/bike1/000001.jpg").write_bytes(FRAME)
    (tmp_path / "anno/UAV123/bike1.txt").write_text("1,1,9,9\n")
    return tmp_path


def test_a_blank_first_line_of_a_table(uav123):
    (uav123 / "anno/UAV123/ranges.csv").write_text("\nsequence,folder,first,last\nbike1,bike1,1,1\n")
    assert [sequence.name for sequence in open_reader("uav123", uav123)] == ["bike1"]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("sequence,folder,first,last\nb,bike1,1,1\nb,bike1,1,\n", " has two rows named 'b'; keep one of them."),
        ("sequence,folder,first,last,first\nb,bike1,1,1,1\n", " has two columns named 'first'; keep one of them."),
        (f"sequence,folder,first,last\n{'b' * 3000},bike1,1,1\n", "bbb...' is no name that a file can have."),
    ],
)
def test_a_table_that_cannot_be_used(table, fault, uav123, capsys):
    (uav123 / "anno/UAV123/ranges.csv").write_text(table)
    said = refused(capsys, "data", "pack", "uav123", uav123, uav123 / "store", "--split", "test")
    assert "ranges.csv" in said
    assert said.endswith(fault)


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": []},
        {"bbox": [1] * 8},
        {"bbox": [10**400, 1, 1, 1]},
        {"bbox": [True, 1, 9, 9]},
        {"iscrowd": 1},  # there is nothing beside the crowd
        {"iscrowd": float("nan")},
        {"iscrowd": [1]},
        {"iscrowd": 99},
        {"image_id": True},
        {"image_id": 1.0},
        {"category_id": 1.0},
    ],
)
def test_coco_with_something_else(change, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]} | change],
    }
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not a COCO annotation file"):
        _ = open_reader("coco", tmp_path, "val2017").names


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (b"manifest", {"names": 3}),
        (b"manifest", {"names": [[1]]}),
        (b"manifest", {"broken": None}),
        (b"manifest", {"complete": "no"}),
        (b"manifest", {"dataset": [3]}),
        (b"manifest", {"options": {"cut": "a"}}),
        (b"00000000/header", {"frames": "a"}),
        (b"00000000/header", {"frames": 10**12}),
        (b"00000000/header", {"name": 3}),
    ],
)
def test_a_store_with_values_of_a_wrong_type(key, change, tmp_path, capsys):
    pack(open_reader("plain", plain(tmp_path / "root")), tmp_path / "store", split="all", workers=0)
    forget_environment(tmp_path / "store")
    environment = lmdb.open(str(tmp_path / "store"), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        content = json.dumps(json.loads(transaction.get(key)[:-4]) | change).encode()
        transaction.put(key, content + zlib.crc32(content).to_bytes(4, "little"))
    environment.close()
    assert str(tmp_path / "store") in refused(capsys, "data", "verify", tmp_path / "store", "--workers=0")


def test_a_device_is_no_checkpoint():
    with pytest.raises(UserError, match="is a pipe or a device"):
        read_torch_file(Path("/dev/zero"))


def test_what_is_quoted():
    assert excerpt("x" * 10**6) == repr("x" * 80 + "...")
    assert excerpt(10**5000) == "a number of over 80 digits"
    assert len(str(UserError("y" * 10**6))) < 1000


def test_a_path_that_is_too_long_is_quoted_in_part(tmp_path):
    for length, most in ((990 - len(str(tmp_path)), 1100), (10**7, 200)):
        path = tmp_path / ("x" * length)
        with pytest.raises(UserError, match=r"cannot be written \(the name is too long\)") as error:
            write_text(path / "y" / ("z" * 300), "")
        assert len(error.value.args[0]) < most
    assert str(unwritable(path, OSError(errno.ENOSPC, "no space"))).startswith(repr(str(path)[:80] + "..."))


def test_what_synthesize_writes_in_otbs_layout_can_be_scored(tmp_path, capsys):
    size = ["--frames", "12", "--width", "160", "--height", "120", "--workers", "0", "--sequences", "4"]
    main(["data", "synthesize", str(tmp_path / "root"), "--layout", "otb100", "--split", "test", *size])
    (tmp_path / "res").mkdir()
    for sequence in open_reader("otb100", tmp_path / "root"):
        np.savetxt(tmp_path / "res" / f"{sequence.name}.txt", sequence.boxes_xywh, delimiter=",")
    main([str(argument) for argument in evaluation(tmp_path, annotations="root")])
    assert "4 sequences" in capsys.readouterr().out


def test_infinite_annotations_are_remarked_on(scored, capsys):
    (scored / "gt/Basketball.txt").write_text("1,1,9,9\ninf,2,9,9\n")
    main([str(argument) for argument in evaluation(scored)])
    assert "1 annotated rows are infinite" in capsys.readouterr().out


def test_an_empty_mask_of_a_40_megapixel_photograph_is_read():
    encoded = cv2.imencode(".png", np.zeros((5000, 8000), np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    assert decode_frame(encoded, "mask.png", cv2.IMREAD_GRAYSCALE).shape == (5000, 8000)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "a: [" + "[" * 200 + "]" * 201])
def test_yaml_nested_too_deeply(text, tmp_path):
    (tmp_path / "rule.yaml").write_text(text)
    with pytest.raises(UserError, match="lie within one another over 100 times"):
        read_yaml(tmp_path / "rule.yaml", "The rule")


@pytest.mark.parametrize("number", ["1e308", "-1e10", "inf"])
def test_boxes_beyond_any_image_are_remarked_on(number, scored, capsys):
    for place, remark in (("res", "1 rows are infinite or beyond"), ("gt", "1 annotated rows are infinite or beyond")):
        (scored / place / "Basketball.txt").write_text(f"1,1,9,9\n2,2,{number},9\n")
        main([str(argument) for argument in evaluation(scored)])
        assert remark in capsys.readouterr().out


def test_boxes_beyond_any_image_are_packed_as_none(tmp_path, capsys):
    root = plain(tmp_path / "root")
    (root / "one/img/2.jpg").write_bytes(FRAME)
    (root / "one/groundtruth.txt").write_text("1,1,9,9\n1,1,1e308,9\n")
    main(["data", "pack", "plain", str(root), str(tmp_path / "store"), "--workers", "0"])
    assert "has 1 boxes with numbers that are infinite or beyond 1e+09" in " ".join(capsys.readouterr().out.split())
    assert ClipStore(tmp_path / "store")[0].visible.tolist() == [True, False]


@pytest.mark.parametrize("setting", ["--max_side=" + "9" * 400, "--cut=1e308", "--quality=1000000000"])
def test_absurd_settings_of_packing(setting, tmp_path, capsys):
    plain(tmp_path / "root")
    pack_it = ["data", "pack", "plain", tmp_path / "root", tmp_path / "store", "--workers=0", setting]
    assert "Packing has " in refused(capsys, *pack_it)


def test_a_folder_that_may_not_be_entered(monkeypatch, capsys):
    def enter(arguments: list[str]) -> None:
        raise PermissionError(13, "Permission denied", "model/config.yaml")

    monkeypatch.setattr("relo.commands.main.run", enter)
    assert "model/config.yaml cannot be opened (permission denied)" in refused(capsys, "track")


def test_a_pipe_that_nothing_reads(scored, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("relo.files._READER_COMES", 0.1)
    os.mkfifo(tmp_path / "scores.json")
    assert "is a pipe that nothing reads" in refused(capsys, *evaluation(scored), "--json", tmp_path / "scores.json")


@pytest.mark.parametrize("part", ["trainer", "model", "data"])
def test_a_part_of_a_config_that_names_no_file(part, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f'{part}: "a\\0b"\n')
    assert "'a\\x00b' has a null character" in refused(capsys, "fit", "--config", tmp_path / "config.yaml")
    assert "has a null character" in refused(capsys, "fit", f"--{part}=\0")


def test_a_config_of_a_name_that_no_file_has(capsys):
    assert "is no name that a file can have" in refused(capsys, "fit", "--config", "a\0b")


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 5000])
def test_a_number_beyond_floats(number, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f"trainer:\n  gradient_clip_val: {number}\n")
    assert "a number of over 300 digits" in refused(capsys, "fit", "--config", tmp_path / "config.yaml")
    refused(capsys, "fit", f"--trainer.gradient_clip_val={number}")
    assert "cut" in refused(capsys, "data", "pack", "plain", tmp_path, tmp_path / "store", f"--cut={number}")
    said = refused(capsys, "serve", f"--max_size={number}")
    assert ("999...' is too large a number (see" if number[0] == "9" else "Setting 'max_size'") in said


@pytest.mark.parametrize("settings", ["data: {batch_size: 010}", "data: {batch_size: 1}\ndata: {batch_size: 2}"])
def test_a_config_that_can_be_read_in_two_ways(settings, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f"{settings}\n")
    assert "is ambiguous in line" in refused(capsys, "fit", "--config", tmp_path / "config.yaml")

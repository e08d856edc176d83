"""Packing, killed and resumed, and finding bad records."""

import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from fake_sequences import FakeReader

from relo.commands.main import main
from relo.data import store_environment
from relo.data.clip_store import ClipStore, ClipStoreWriter, PackingOptions
from relo.data.doctor import look_at
from relo.data.packing import pack, verify
from relo.data.sequences import open_reader
from relo.data.store_environment import CHECKSUM_BYTES, closed, forget_environment, record_key
from relo.errors import UserError

SLOW_PACKING = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from fake_sequences import FakeReader
from relo.data.packing import pack

class SlowReader(FakeReader):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)

if __name__ == "__main__":
    pack(SlowReader(Path({root!r}), sequences=40), Path({output!r}), split="train", workers={workers})
"""


@contextmanager
def raw(path: Path, write: bool = False):
    """A transaction on the LMDB of a store."""
    forget_environment(path)
    environment = lmdb.open(str(path), map_size=1 << 26, readonly=not write, lock=write)
    with environment, environment.begin(write=write) as transaction:
        yield transaction


def content(path: Path) -> dict[bytes, bytes]:
    with raw(path) as transaction:
        return dict(transaction.cursor())


def committed(path: Path) -> int:
    """How many sequences another process has committed."""
    if not (path / "data.mdb").exists() or not (path / "data.mdb").stat().st_size:
        return 0
    return sum(key.endswith(b"/header") for key in content(path))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_packing_goes_on_where_it_was(tmp_path, workers):
    reader = FakeReader(tmp_path / "fake", sequences=40)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pack(reader, whole, split="train")
    script = tmp_path / "slow_packing.py"
    script.write_text(
        SLOW_PACKING.format(
            tests=str(Path(__file__).parent), root=str(reader.root), output=str(killed), workers=workers
        )
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while committed(killed) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = committed(killed)
    assert 3 <= done < 40
    with pytest.raises(UserError, match=f"unfinished \\({done} of 40 sequences\\)"):
        ClipStore(killed)
    assert len(ClipStore(killed, partial=True)) == done
    assert verify(killed) == [f"{40 - done} of 40 sequences are missing: packing was not finished."]

    read: list[int] = []

    class CountingReader(FakeReader):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    pack(CountingReader(reader.root, sequences=40), killed, split="train")
    assert read == list(range(done, 40))
    assert content(killed) == content(whole)


def test_several_processes_pack_the_same(reader, tmp_path):
    options = PackingOptions(cut=4.0, max_side=40)
    for workers in (0, 2):
        pack(reader, tmp_path / f"with{workers}", options=options, workers=workers)
    assert content(tmp_path / "with0") == content(tmp_path / "with2")
    assert verify(tmp_path / "with2", workers=2) == []


def test_packing_again_does_nothing(store, reader):
    before = content(store.path)
    pack(reader, store.path, split="train")
    assert content(store.path) == before


def test_a_complete_store_stays_so_while_another_packer_looks_at_it(store):
    manifest = replace(store.manifest, complete=False, broken={})
    for damaged in ([], [1]):
        with ClipStoreWriter(store.path, manifest, damaged) as writer:
            assert writer.missing == damaged
        forget_environment(store.path)
        assert ClipStore(store.path, partial=True).manifest == (manifest if damaged else store.manifest)


def test_ctrl_c_keeps_what_is_done(reader, tmp_path, monkeypatch):
    written = []
    write = ClipStoreWriter.write

    def interrupted(self, index, *packed):
        if written:
            raise KeyboardInterrupt
        written.append(index)
        write(self, index, *packed)

    monkeypatch.setattr(ClipStoreWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(reader, tmp_path / "s")
    monkeypatch.undo()
    assert ClipStore(tmp_path / "s", partial=True).names == ["video 0"]
    assert pack(reader, tmp_path / "s").names == reader.names


def test_broken_sequence_stops_with_its_name(reader, tmp_path):
    frame = reader.root / "video 1" / "0005.jpg"
    frame.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"fake/video 1 is broken: .*video 1/0005\.jpg is not a readable image"):
        pack(reader, tmp_path / "s")
    assert ClipStore(tmp_path / "s", partial=True).names == ["video 0"]


def test_broken_sequence_is_left_out_and_listed_until_it_is_mended(reader, tmp_path):
    frame = reader.root / "video 1" / "0005.jpg"
    intact = frame.read_bytes()
    frame.write_bytes(intact[: len(intact) // 2])
    store = pack(reader, tmp_path / "s", skip_broken=True)
    assert store.names == ["video 0", "video 2"]
    assert [sequence.name for sequence in store] == store.names
    assert "0005.jpg" in store.manifest.broken["video 1"]
    frame.write_bytes(intact)
    store = pack(reader, tmp_path / "s", skip_broken=True)
    assert (store.names, store.manifest.broken) == (reader.names, {})


def test_a_store_that_was_finished_without_a_sequence_stays_so_if_another_try_fails(reader, tmp_path):
    (reader.root / "video 1" / "0005.jpg").write_bytes(b"")
    pack(reader, tmp_path / "s", skip_broken=True)
    with pytest.raises(UserError, match="video 1 is broken"):
        pack(reader, tmp_path / "s")
    store = ClipStore(tmp_path / "s")
    assert store.names == ["video 0", "video 2"]
    assert "0005.jpg" in store.manifest.broken["video 1"]


def test_headers_of_png_files_are_enough_where_nothing_is_decoded(tmp_path, monkeypatch):
    root = tmp_path / "plain"
    (root / "a/img").mkdir(parents=True)
    image = np.full((30, 40, 3), 90, np.uint8)
    for number in (1, 2):
        cv2.imwrite(str(root / f"a/img/{number:08d}.png"), image)
    (root / "a/groundtruth.txt").write_text("5,5,10,10\n" * 2)
    monkeypatch.setattr("relo.data.frame_packing.intact_size", None)  # it would decode
    store = pack(open_reader("plain", root, "all"), tmp_path / "s", decode=False)
    assert store[0].frames[1].shape == (30, 40, 3)


@pytest.mark.parametrize("damaged", ["width", "cut"])
def test_a_damaged_header_of_a_png_file_is_named(damaged, tmp_path):
    root = tmp_path / "plain"
    (root / "a/img").mkdir(parents=True)
    encoded = bytearray(cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes())
    if damaged == "width":
        encoded[16:20] = b"\xff\xff\xff\xff"
    else:
        del encoded[20:]
    (root / "a/img/00000001.png").write_bytes(encoded)
    (root / "a/groundtruth.txt").write_text("5,5,10,10\n")
    with pytest.raises(UserError, match=r"a is broken: .*00000001\.png"):
        pack(open_reader("plain", root, "all"), tmp_path / "s", decode=False)


def test_names_are_printed_as_they_are(tmp_path, capsys):
    reader = FakeReader(tmp_path / "fake")
    (reader.root / "video 1" / "0005.jpg").write_bytes(b"")

    class Bracketed(FakeReader):
        names = [f"[b]{name}" for name in reader.names]  # noqa: RUF012

    pack(Bracketed(tmp_path / "fake"), tmp_path / "s", skip_broken=True)
    assert "left out [b]video 1: " in capsys.readouterr().out


def test_nothing_but_broken_sequences(reader, tmp_path):
    for frame in reader.root.glob("*/0003.jpg"):
        frame.unlink()
    with pytest.raises(UserError, match=r"All 3 sequences of fake are broken; the first: .*video 0"):
        pack(reader, tmp_path / "s", skip_broken=True)


def test_visible_target_without_a_size_is_broken(tmp_path):
    class Flat(FakeReader):
        def __getitem__(self, index):
            sequence = super().__getitem__(index)
            sequence.boxes_xywh[3, 2] = 0
            return sequence

    with pytest.raises(UserError, match="on frame 3, where the target is visible"):
        pack(Flat(tmp_path / "fake"), tmp_path / "s")


# ----------------------------------------------------------------------------------------------------- sizes of frames


def resize_frame(reader: FakeReader, frame: int, width: int, height: int) -> None:
    path = reader.root / "video 1" / f"{frame:04d}.jpg"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (width, height)))


@pytest.mark.parametrize("options", [PackingOptions(), PackingOptions(cut=4.0), PackingOptions(max_side=40)])
def test_frames_of_another_size_are_said_once_a_sequence(reader, tmp_path, capsys, options):
    resize_frame(reader, 5, 120, 90)
    resize_frame(reader, 9, 90, 72)
    told = "- fake/video 1 has 2 of 24 frames of another size than 96x72 px; the first, frame 5, is 120x90 px."
    store = pack(reader, tmp_path / "s", options=options)
    assert capsys.readouterr().out.count(told) == 1
    assert verify(store.path) == []
    assert told in capsys.readouterr().out
    assert store.names == reader.names


@pytest.mark.parametrize("options", [PackingOptions(), PackingOptions(cut=4.0)])
def test_a_frame_of_another_size_that_its_box_does_not_fit_is_broken(reader, tmp_path, monkeypatch, options):
    resize_frame(reader, 5, 500, 1)
    with pytest.raises(
        UserError, match=r"video 1/0005\.jpg is 500x1 px, not 96x72 px as most, and its box \[18\.0, 20"
    ):
        pack(reader, tmp_path / "s", options=options)
    with monkeypatch.context() as before:
        before.setattr("relo.data.frame_packing.misfits", lambda sequence, sizes: [])
        store = pack(reader, tmp_path / "before", options=options)
    (problem,) = verify(store.path)
    assert "Frame 5 of fake/video 1" in problem
    assert "is 500x1 px" in problem


@pytest.mark.parametrize(("ending", "options"), [("bmp", PackingOptions()), ("png", PackingOptions(cut=1000))])
def test_a_frame_that_jpeg_cannot_hold_is_refused(tmp_path, ending, options):
    (tmp_path / "wide").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"wide/{number}.{ending}"), np.zeros((64, 70_000, 3), np.uint8))
    (tmp_path / "wide/groundtruth.txt").write_text("34950,2,90,50\n" * 2)
    reader = open_reader("plain", tmp_path, "all")
    with pytest.raises(UserError, match=rf"1\.{ending} cannot be packed: .* x 64 px are too large for JPEG; scale"):
        pack(reader, tmp_path / "s", options=options)
    packed = pack(reader, tmp_path / "t", options=replace(options, max_side=7000))
    assert packed[0].frames[1].shape[1] == 7000


def test_a_frame_of_another_size_fits_where_the_target_is_hidden(reader, tmp_path):
    resize_frame(reader, 6, 500, 1)  # every seventh is hidden
    assert pack(reader, tmp_path / "s").names == reader.names


def test_remarks_of_a_reader_are_shown(tmp_path, capsys):
    class Remarking(FakeReader):
        def __getitem__(self, index):
            return replace(super().__getitem__(index), remarks=("the sentence [of] it is left out.",) * (index == 1))

    pack(Remarking(tmp_path / "fake"), tmp_path / "s")
    assert capsys.readouterr().out.strip() == "- the sentence [of] it is left out."


# ------------------------------------------------------------------------------------------------------- verification


def flip_byte(path: Path, inside: bytes, offset: int) -> None:
    """Change one byte of the first place in the store's file that holds these bytes."""
    flip_bytes(path, [places_of(path, inside)[0] + offset])


def flip_bytes(path: Path, places: Iterable[int], bits: int = 0x10) -> None:
    """Change the bytes at some places in the store's file."""
    forget_environment(path)
    with (path / "data.mdb").open("r+b") as file:
        for place in places:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ bits]))


def places_of(path: Path, inside: bytes) -> list[int]:
    """Where the store's file holds these bytes, in pages that are not used any more, too."""
    return [found.start() for found in re.finditer(re.escape(inside), (path / "data.mdb").read_bytes())]


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("record", ["boxes", "geometry", "sizes", "visible"])
def test_verify_finds_a_record_of_another_length(record, times, cut_store):
    with raw(cut_store.path, write=True) as transaction:
        key = record_key(1, record)
        content = transaction.get(key)[:-CHECKSUM_BYTES]
        transaction.put(key, closed((content * times)[: times * len(content) - (times == 1)]))
    (problem,) = verify(cut_store.path)
    assert f"The record '{record}' of" in problem
    assert "damaged" in problem


def test_verify_finds_a_flipped_byte_that_decodes_well(store):
    frame = store[1].frames.encoded(7)
    assert verify(store.path) == []
    flip_byte(store.path, frame, len(frame) // 2)
    (problem,) = verify(store.path)
    assert "Frame 7 of fake/video 1" in problem
    assert "damaged" in problem
    with pytest.raises(UserError, match="Frame 7 of fake/video 1"):
        store[1].frames[7]


def test_verify_finds_a_flipped_box(store, reader):
    flip_byte(store.path, reader[0].boxes_xywh.tobytes(), 100)
    problems = verify(store.path)
    assert problems  # all three sequences have these boxes, and the first copy was changed
    assert all("'boxes'" in problem for problem in problems)


def test_verify_finds_a_flipped_size_of_a_store_packed_whole(store):
    sizes = store[0].attributes["image_sizes"].tobytes()
    flip_byte(store.path, sizes, 4)
    (problem,) = verify(store.path)
    assert "'sizes' of fake/video" in problem


@pytest.mark.parametrize("damage", ["frame", "box", "header", "missing"])
def test_packing_again_repairs_what_verify_finds(tmp_path, reader, store, damage, capsys):
    pack(reader, tmp_path / "whole", split="train")
    if damage == "missing":
        with raw(store.path, write=True) as transaction:
            transaction.delete(b"00000001/00000004")
    else:
        record = {"frame": "00000007", "box": "boxes", "header": "header"}[damage]
        inside = store.read_record(1, record)
        flip_bytes(store.path, [place + len(inside) // 2 for place in places_of(store.path, inside)])
    found = verify(store.path)
    assert found
    read = []

    class CountingReader(FakeReader):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    pack(CountingReader(reader.root), store.path, split="train")
    assert verify(store.path) == []
    assert content(store.path) == content(tmp_path / "whole")
    said = " ".join(capsys.readouterr().out.split())
    assert f"Sequences with bad records, packed again: {len(read)}." in said
    assert len(read) == 1 or damage == "box"  # which is the same in all


def test_a_repair_that_is_stopped_is_done_by_the_next_run(reader, store, monkeypatch):
    frame = store[1].frames.encoded(7)
    flip_byte(store.path, frame, len(frame) // 2)
    with monkeypatch.context() as patch:
        patch.setattr(ClipStoreWriter, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(reader, store.path, split="train")
    pack(reader, store.path, split="train")
    assert verify(store.path) == []


def test_nothing_is_written_into_an_index_that_is_damaged(tmp_path):
    reader = FakeReader(tmp_path / "fake", sequences=12)
    path = pack(reader, tmp_path / "store").path
    first, last = ({place // mmap.PAGESIZE for place in places_of(path, key)} for key in (b"manifest", b"00000002/000"))
    flip_bytes(path, [page * mmap.PAGESIZE + 10 for page in last - first])  # the flags of pages of keys
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(UserError, match="pack it into a new folder"):
        pack(reader, path)
    assert (path / "data.mdb").read_bytes() == before


def test_an_index_that_is_damaged_before_the_store_is_finished_is_one_sentence(tmp_path, monkeypatch):
    reader, path = FakeReader(tmp_path / "fake", sequences=12), tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(ClipStoreWriter, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(reader, path)
    first, last = ({place // mmap.PAGESIZE for place in places_of(path, key)} for key in (b"manifest", b"/header"))
    damage = partial(flip_bytes, path, [page * mmap.PAGESIZE + 10 for page in last - first], 2)  # no more leaves
    damage()
    before = (path / "data.mdb").read_bytes()
    for use in (partial(pack, reader), ClipStore, verify, partial(look_at, dataset="store")):
        with pytest.raises(UserError, match=r"store/data\.mdb is damaged \(.*\): .*pack it into a new folder"):
            use(path)
    monkeypatch.setattr(store_environment, "_SOON_VERIFIED", 0)
    with pytest.raises(UserError, match=r"The index in .*store cannot be read \(.*\): .*pack it into a new folder"):
        ClipStore(path)
    assert (path / "data.mdb").read_bytes() == before
    damage()  # which is undone
    with ClipStoreWriter(path, ClipStore(path, partial=True).manifest) as writer:
        damage()
        with pytest.raises(UserError, match=r"The index in .*store is damaged \(.*\): .*pack it into a new folder"):
            writer.finish({})


@pytest.mark.parametrize("size", [0, 1 << 26], ids=["large", "small"])
@pytest.mark.parametrize("key", ["00000001/header", "00000001/boxes", "00000001/00000004", "manifest", "all/lengths"])
def test_a_length_that_leads_beyond_the_file_is_refused(reader, store, key, size, monkeypatch):
    """To read so far would kill the process."""
    monkeypatch.setattr(store_environment, "_SOON_VERIFIED", size)
    places = places_of(store.path, key.encode())
    flip_bytes(store.path, [place - 5 for place in places], 0x7F)  # before flags and key's length
    looking = partial(look_at, dataset="store")
    for use in (verify, partial(pack, reader, split="train"), looking, *([] if size == 0 else [ClipStore])):
        with pytest.raises(UserError, match=r"data\.mdb is damaged \(.*\): .*pack it into a new folder"):
            use(store.path)


def test_a_store_that_is_written_to_while_its_pages_are_looked_at_is_taken_as_it_is(store, monkeypatch):
    forget_environment(store.path)
    looks = []

    def verify_behind_another(path):
        with lmdb.open(path, map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
            transaction.put(b"other", bytes([len(looks)]))
        looks.append(path)
        return ["page 7 is missing"]

    monkeypatch.setattr(store_environment, "verify", verify_behind_another)
    store_environment.require_sound_pages(store.path)
    assert looks == 3 * [str(store.path)]


@pytest.mark.parametrize(
    ("record", "told"),
    [("00000005", "Frame 5"), ("visible", "'visible'"), ("header", "'header'"), ("sizes", "'sizes'")],
)
def test_verify_finds_a_missing_record(store, record, told):
    path = store.path
    with raw(path, write=True) as transaction:
        assert transaction.delete(f"00000002/{record}".encode())
    (problem,) = verify(path)
    assert f"{told} of fake/video 2 is missing in" in problem
    assert "fake/video 2" in problem
    assert "missing" in problem


def test_verify_finds_a_frame_that_is_no_image(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("relo.data.frame_packing.intact_size", lambda encoded, name: reader.size)
    (reader.root / "video 2" / "0001.jpg").write_bytes(b"\xff\xd8 but no image")
    store = pack(reader, tmp_path / "s")
    (problem,) = verify(store.path)
    assert "Frame 1 of fake/video 2" in problem
    assert os.fspath(store.path) in problem


def test_a_folder_of_ones_own_is_packed_without_naming_a_split(tmp_path):
    sequence = tmp_path / "videos" / "cat"
    (sequence / "img").mkdir(parents=True)
    for number in range(1, 13):
        cv2.imwrite(str(sequence / "img" / f"frame{number}.png"), np.full((24, 32, 3), number, np.uint8))
    (sequence / "groundtruth.txt").write_text("10,10,8,8\n" * 12)
    main(["data", "pack", "plain", str(tmp_path / "videos"), str(tmp_path / "store"), "--workers=0"])
    store = ClipStore(tmp_path / "store")
    assert store.manifest.split == "all"
    assert [int(store[0].frames[i][0, 0, 0]) for i in range(12)] == list(range(1, 13))


def test_frames_that_are_not_decoded_make_the_same_store(tmp_path, reader, store, monkeypatch):
    monkeypatch.setattr("relo.data.frame_packing.intact_size", lambda *_: pytest.fail("decoded"))
    kept = pack(reader, tmp_path / "kept", split="train", decode=False, workers=2)
    assert content(kept.path) == content(store.path)


def test_damage_that_was_not_looked_for_is_found_later_and_packed_again(tmp_path, reader):
    frame = reader.root / "video 1" / "0005.jpg"
    intact = frame.read_bytes()
    frame.write_bytes(intact[:-40])
    store = pack(reader, tmp_path / "s", decode=False)
    assert verify(store.path, decode=False) == []
    (problem,) = verify(store.path)
    assert "Frame 5 of fake/video 1" in problem
    frame.write_bytes(intact)
    pack(reader, store.path)
    assert verify(store.path) == [problem]
    pack(reader, store.path, recheck="images")
    assert verify(store.path) == []


def test_a_complete_store_is_looked_at_as_far_as_is_wanted(store, reader, monkeypatch):
    frame = store[1].frames.encoded(7)
    flip_byte(store.path, frame, len(frame) // 2)
    pack(reader, store.path, split="train", recheck="nothing")
    assert len(verify(store.path)) == 1
    monkeypatch.setattr("relo.data.sequence_checks.intact_size", lambda *_: pytest.fail("decoded"))
    pack(reader, store.path, split="train")
    monkeypatch.undo()
    assert verify(store.path) == []


@pytest.mark.parametrize("size", [(641, 359), (640, 360), (1000, 64)])
@pytest.mark.parametrize("cut", [None, 9.0])
def test_a_frame_that_is_scaled_while_it_is_decoded_lies_where_it_says(tmp_path, size, cut):
    reader = FakeReader(tmp_path / "fake", sequences=1, size=size)
    (packed,) = pack(reader, tmp_path / "s", options=PackingOptions(cut=cut, max_side=50, quality=100))
    (original,) = reader
    for frame in (0, 9, 23):
        x, y, scale_x, scale_y = packed.attributes["geometry"][frame]
        image = packed.frames[frame]
        assert max(image.shape[:2]) <= 50
        columns, rows = np.arange(image.shape[1] + 1) / scale_x + x, np.arange(image.shape[0] + 1) / scale_y + y
        whole = original.frames[frame]
        for row, column in [
            (0, 0),
            (image.shape[0] - 1, image.shape[1] - 1),
            (image.shape[0] // 2, image.shape[1] // 2),
        ]:
            seen = whole[
                round(rows[row]) : max(round(rows[row + 1]), round(rows[row]) + 1),
                round(columns[column]) : max(round(columns[column + 1]), round(columns[column]) + 1),
            ]
            assert seen.size
            np.testing.assert_allclose(image[row, column], seen.mean((0, 1)), atol=30)

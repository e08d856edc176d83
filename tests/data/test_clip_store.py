"""The clip store as a list of sequences, and what it does with folders that are none."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relo.data import store_environment, store_manifest, store_writer
from relo.data.clip_store import ClipStore, ClipStoreWriter, Manifest, PackedFrames, PackingOptions
from relo.data.frame_geometry import nearest_visible, surroundings, to_image, to_packed
from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.store_environment import closed
from relo.errors import UserError

coordinates = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    boxes_xywh=arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=coordinates),
    name=st.text(min_size=1, max_size=600),
    frames=st.lists(st.binary(max_size=5000), min_size=6, max_size=6),
    sentence=st.none() | st.text(),
    data=st.data(),
)
def test_what_is_written_is_read_back_to_the_bit(tmp_path_factory, boxes_xywh, name, frames, sentence, data):
    visible = data.draw(arrays(np.bool_, len(boxes_xywh)))
    frames = frames[: len(boxes_xywh)]
    path = tmp_path_factory.mktemp("store")
    sizes = 1 + np.arange(2 * len(frames), dtype=np.int32).reshape(-1, 2)
    made = Sequence(name, "made", ImageFiles(path, ()), boxes_xywh, visible, None, sentence)
    packed = PackedFrames(list(map(closed, frames)), sizes, np.zeros((len(frames), 4)))
    with ClipStoreWriter(path, Manifest("made", "train", PackingOptions(), (name,))) as writer:
        assert writer.missing == [0]
        writer.write(0, made, packed)
        writer.finish({})
    (sequence,) = ClipStore(path)
    assert sequence.boxes_xywh.tobytes() == boxes_xywh.tobytes()
    assert sequence.visible.tolist() == visible.tolist()
    assert (sequence.name, sequence.dataset, sequence.class_name, sequence.sentence) == (name, "made", None, sentence)
    assert [sequence.frames.encoded(i) for i in range(len(sequence))] == frames


def test_whole_frames_keep_their_bytes(store, reader):
    assert store.names == reader.names
    for stored, original in zip(store, reader, strict=True):
        assert (stored.class_name, stored.sentence) == (original.class_name, original.sentence)
        for i in range(len(original)):
            assert stored.frames.encoded(i) == original.frames.encoded(i)


def test_cut_frames_show_the_target_where_the_box_says(cut_store, reader):
    for stored, original in zip(cut_store, reader, strict=True):
        np.testing.assert_array_equal(stored.attributes["image_boxes_xywh"], original.boxes_xywh)
        geometry = stored.attributes["geometry"]
        np.testing.assert_allclose(to_image(stored.boxes_xywh, geometry), original.boxes_xywh, atol=1e-9)
        for i in np.flatnonzero(original.visible):
            frame = stored.frames[int(i)]
            assert max(frame.shape) <= 32
            x, y, w, h = stored.boxes_xywh[i]
            if x + w <= frame.shape[1] and y + h <= frame.shape[0]:
                inside = frame[round(y + h / 2), round(x + w / 2)]
                outside = frame[round(y + h / 2), max(round(x - 4), 0)]
                assert inside.min() > 230
                assert outside[2] < 200


@given(
    box=st.tuples(*[st.floats(-500, 1500)] * 2, *[st.floats(0, 900)] * 2),
    factor=st.floats(1, 8),
    width=st.integers(1, 1000),
    height=st.integers(1, 1000),
)
def test_surroundings_lie_in_the_image_and_hold_the_box(box, factor, width, height):
    x1, y1, x2, y2 = surroundings(np.array(box), factor, width, height)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    x, y, w, h = box
    center_inside = 0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height
    if center_inside:
        assert x1 <= max(x, 0) + 1e-6
        assert y1 <= max(y, 0) + 1e-6
        assert x2 >= min(x + w, width) - 1e-6
        assert y2 >= min(y + h, height) - 1e-6


@given(
    arrays(np.float64, (5, 4), elements=st.floats(-1e4, 1e4)), arrays(np.float64, (5, 4), elements=st.floats(0.1, 10))
)
def test_geometry_goes_both_ways(boxes_xywh, geometry):
    np.testing.assert_allclose(to_image(to_packed(boxes_xywh, geometry), geometry), boxes_xywh, atol=1e-6)


def test_nearest_visible_frame():
    visible = np.array([0, 1, 0, 0, 0, 1, 0], bool)
    assert nearest_visible(visible).tolist() == [1, 1, 1, 1, 5, 5, 5]
    assert nearest_visible(np.zeros(3, bool)).tolist() == [0, 1, 2]


def test_store_travels_to_other_processes_and_threads(store):
    first = store[0].frames[0]
    twin = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(twin[0].frames[0], first)
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda i: ClipStore(store.path)[i % 3].frames[i % 24].shape, range(64)))
    assert set(frames) == {first.shape}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore")
def test_store_is_opened_anew_after_a_fork(store):
    parents = store_environment._environments.copy()
    assert parents
    child = os.fork()
    if child == 0:
        own = store[0].frames[0].size and store_environment._environments
        os._exit(0 if own and not set(map(id, own.values())) & set(map(id, parents.values())) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store[1].frames[0].size


# ----------------------------------------------------------------------------------------------------------- mistakes


def test_folders_that_are_no_store(tmp_path):
    with pytest.raises(UserError, match="There is no clip store"):
        ClipStore(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no clip store"):
        ClipStore(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(UserError, match="is no LMDB"):
        ClipStore(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.mdb"):
        ClipStore(tmp_path)


def test_lmdb_of_something_else(tmp_path):
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    with pytest.raises(UserError, match="no clip store"):
        ClipStore(tmp_path)
    with pytest.raises(UserError, match="no clip store"):
        ClipStoreWriter(tmp_path, Manifest("made", "train", PackingOptions(), ("a",)))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_store_is_refused_before_it_is_read(store, tmp_path, share):
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    os.truncate(copy / "data.mdb", int(share * (copy / "data.mdb").stat().st_size))
    with pytest.raises(UserError, match=r"is truncated \("):
        ClipStore(copy)


def test_store_of_another_version(store, monkeypatch):
    monkeypatch.setattr(store_manifest, "VERSION", 2)
    with pytest.raises(UserError, match="version 1, and this is relo for version 2"):
        ClipStore(store.path)


def test_manifest_is_plain_json(store):
    content = json.loads(store.manifest.encode())
    assert content["format"] == "relo clip store"
    assert (content["version"], content["dataset"], content["split"], content["complete"]) == (1, "fake", "train", True)
    assert Manifest.decode(store.manifest.encode(), store.path) == store.manifest


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": "val"}, "other split \\(train, not val\\)"),
        ({"names": ("another",)}, "other names"),
        ({"options": PackingOptions(cut=4.0)}, "other options"),
        ({"dataset": "lasot"}, "other dataset"),
    ],
)
def test_a_store_of_something_else_is_not_written_into(store, change, told):
    wanted = {"dataset": "fake", "split": "train", "options": PackingOptions(), "names": tuple(store.names)} | change
    before = (store.path / "data.mdb").read_bytes()
    with pytest.raises(UserError, match=told):
        ClipStoreWriter(store.path, Manifest(**wanted))
    assert (store.path / "data.mdb").read_bytes() == before


def test_writer_leaves_folders_with_other_files_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear to someone")
    with pytest.raises(UserError, match="other files"):
        ClipStoreWriter(tmp_path, Manifest("made", "train", PackingOptions(), ("a",)))
    with pytest.raises(UserError, match="is a file"):
        ClipStoreWriter(tmp_path / "thesis.tex", Manifest("made", "train", PackingOptions(), ("a",)))


@pytest.mark.parametrize("options", [{"cut": 0.5}, {"max_side": 3}, {"quality": 0}, {"cut": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises(UserError, match=next(iter(options))):
        PackingOptions(**options)


def test_map_grows_with_its_content(tmp_path, monkeypatch):
    monkeypatch.setattr(store_writer, "_FIRST_MAP_SIZE", 1 << 16)
    frames = [bytes([i]) * 100_000 for i in range(12)]
    big = Sequence("big", "made", ImageFiles(tmp_path, ()), np.ones((12, 4)), np.ones(12, bool))
    packed = PackedFrames(list(map(closed, frames)), np.ones((12, 2), np.int32), np.ones((12, 4)))
    with ClipStoreWriter(tmp_path / "s", Manifest("made", "train", PackingOptions(), ("big",))) as writer:
        writer.write(0, big, packed)
        writer.finish({})
    (sequence,) = ClipStore(tmp_path / "s")
    assert [sequence.frames.encoded(i) for i in range(12)] == frames


SECOND_PACKER = """
import sys
from pathlib import Path
import numpy as np
from relo.data import store_writer
from relo.data.clip_store import ClipStoreWriter, Manifest, PackedFrames, PackingOptions
from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.store_environment import closed

store_writer._FIRST_MAP_SIZE = 1 << 16
path = Path(sys.argv[1])
with ClipStoreWriter(path, Manifest("made", "train", PackingOptions(), tuple("abc"))) as writer:
    for number in writer.missing:
        frames = [closed(bytes([i]) * 1_000_000) for i in range(8)]
        packed = PackedFrames(frames, np.ones((8, 2), np.int32), np.ones((8, 4)))
        made = Sequence("abc"[number], "made", ImageFiles(path, ()), np.ones((8, 4)), np.ones(8, bool))
        writer.write(number, made, packed)
    writer.finish({})
"""


def pack_beside(path):
    """Another process packs the three sequences of 8 MB that are missing."""
    subprocess.run([sys.executable, "-c", SECOND_PACKER, str(path)], check=True, timeout=120)


@pytest.mark.parametrize("before", ["beginning", "writing", "finishing"])
def test_a_store_may_grow_under_a_second_packer(tmp_path, monkeypatch, before):
    monkeypatch.setattr(store_writer, "_FIRST_MAP_SIZE", 1 << 16)
    frames = [bytes([i]) * 1000 for i in range(2)]
    small = Sequence("a", "made", ImageFiles(tmp_path, ()), np.ones((2, 4)), np.ones(2, bool))
    packed = PackedFrames(list(map(closed, frames)), np.ones((2, 2), np.int32), np.ones((2, 4)))
    manifest = Manifest("made", "train", PackingOptions(), tuple("abc"))
    if before == "beginning":
        with ClipStoreWriter(tmp_path / "s", manifest) as writer:
            writer.write(0, small, packed)
        assert len(ClipStore(tmp_path / "s", partial=True)) == 1  # as packing looks for what has begun
        pack_beside(tmp_path / "s")
    with ClipStoreWriter(tmp_path / "s", manifest) as writer:
        if before == "writing":
            pack_beside(tmp_path / "s")
        if before != "beginning":
            writer.write(0, small, packed)
        if before == "finishing":
            pack_beside(tmp_path / "s")
        writer.finish({})
    store = ClipStore(tmp_path / "s")
    assert [len(sequence) for sequence in store] == [2, 8, 8]
    assert store.visibility().lengths.tolist() == [2, 8, 8]
    assert [store[0].frames.encoded(i) for i in range(2)] == frames
    assert store[2].frames.encoded(7) == bytes([7]) * 1_000_000


WITHOUT_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from relo.data import store_writer
from relo.data.clip_store import ClipStore, ClipStoreWriter, Manifest, PackedFrames, PackingOptions
from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.store_environment import closed
from relo.errors import UserError

store_writer._FIRST_MAP_SIZE = 1 << 24
path, sentences = Path(sys.argv[1]), []
packed = PackedFrames([closed(bytes(3_000_000))], np.ones((1, 2), np.int32), np.ones((1, 4)))
names = tuple("abcdefgh")
with ClipStoreWriter(path, Manifest("made", "train", PackingOptions(), names)) as writer:
    for number, name in enumerate(names):
        if number == 5:  # the map is all but full
            (used,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")]
            resource.setrlimit(resource.RLIMIT_AS, (1024 * int(used) + (1 << 23), -1))
        made = Sequence(name, "made", ImageFiles(path, ()), np.ones((1, 4)), np.ones(1, bool))
        try:
            writer.write(number, made, packed)
        except UserError as error:
            print(error)
            break
try:
    ClipStore(path, partial=True)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc")
def test_a_map_that_memory_has_no_room_for_is_a_sentence(tmp_path):
    command = [sys.executable, "-c", WITHOUT_MEMORY, str(tmp_path / "s")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    written, read = ended.stdout.splitlines()
    assert re.search(r"cannot be written \(.*Cannot allocate memory\); what is packed is kept", written)
    assert re.search(r"data\.mdb cannot be read: there is no room for it in memory", read)
    assert len(ClipStore(tmp_path / "s", partial=True)) == 5


def test_a_limit_of_the_size_of_files_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    frames = [closed(bytes([i]) * 100_000) for i in range(12)]
    big = Sequence("big", "made", ImageFiles(tmp_path, ()), np.ones((12, 4)), np.ones(12, bool))
    packed = PackedFrames(frames, np.ones((12, 2), np.int32), np.ones((12, 4)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ClipStoreWriter(tmp_path / "s", Manifest("made", "train", PackingOptions(), ("big",))) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (250_880, before[1]))  # no whole number of pages
            with pytest.raises(UserError, match="larger than is allowed here"):
                writer.write(0, big, packed)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.write(0, big, packed)
        writer.finish({})
    assert len(ClipStore(tmp_path / "s")[0]) == 12

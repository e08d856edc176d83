import pickle
from dataclasses import replace

import lmdb
import numpy as np
import pytest
from fake_sequences import FakeReader

from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.clip_store import ClipStore, ClipStoreWriter, PackingOptions
from relo.data.frame_packing import pack_frames
from relo.data.packing import pack
from relo.data.sampler import ConsecutiveSampler, OrderSampler
from relo.data.store_environment import closed, forget_environment
from relo.data.store_tables import Names, Visibility
from relo.data.transforms import ClipTransform
from relo.errors import UserError
from relo.geometry import CropRule

NAMES = ("one", "", "naïve \udce9", "four")


def test_names_are_those_of_a_tuple():
    names = Names(NAMES)
    assert tuple(names) == NAMES
    assert (len(names), names[-1], names[1:3]) == (4, "four", NAMES[1:3])
    assert names == NAMES
    assert names == Names(NAMES)
    assert names != NAMES[:3]
    assert names != list(NAMES)
    for place in (4, -5):
        with pytest.raises(IndexError):
            names[place]


def test_a_million_names_are_few_bytes_to_a_spawned_worker():
    many = Names(f"sequence_{number:08d}" for number in range(100_000))
    assert len(pickle.dumps(many)) < 26 * 100_000


@pytest.mark.parametrize("sampler", [OrderSampler(1, 1, min_frames=3), ConsecutiveSampler(1, 2, 2, min_frames=3)])
def test_accepted_are_the_sequences_that_are_accepted_one_by_one(sampler):
    rng = np.random.default_rng(0)
    sequences = [rng.random(rng.integers(1, 9)) < share for share in (0, 0.5, 1) for _ in range(60)]
    visibility = Visibility(np.concatenate(sequences), np.array([*map(len, sequences)]))
    shown = []

    def accepts(visible):
        shown.append(visible)
        return sampler.accepts(visible)

    expected = [number for number, visible in enumerate(sequences) if sampler.accepts(visible)]
    assert visibility.accepted(accepts).tolist() == expected
    assert 0 < len(expected) < len(sequences)
    assert len(shown) < 90
    empty = Visibility(np.empty(0, bool), np.empty(0, np.int64))
    assert not len(empty.accepted(accepts))


def remove_tables(store):
    change_records(store, lambda transaction, key: transaction.delete(key))


def flip_a_bit(store):
    def flip(transaction, key):
        value = bytearray(transaction.get(key))
        value[0] ^= 1
        transaction.put(key, bytes(value))

    change_records(store, flip)


def leave_out_a_sequence(store):
    """As an older version does, which adds a sequence and leaves the tables."""
    tables = {b"all/visible": np.ones(48, "u1"), b"all/lengths": np.array([24, 0, 24], "<i8")}

    def put(transaction, key):
        value = tables[key].tobytes()
        transaction.put(key, closed(value))

    change_records(store, put)


def lengthen_one_at_the_cost_of_another(store):
    def move(transaction, key):
        value = transaction.get(key)[:-4]
        if key == b"all/lengths":
            first, second, *others = np.frombuffer(value, "<i8").tolist()
            value = np.array([-5, first + second + 5, *others], "<i8").tobytes()
        transaction.put(key, closed(value))

    change_records(store, move)


def cut_short(store):
    change_records(store, lambda transaction, key: transaction.put(key, closed(transaction.get(key)[:6])))


def leave_out_the_end(store):
    change_records(store, lambda transaction, key: transaction.put(key, closed(transaction.get(key)[:8])))


def change_records(store, change):
    forget_environment(store.path)
    with lmdb.open(str(store.path)) as environment, environment.begin(write=True) as transaction:
        for key in (b"all/visible", b"all/lengths"):
            change(transaction, key)


@pytest.mark.parametrize(
    "change",
    [
        None,
        remove_tables,
        flip_a_bit,
        leave_out_a_sequence,
        lengthen_one_at_the_cost_of_another,
        cut_short,
        leave_out_the_end,
    ],
)
def test_visibility_is_the_sequences_with_and_without_good_tables(store, change, monkeypatch):
    expected = [sequence.visible for sequence in store]
    if change is not None:
        change(store)
    opened, read = ClipStore(store.path), []
    monkeypatch.setattr(ClipStore, "_visible", lambda *args, own=ClipStore._visible: read.append(1) or own(*args))
    visibility = opened.visibility()
    assert visibility.lengths.tolist() == [len(visible) for visible in expected]
    np.testing.assert_array_equal(visibility.flags, np.concatenate(expected))
    assert len(read) == (0 if change is None else len(expected))


def test_packing_again_writes_the_tables_of_an_old_store(reader, store):
    remove_tables(store)
    pack(reader, store.path, split="train")
    tables = []
    change_records(store, lambda transaction, key: tables.append(transaction.get(key)))
    assert all(tables)


def test_tables_pass_over_broken_sequences_and_wait_for_the_last(tmp_path, reader):
    manifest = replace(pack(reader, tmp_path / "whole", split="train").manifest, complete=False)
    with ClipStoreWriter(tmp_path / "part", manifest) as writer:
        for number in (0, 2):
            sequence = FakeReader(tmp_path / "fake")[number]
            writer.write(number, sequence, pack_frames(sequence, PackingOptions()))
    assert len(ClipStore(tmp_path / "part", partial=True).visibility().lengths) == 2
    with ClipStoreWriter(tmp_path / "part", manifest) as writer:
        assert writer.missing == [1]
        writer.finish({manifest.names[1]: "torn"})
    store = ClipStore(tmp_path / "part")
    assert store.names == [manifest.names[0], manifest.names[2]]
    assert store.visibility().lengths.tolist() == [len(sequence.visible) for sequence in store]


def put(store, key, value):
    forget_environment(store.path)
    with lmdb.open(str(store.path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, closed(value))


def test_a_sequence_that_does_not_show_what_the_table_says(store):
    put(store, b"00000000/visible", bytes(len(store[0].visible)))
    settings = OrderSampler(1, 2), ClipTransform(CropRule(2.0, 16), CropRule(4.0, 32)), 1
    clips = ClipDataset([StoreSource(str(store.path), stop=1)], *settings)
    with pytest.raises(UserError, match=rf"'visible' of .*/{store.names[0]} .* is not what the store's table says"):
        clips[0]


def test_images_without_pixels(store):
    put(store, b"00000000/sizes", np.array([[64, 0]] * len(store[0]), "<i4").tobytes())
    with pytest.raises(UserError, match=r"The record 'sizes' of .* is damaged"):
        ClipStore(store.path)[0]

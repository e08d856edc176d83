"""Stores in parts give what one store gives."""

import shutil

import numpy as np
import pytest
from fake_sequences import FakeReader

from relo.commands.data import verify
from relo.commands.main import main
from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.clip_store import ClipStore, PackingOptions
from relo.data.datamodule import SequenceDataset, SequenceSource
from relo.data.packing import pack
from relo.data.sampler import OrderSampler
from relo.data.store_parts import Part, open_store, store_folders
from relo.data.transforms import ClipTransform
from relo.errors import UserError
from relo.geometry import CropRule


@pytest.fixture
def reader(tmp_path):
    return FakeReader(tmp_path / "fake", sequences=5)


@pytest.fixture
def parts(reader, tmp_path):
    """A folder of three parts."""
    for number in (1, 2, 3):
        part = Part(number, 3)
        pack(part.reader(reader), tmp_path / "parts" / part.folder, split="train")
    return tmp_path / "parts"


@pytest.fixture
def whole(reader, tmp_path):
    return pack(reader, tmp_path / "whole", split="train")


def clips(path):
    transform = ClipTransform(CropRule(2.0, 32), CropRule(4.0, 64))
    dataset = ClipDataset([StoreSource(str(path), start=1)], OrderSampler(), transform, clips_per_epoch=8)
    return [dataset[number] for number in range(8)]


@pytest.mark.parametrize(("count", "sequences"), [(1, 5), (3, 5), (5, 5), (8, 7086)])
def test_every_sequence_is_in_one_part(count, sequences):
    class Names(FakeReader):
        def __init__(self):
            self._names = [str(number) for number in range(sequences)]

    readers = [Part(number, count).reader(Names()) for number in range(1, count + 1)]
    assert [name for part in readers for name in part.names] == Names().names
    assert max(map(len, readers)) - min(map(len, readers)) <= 1


def test_parts_hold_the_sequences_of_one_store_in_its_order(parts, whole):
    joined = open_store(parts)
    assert joined.names == whole.names
    assert len(joined) == 5
    for own, other in zip(joined, whole, strict=True):
        assert [own.frames.encoded(i) for i in range(len(own))] == [other.frames.encoded(i) for i in range(len(other))]
        np.testing.assert_array_equal(own.boxes_xywh, other.boxes_xywh)
        np.testing.assert_array_equal(own.visible, other.visible)
    assert joined[-1].name == "video 4"
    with pytest.raises(IndexError):
        joined[5]
    assert isinstance(open_store(whole.path), ClipStore)


def test_parts_give_the_clips_of_one_store(parts, whole):
    for own, other in zip(clips(parts), clips(whole.path), strict=True):
        assert own.sequence_id == other.sequence_id
        assert (own.search_images == other.search_images).all()


def test_parts_are_validated_on_and_verified_as_one_store(parts, capsys):
    assert len(SequenceDataset([SequenceSource(str(parts), start=2)])) == 3
    verify(parts, decode=False, workers=0)
    assert "every record of 5 sequences is good" in " ".join(capsys.readouterr().out.split())


def test_the_doctor_looks_at_every_part(parts, capsys):
    main(["data", "doctor", str(parts)])
    shown = "".join(capsys.readouterr().out.split())
    for part in ("part-1-of-3", "part-2-of-3", "part-3-of-3"):
        assert f"{part}:" in shown


def test_a_sequence_is_validated_on_once(parts):
    with pytest.raises(UserError, match=r"has two sequences 'video 4' of fake: name each once"):
        SequenceDataset([SequenceSource(str(parts), start=4), SequenceSource(str(parts), start=3)])


def test_a_part_that_is_missing_is_named(parts, whole):
    shutil.rmtree(parts / "part-2-of-3")
    with pytest.raises(UserError, match=r"lacks 1 of its 3 parts: pack them with .* --part 2/3`\.$"):
        open_store(parts)
    shutil.copytree(whole.path, parts / "part-2-of-4")
    with pytest.raises(UserError, match="holds parts of 3 and of 4"):
        store_folders(parts)


def test_parts_that_were_packed_otherwise_are_refused(parts, reader):
    shutil.rmtree(parts / "part-2-of-3")
    pack(Part(2, 3).reader(reader), parts / "part-2-of-3", split="train", options=PackingOptions(max_side=48))
    with pytest.raises(UserError, match="pack all parts of a store in the same way"):
        open_store(parts)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/", "-1/3", "1/100000", "one/two", "1/0"])
def test_what_is_no_part(text):
    with pytest.raises(UserError, match="such as 3/8"):
        Part.of(text)


def test_more_parts_than_sequences(reader):
    assert Part.of("3/8") == Part(3, 8)
    with pytest.raises(UserError, match="8 parts are more than the 5 sequences of fake"):
        Part(3, 8).reader(reader)

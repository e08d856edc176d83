"""Readers of the training sets, on roots written here file by file as the datasets are."""

import json
import os
import pickle

import cv2
import numpy as np
import pytest

from relo.data.sequences import (
    COCO,
    DATASETS,
    GOT10k,
    LaSOT,
    LaSOTExtension,
    PlainFolder,
    TrackingNet,
    VastTrack,
    open_reader,
)
from relo.data.sequences.traps import GOT10K_DEFECTIVE, lasot_challenges
from relo.errors import UserError

RED = cv2.imencode(".jpg", np.full((16, 24, 3), (0, 0, 255), np.uint8))[1].tobytes()  # BGR


def write(folder, **files):
    """Files by name ("__" stands for the dot)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(RED)


def lasot_sequence(
    root, name, boxes="1,1,5,5\n2,2,5,5\n3,3,0,5\n4,4,5,5\n5,5,5,5\n", flags=("0,0,0,1,0", "0,0,0,0,0"), count=5
):
    folder = root / name.rpartition("-")[0] / name
    images(folder / "img", [f"{i:08d}.jpg" for i in range(1, count + 1)])
    write(folder, groundtruth__txt=boxes, full_occlusion__txt=flags[0], out_of_view__txt=flags[1], nlp__txt="a kite\n")
    return folder


# ------------------------------------------------------------------------------------------------------------- LaSOT


@pytest.fixture
def lasot(tmp_path):
    (tmp_path / "training_set.txt").write_text("kite-1")
    return lasot_sequence(tmp_path, "kite-1")


def test_lasot_visibility_and_facts(lasot, tmp_path):
    (sequence,) = LaSOT(tmp_path, "train")
    # Frame 3 has no width; frame 4 is fully occluded though it carries a box.
    assert sequence.visible.tolist() == [True, True, False, False, True]
    assert sequence.boxes_xywh[3].tolist() == [4, 4, 5, 5]
    assert (sequence.class_name, sequence.sentence, len(sequence)) == ("kite", "a kite", 5)
    assert sequence.frames[4][0, 0].tolist() == [254, 0, 0]  # RGB


def test_lasot_out_of_view_hides_too(tmp_path, lasot):
    write(lasot, out_of_view__txt="1,0,0,0,0")
    assert LaSOT(tmp_path, "train")[0].visible.tolist() == [False, True, False, False, True]


def test_lasot_counts_pixels_from_one_if_told(lasot, tmp_path):
    assert LaSOT(tmp_path, "train")[0].boxes_xywh[0].tolist() == [1, 1, 5, 5]
    assert LaSOT(tmp_path, "train", zero_based=True)[0].boxes_xywh[0].tolist() == [0, 0, 5, 5]


def test_lasot_official_split(tmp_path):
    challenges = lasot_challenges()
    assert len(challenges) == 280
    assert "POC" in challenges["airplane-1"]
    for name in challenges:
        (tmp_path / name.rpartition("-")[0]).mkdir(exist_ok=True)
        for number in range(1, 21):
            (tmp_path / name.rpartition("-")[0] / f"{name.rpartition('-')[0]}-{number}").mkdir(exist_ok=True)
    train, test = LaSOT(tmp_path, "train"), LaSOT(tmp_path, "test")
    assert (len(train), len(test)) == (1120, 280)
    assert not set(train.names) & set(test.names)
    assert "volleyball-19" in test.names  # the last of the list, without a newline
    (tmp_path / "zebra" / "zebra-10").rmdir()
    with pytest.raises(UserError, match=r"lacks 1 of the 280 sequences of split test.*zebra-10"):
        LaSOT(tmp_path, "test")
    assert len(LaSOT(tmp_path, "test", partial=True)) == 279


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"groundtruth__txt": "1,1,5,5\n" * 4}, "groundtruth.txt has 4 rows for 5 frames"),
        ({"groundtruth__txt": "1,1,5,5\n" * 6}, "groundtruth.txt has 6 rows for 5 frames"),
        ({"groundtruth__txt": "1,1,5,5\n1,1,a,5\n"}, "groundtruth.txt, line 2"),
        ({"full_occlusion__txt": "0,0,0"}, "full_occlusion.txt has 3 rows for 5 frames"),
        ({"out_of_view__txt": "0,0,0,0,0,0"}, "out_of_view.txt has 6 rows"),
    ],
)
def test_lasot_broken_annotation(lasot, tmp_path, files, message):
    write(lasot, **files)
    with pytest.raises(UserError, match=message):
        LaSOT(tmp_path, "train")[0]


def test_lasot_broken_files(lasot, tmp_path):
    (lasot / "img" / "00000003.jpg").unlink()
    with pytest.raises(UserError, match=r"img lacks 1 of the frames 1 to 5 \(the first is number 3\)"):
        LaSOT(tmp_path, "train")[0]
    (lasot / "img" / "00000003.jpg").write_bytes(RED[:40])
    with pytest.raises(UserError, match=r"00000003\.jpg is not a readable image"):
        LaSOT(tmp_path, "train")[0].frames[2]
    (lasot / "out_of_view.txt").unlink()
    with pytest.raises(UserError, match=r"out_of_view\.txt cannot be read"):
        LaSOT(tmp_path, "train")[0]


def test_lasot_ignores_what_copying_tools_leave(lasot, tmp_path):
    (lasot / "img" / "._00000001.jpg").write_bytes(b"")
    (lasot / "img" / "Thumbs.db").write_bytes(b"")
    assert len(LaSOT(tmp_path, "train")[0]) == 5


@pytest.mark.parametrize("layout", ["{name}", "LaSOTBenchmark/kite/{name}", "kite/kite/{name}", "part1/{name}"])
@pytest.mark.parametrize(("reader", "file"), [(LaSOT, "training_set.txt"), (LaSOTExtension, None)])
def test_lasot_unpacked_otherwise(lasot, tmp_path, layout, reader, file):
    """Without the classes' folders, or with a folder more."""
    place = tmp_path / "unpacked" / layout.format(name="kite-1")
    place.parent.mkdir(parents=True)
    lasot.rename(place)
    if file:
        (tmp_path / file).rename(tmp_path / "unpacked" / file)
    read = reader(tmp_path / "unpacked")
    assert read.names == ["kite-1"]
    assert (read[0].class_name, len(read[0]), read[0].frames.folder) == ("kite", 5, place / "img")
    assert read.unused == []


def test_a_list_is_refused_where_none_is_read(lasot, tmp_path):
    assert lasot.is_dir()
    with pytest.raises(UserError, match="LaSOT_ext is read without a list: leave list_file out"):
        LaSOTExtension(tmp_path, list_file=tmp_path / "training_set.txt")


def test_a_second_copy_of_a_sequence_is_named(lasot, tmp_path):
    lasot_sequence(tmp_path / "backup", "kite-1")
    reader = LaSOT(tmp_path)
    assert reader[0].frames.folder == lasot / "img"
    (sentence,) = reader.unused
    assert str(tmp_path / "backup/kite/kite-1") in sentence
    assert "another folder of this name is read" in sentence


# What some files hold that a sequence can do without: text in another encoding, or nothing.
FOREIGN_TEXTS = ["a café".encode("cp1252"), "a kite".encode("utf-16"), "a kite".encode("utf-16-le")]


@pytest.mark.parametrize("text", FOREIGN_TEXTS)
def test_a_sentence_in_another_encoding_is_left_out_with_a_remark(tmp_path, lasot, text):
    write(lasot, nlp__txt=text)
    sequence = LaSOT(tmp_path)[0]
    assert (sequence.sentence, len(sequence)) == (None, 5)
    assert sequence.remarks == (f"{lasot / 'nlp.txt'} is left out: it is not UTF-8 text.",)
    write(lasot, nlp__txt="a café\n")
    assert (LaSOT(tmp_path)[0].sentence, LaSOT(tmp_path)[0].remarks) == ("a café", ())
    write(lasot, nlp__txt=" \n")
    assert (LaSOT(tmp_path)[0].sentence, LaSOT(tmp_path)[0].remarks) == (None, ())


# ----------------------------------------------------------------------------------------------------------- GOT-10k


@pytest.fixture
def got10k(tmp_path):
    folder = tmp_path / "train" / "GOT-10k_Train_000001"
    images(folder, [f"{i:08d}.jpg" for i in range(1, 5)])
    write(
        folder,
        groundtruth__txt="1.5,2,3,4\n1,2,3,4\n-1,-1,-1,-1\n1,2,3,4\n",
        absence__label="0\n1\n0\n0\n",
        cover__label="8\n3\n5\n0\n",
        cut_by_image__label="0\n0\n0\n0\n",
        meta_info__ini="[METAINFO]\nurl: http://x/?a=%20\nobject_class: mole\nresolution: (24, 16)\n",
    )
    (tmp_path / "train" / "list.txt").write_text("GOT-10k_Train_000001\n")
    return folder


def test_got10k_visibility_and_facts(got10k, tmp_path):
    (sequence,) = GOT10k(tmp_path, "train")
    # Frame 2 is absent, frame 3 has no size, nothing of frame 4 can be seen.
    assert sequence.visible.tolist() == [True, False, False, False]
    assert sequence.boxes_xywh[:, 0].tolist() == [1.5, 1, -1, 1]
    assert sequence.class_name == "mole"
    assert sequence.attributes["cover"].tolist() == [8, 3, 5, 0]
    assert sequence.attributes["resolution"] == (24, 16)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"groundtruth__txt": "1,2,3,4\n"}, "groundtruth.txt has 1 rows for 4 frames"),
        ({"absence__label": "0\n0\n"}, "absence.label has 2 rows"),
        ({"cover__label": "8\n" * 5}, "cover.label has 5 rows"),
        ({"cover__label": "8\nall\n"}, "cover.label, line 2"),
        (
            {"meta_info__ini": "[METAINFO]\na: 1\n" + " 1\n" * 60_000},
            "not a GOT-10k meta file: it has 180,016 characters",
        ),
        (
            {"meta_info__ini": "no section"},
            r"not a GOT-10k meta file: .* headers\. file:",
        ),
    ],
)
def test_got10k_broken_annotation(got10k, tmp_path, files, message):
    write(got10k, **files)
    with pytest.raises(UserError, match=message):
        GOT10k(tmp_path, "train")[0]


def test_got10k_facts_in_another_encoding_are_left_out(got10k, tmp_path):
    write(got10k, meta_info__ini="[METAINFO]\nobject_class: café\n".encode("cp1252"))
    sequence = GOT10k(tmp_path)[0]
    assert (sequence.class_name, sequence.attributes["resolution"]) == (None, None)
    assert "meta_info.ini is left out" in sequence.remarks[0]


@pytest.mark.parametrize("resolution", ["('a', 'b')", f"({'9' * 5000}, 1)", "(1e999, 2)", "(((1, 2)", "([1], 2)"])
def test_got10k_resolution_that_is_none(got10k, tmp_path, resolution):
    write(got10k, meta_info__ini=f"[METAINFO]\nresolution: {resolution}\n")
    assert GOT10k(tmp_path)[0].attributes["resolution"] is None


def official_got10k(root):
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / "list.txt").write_text("".join(f"GOT-10k_Train_{i:06d}\n" for i in range(1, 9336)))


def test_got10k_official_splits(tmp_path):
    official_got10k(tmp_path)
    train, vot = GOT10k(tmp_path, "train"), GOT10k(tmp_path, "vot-train")
    assert (len(train), len(vot)) == (9335, 7086)
    # Rows count from 0, sequence numbers from 1: row 1 is left out, row 0 is not.
    assert vot.names[:2] == ["GOT-10k_Train_000001", "GOT-10k_Train_000003"]


def test_got10k_defective_sequences_can_be_left_out(tmp_path):
    official_got10k(tmp_path)
    assert len(GOT10K_DEFECTIVE) == 19
    assert set(GOT10k(tmp_path, "train").names) >= GOT10K_DEFECTIVE
    kept = GOT10k(tmp_path, "train", skip_defective=True).names
    assert len(kept) == 9335 - 19
    assert not GOT10K_DEFECTIVE & set(kept)


def test_got10k_vot_split_needs_the_official_list(got10k, tmp_path):
    with pytest.raises(UserError, match="1 names; split vot-train is defined on the official 9335"):
        GOT10k(tmp_path, "vot-train")


def test_got10k_without_list(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=r"list\.txt cannot be read"):
        GOT10k(tmp_path, "val")


def test_listing_reads_no_annotation(tmp_path):
    official_got10k(tmp_path)  # none of its sequences is there
    assert len(GOT10k(tmp_path, "train")) == 9335


# ------------------------------------------------------------------------------------------------------- TrackingNet


def trackingnet_video(root, part, name, boxes, count=12):
    images(root / part / "frames" / name, [f"{i}.jpg" for i in range(count)])
    write(root / part / "anno", **{f"{name}__txt": boxes})


def test_trackingnet_folders_and_names(tmp_path):
    trackingnet_video(tmp_path, "TRAIN_0", "-abc_0", "1.00,2.00,3.00,4.00\n" * 11 + "1,2,0,4\n")
    trackingnet_video(tmp_path, "TRAIN_3", "xyz_12", "1.00,2.00,3.00,4.00\n" * 12)
    with pytest.raises(UserError, match="TRAIN_1"):
        TrackingNet(tmp_path, "train")
    reader = TrackingNet(tmp_path, "train", folders=[0, 3])
    assert reader.names == ["-abc_0", "xyz_12"]
    assert reader[0].visible.tolist() == [True] * 11 + [False]
    assert reader[0].frames.names == tuple(f"{i}.jpg" for i in range(12))


def test_trackingnet_test_has_one_line(tmp_path):
    trackingnet_video(tmp_path, "TEST", "v_0", "1.00,2.00,3.00,4.00")
    sequence = TrackingNet(tmp_path, "test")[0]
    assert sequence.boxes_xywh.tolist() == [[1, 2, 3, 4]]
    assert len(sequence) == 12


def test_trackingnet_incomplete_unzip(tmp_path):
    trackingnet_video(tmp_path, "TRAIN_0", "v_0", "1,2,3,4\n" * 12)
    reader = TrackingNet(tmp_path, "train", folders=[0])
    (tmp_path / "TRAIN_0/frames/v_0/11.jpg").unlink()
    with pytest.raises(UserError, match=r"v_0\.txt has 12 rows for 11 frames"):
        reader[0]
    (tmp_path / "TRAIN_0/frames/v_0/4.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of the frames 0 to 10 \(the first is number 4\)"):
        reader[0]
    for image in (tmp_path / "TRAIN_0/frames/v_0").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="holds no images"):
        reader[0]
    (tmp_path / "TRAIN_0/frames/v_0").rmdir()
    with pytest.raises(UserError, match=r"frames' folder .* cannot be read"):
        reader[0]


# --------------------------------------------------------------------------------------------------- COCO, VastTrack


@pytest.fixture
def coco(tmp_path):
    images(tmp_path / "images" / "train2017", ["000000000009.jpg"])
    target = {"image_id": 9, "category_id": 2, "iscrowd": 0}
    content = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}],
        "categories": [{"id": 2, "name": "bowl"}],
        "annotations": [
            {**target, "id": 70, "bbox": [1.5, 2, 3, 4]},
            {**target, "id": 71, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {**target, "id": 72, "bbox": [1, 2, 0, 4]},
        ],
    }
    write(tmp_path / "annotations", instances_train2017__json=json.dumps(content))
    return tmp_path


def test_coco_objects_are_sequences_of_one_frame(coco):
    first, second = COCO(coco)
    assert (first.name, second.name) == ("70", "72")  # no crowd
    assert first.boxes_xywh.tolist() == [[1.5, 2, 3, 4]]
    assert (first.visible.tolist(), second.visible.tolist()) == ([True], [False])
    assert (len(first), first.class_name, first.frames[0].shape) == (1, "bowl", (16, 24, 3))


def test_coco_broken_root(coco):
    with pytest.raises(UserError, match=r"instances_val2017\.json"):
        COCO(coco, "val2017")
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    twice = [content | {key: content[key] * 2} for key in ("images", "categories", "annotations")]
    huge = content["annotations"][0] | {"bbox": [10**400] * 4}
    for broken in ({"images": []}, content | {"annotations": [5]}, huge, *twice):
        write(coco / "annotations", instances_train2017__json=json.dumps(broken))
        with pytest.raises(UserError, match="not a COCO annotation file"):
            len(COCO(coco))
    write(coco / "annotations", instances_train2017__json="[" * 100_000)
    with pytest.raises(UserError, match=r"instances_train2017\.json is not JSON"):
        len(COCO(coco))


def test_coco_image_that_is_not_there(coco):
    (coco / "images/train2017/000000000009.jpg").unlink()
    with pytest.raises(UserError, match=r"There is no image .*000000000009\.jpg"):
        COCO(coco)[0]


def test_vasttrack_names_with_spaces_and_dashes(tmp_path):
    for name in ("Crossbody Backpack-31", "T-shirt-2", "Kite-1"):
        folder = tmp_path / name.rpartition("-")[0] / name
        images(folder / "imgs", ["00001.jpg", "00002.jpg"])
        write(folder, Groundtruth__txt="-2,3,4,5\n0,0,0,0\n")
    write(tmp_path / "Kite" / "Kite-1", nlp__txt="red kite")
    (tmp_path / "vasttrack_test_list.txt").write_text("Kite-1")
    assert VastTrack(tmp_path, "test").names == ["Kite-1"]
    assert VastTrack(tmp_path, "test")[0].sentence == "red kite"
    train = VastTrack(tmp_path, "train")
    assert train.names == ["Crossbody Backpack-31", "T-shirt-2"]
    assert [s.class_name for s in train] == ["Crossbody Backpack", "T-shirt"]
    assert train[0].visible.tolist() == [True, False]
    assert train[0].sentence is None
    write(tmp_path / "T-shirt" / "T-shirt-2", nlp__txt=FOREIGN_TEXTS[0])
    assert (train[1].sentence, len(train[1].remarks)) == (None, 1)
    (tmp_path / "T-shirt/T-shirt-2/Groundtruth.txt").rename(tmp_path / "T-shirt/T-shirt-2/groundtruth.txt")
    assert len(train[1]) == 2
    (tmp_path / "vasttrack_test_list.txt").write_text("Kite-1\nKite-2")
    with pytest.raises(UserError, match="lacks 1 of the 2"):
        VastTrack(tmp_path, "test")


# ------------------------------------------------------------------------------------------------------ plain folders


def test_plain_folder(tmp_path):
    images(tmp_path / "cat" / "img", [f"{i}.png" for i in range(1, 12)])
    write(tmp_path / "cat", groundtruth_rect__txt="1\t2\t3\t4\n" * 11, absent__txt="0\n" * 10 + "1\n")
    images(tmp_path / "dog", ["a2.jpg", "a1.jpg"])
    write(tmp_path / "dog", groundtruth__txt="1 2 3 4")
    (tmp_path / "notes").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    reader = PlainFolder(tmp_path)
    assert reader.names == ["cat", "dog"]
    assert reader.unused == [f"{tmp_path / 'circle'} is a link to what is not there."]
    cat, dog = reader
    assert cat.frames.names[1:3] == ("2.png", "3.png")
    assert cat.visible.tolist() == [True] * 10 + [False]
    assert dog.frames.names == ("a1.jpg", "a2.jpg")
    assert dog.boxes_xywh.shape == (1, 4)


def test_plain_folder_broken(tmp_path):
    images(tmp_path / "cat" / "img", ["1.jpg", "2.jpg", "3.jpg"])
    with pytest.raises(UserError, match="holds no sequence"):
        PlainFolder(tmp_path)
    write(tmp_path / "cat", groundtruth__txt="1,2,3,4\n" * 2)
    with pytest.raises(UserError, match=r"groundtruth\.txt has 2 rows for 3 frames"):
        PlainFolder(tmp_path)[0]


@pytest.mark.parametrize("link", ["cat/absent.txt", "cat/img", "cat/groundtruth.txt"])
def test_a_link_to_nothing_is_a_missing_file(tmp_path, link):
    """Not an optional one that is absent: without it, other frames would be visible, or others read."""
    images(tmp_path / "cat", ["1.jpg"])
    write(tmp_path / "cat", groundtruth__txt="1,2,3,4\n")
    (tmp_path / link).unlink(missing_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{tmp_path / link} cannot be read"):
        PlainFolder(tmp_path)[0]


def test_links_to_nothing_in_lasot(lasot, tmp_path):
    (lasot / "nlp.txt").unlink()
    (lasot / "nlp.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nlp\.txt cannot be read"):
        LaSOT(tmp_path)[0]
    (tmp_path / "training_set.txt").unlink()
    (tmp_path / "training_set.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"training_set\.txt cannot be read"):
        LaSOT(tmp_path)


# ----------------------------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_reader_names_a_missing_root(dataset, tmp_path):
    with pytest.raises(UserError, match=f"There is no folder {tmp_path / 'nowhere'}"):
        open_reader(dataset, tmp_path / "nowhere")


def test_unknown_dataset_and_split(lasot, tmp_path):
    with pytest.raises(UserError, match=r"no dataset 'lasott'; known are lasot, .*got10k"):
        open_reader("lasott", tmp_path)
    with pytest.raises(UserError, match="LaSOT has no split 'val'; there is train, test"):
        open_reader("lasot", tmp_path, "val")


def test_options_reach_the_reader(lasot, tmp_path):
    assert open_reader("lasot", tmp_path, "train", zero_based=True)[0].boxes_xywh[0].tolist() == [0, 0, 5, 5]
    with pytest.raises(UserError, match="LaSOT has no option 'folders'; there is split, zero_based, partial"):
        open_reader("lasot", tmp_path, "train", folders=[0])


def test_readers_and_sequences_pickle(lasot, tmp_path):
    reader = pickle.loads(pickle.dumps(open_reader("lasot", tmp_path, "train")))
    sequence = pickle.loads(pickle.dumps(reader[0]))
    assert sequence.name == "kite-1"
    assert sequence.frames[0].shape == (16, 24, 3)


def test_reader_is_a_list(lasot, tmp_path):
    reader = open_reader("lasot", str(tmp_path), "train")
    assert [s.name for s in reader] == reader.names == ["kite-1"]
    with pytest.raises(IndexError):
        reader[1]
    assert os.fspath(reader.root) == str(tmp_path)

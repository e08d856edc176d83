"""Every evaluation benchmark, written in its layout with its traps and read back; and what is wrong with roots."""

import numpy as np
import pytest

from relo.data.sequences import NFS, OTB100, TNL2K, UAV123, open_reader
from relo.data.sequences.tables import read_table
from relo.data.synthetic import render_sequence
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.layouts import LAYOUTS
from relo.data.synthetic.settings import HARD
from relo.errors import UserError

FRAMES = 60
BENCHMARKS = sorted(set(LAYOUTS) - {"lasot", "got10k", "trackingnet"})
# Layouts that say which frames lack the target; in the others every box with a size counts as visible.
FLAGGED = {"lasot_extension", "vasttrack", "tnl2k", "nfs", "uav123", "uav123_10fps", "plain"}


def rendered(name):
    return render_sequence(name, frames=FRAMES, width=96, height=72, split="test", settings=HARD)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    for layout in BENCHMARKS:
        synthesize(folder / layout, layout=layout, split="test", sequences=6, frames=FRAMES, width=96, height=72,
                   difficulty="hard", workers=0)  # fmt: skip
    return folder


def scored_range(dataset, name, root):
    """The rendered sequence, and its frames (from 0) that the benchmark counts."""
    if dataset.startswith("uav123"):
        variant = "UAV123" if dataset == "uav123" else "UAV123_10fps"
        row = read_table("uav123.csv", root / "anno" / variant / "ranges.csv")[name]
        return row["folder"], slice(int(row["first"]) - 1, int(row["last"]))
    if dataset == "otb100":
        return name, {1: slice(0, 60), 2: slice(5, 60), 3: slice(5, 60), 0: slice(0, 57)}[int(name[5:]) % 4]
    if dataset == "tnl2k" and name in ("Badge3", "Badge6"):
        return name, slice(0, 59)
    return name, slice(0, FRAMES)


@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_layout_reads_back(dataset, roots):
    reader = open_reader(dataset, roots / dataset, None if dataset == "plain" else "test")
    assert len(reader) == (9 if dataset.startswith("uav123") else 6)
    absent = 0
    for sequence in reader:
        scene, frames = scored_range(dataset, sequence.name, roots / dataset)
        truth = rendered(scene)
        boxes_xywh, visible = truth.boxes_xywh[frames], truth.visible[frames]
        assert len(sequence) == len(sequence.boxes_xywh) == len(boxes_xywh)
        np.testing.assert_allclose(sequence.boxes_xywh[visible], boxes_xywh[visible], atol=0.0101)
        if dataset in FLAGGED:
            assert (sequence.visible == visible).all()
        else:
            assert (sequence.visible == (np.round(boxes_xywh[:, 2:], 2) > 0).all(1)).all()
        absent += int((~visible).sum())
        for index in (0, len(sequence) - 1):
            difference = np.abs(sequence.frames[index].astype(int) - truth.frames[frames][index]).mean()
            assert difference < 14, "another frame than the box's"
    assert absent > 0


@pytest.mark.parametrize(("alias", "name"), [("otb", "otb100"), ("lasot_ext", "lasot_extension")])
def test_an_alias_opens_and_writes_the_dataset(alias, name, roots, tmp_path):
    assert open_reader(alias, roots / name).names == open_reader(name, roots / name).names
    assert open_reader(alias, roots / name).dataset == name
    synthesize(tmp_path, layout=alias, split="test", sequences=1, frames=8, width=64, height=64, workers=0)
    assert len(open_reader(name, tmp_path, "test")) == 1


@pytest.mark.parametrize(("options", "form"), [({"variant": "released"}, "nfs_released"), ({}, "nfs")])
def test_another_form_is_an_option_too(options, form, roots):
    assert open_reader("nfs", roots / form, **options)[0].boxes_xywh.shape == (FRAMES, 4)


def test_uav_ranges():
    table = read_table("uav123.csv")
    assert len(table) == 123
    assert len({row["folder"] for row in table.values()}) == 91
    lengths = {n: [(int(row[end]) - 1) // n + 1 for row in table.values() for end in ("first", "last")] for n in (1, 3)}
    # 112,578 frames at 30 fps and 37,607 at 10 fps
    assert sum(lengths[1][1::2]) - sum(lengths[1][::2]) + 123 == 112578
    assert sum(lengths[3][1::2]) - sum(lengths[3][::2]) + 123 == 37607


def test_uav_reads_the_official_ranges(tmp_path, roots):
    """person12_2 is frames 201 to 541 of its folder at 10 fps."""
    images = tmp_path / "data_seq" / "UAV123_10fps" / "person12"
    images.mkdir(parents=True)
    for number in range(1, 542):
        (images / f"{number:06d}.jpg").touch()
    (tmp_path / "anno" / "UAV123_10fps").mkdir(parents=True)
    (tmp_path / "anno" / "UAV123_10fps" / "person12_2.txt").write_text("1,2,3,4\n" * 340 + "NaN,NaN,NaN,NaN\n")
    with pytest.raises(UserError, match="lacks 121 of the 123"):
        UAV123(tmp_path, fps=10)
    reader = UAV123(tmp_path, fps=10, partial=True)
    assert reader.names == ["person12_1", "person12_2"]
    sequence = reader[1]
    assert (sequence.frames.names[0], sequence.frames.names[-1]) == ("000201.jpg", "000541.jpg")
    assert sequence.visible.tolist() == [True] * 340 + [False]
    assert sequence.dataset == "uav123_10fps"
    with pytest.raises(UserError, match=r"person12_1\.txt cannot be read"):
        reader[0]


def otb_folder(root, folder, images, files):
    (root / folder / "img").mkdir(parents=True)
    for number in images:
        (root / folder / "img" / f"{number:04d}.jpg").touch()
    for name, count in files.items():
        (root / folder / name).write_text("1\t2\t3\t4\n" * count)


def test_otb_defects(tmp_path):
    otb_folder(tmp_path, "David", range(1, 771), {"groundtruth_rect.txt": 471})
    otb_folder(tmp_path, "Football1", range(1, 82), {"groundtruth_rect.txt": 74})
    otb_folder(tmp_path, "Tiger1", range(1, 355), {"groundtruth_rect.txt": 354})
    otb_folder(tmp_path, "Jogging", range(1, 308), {"groundtruth_rect.1.txt": 307, "groundtruth_rect.2.txt": 307})
    otb_folder(tmp_path, "Human4", range(1, 668), {"groundtruth_rect.1.txt": 0, "groundtruth_rect.2.txt": 667})
    with pytest.raises(UserError, match="lacks 94 of the 100"):
        OTB100(tmp_path)
    reader = OTB100(tmp_path, partial=True)
    lengths = {sequence.name: len(sequence.boxes_xywh) for sequence in reader}
    assert lengths == {
        "David": 471,
        "Football1": 74,
        "Human4-2": 667,
        "Jogging-1": 307,
        "Jogging-2": 307,
        "Tiger1": 349,
    }
    assert reader.read("David").frames.names[0] == "0300.jpg"
    assert reader.read("Tiger1").frames.names[0] == "0006.jpg"
    # The shorter annotation of Tiger1 that goes round.
    (tmp_path / "Tiger1" / "groundtruth_rect.txt").write_text("1,2,3,4\n" * 349)
    assert len(reader.read("Tiger1").boxes_xywh) == 349
    (tmp_path / "Tiger1" / "groundtruth_rect.txt").write_text("1,2,3,4\n" * 350)
    with pytest.raises(UserError, match="350 rows for 349 frames"):
        reader.read("Tiger1")


def test_table_of_other_columns(tmp_path):
    (tmp_path / "sequences.csv").write_text("name,from\nA,1\n")
    with pytest.raises(UserError, match=r"sequences\.csv needs the columns annotation, first"):
        OTB100(tmp_path)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("A,A,g.txt,1,x\n", "A has no range of frames, but first '1' and last 'x'"),
        ("A,A,g.txt,,5\n", "no range of frames"),
        ("A,A,g.txt,5,4\n", "no range of frames"),
        (f"A,A,g.txt,1,{'9' * 5000}\n", "no range of frames"),
        ("A,A,g.txt\n", "needs the columns"),
        ("A,A,g.txt,1,2,3\n", "needs the columns"),
        ("A,A,g.txt,1,2\n" + "x" * 200000, "is not a table"),
    ],
)
def test_table_of_other_rows(tmp_path, table, told):
    (tmp_path / "sequences.csv").write_text("sequence,folder,annotation,first,last\n" + table)
    with pytest.raises(UserError, match=rf"sequences\.csv.*{told}"):
        OTB100(tmp_path)


def test_a_range_far_beyond_the_frames(tmp_path):
    otb_folder(tmp_path, "A", range(1, 4), {"g.txt": 3})
    (tmp_path / "sequences.csv").write_text(f"sequence,folder,annotation,first,last\nA,A,g.txt,1,{10**17}\n")
    with pytest.raises(UserError, match=rf"lacks {10**17 - 3} of the frames 1 to {10**17} \(the first is number 4\)"):
        OTB100(tmp_path)[0]


def test_tnl2k_row_counts(tmp_path):
    images = tmp_path / "cat" / "imgs"
    images.mkdir(parents=True)
    for name in ("b10.png", "b9.png", "b8.png", "firstFrame_bbox.jpg"):
        (images / name).touch()
    (tmp_path / "cat" / "groundtruth.txt").write_text("-455,1,2,3\n0,0,0,0\n1,1,2,2\n")
    sequence = TNL2K(tmp_path)[0]
    assert (sequence.frames.names, sequence.remarks) == (("b8.png", "b9.png", "b10.png"), ())
    assert sequence.visible.tolist() == [True, False, True]
    (tmp_path / "cat" / "groundtruth.txt").write_text("1,1,2,3\n" * 10)
    with pytest.raises(UserError, match=r"10 rows for 3 frames .*revised_annotations\.zip"):
        TNL2K(tmp_path)[0]
    (tmp_path / "cat" / "groundtruth.txt").write_text("1,1,2,3\n" * 2)
    sequence = TNL2K(tmp_path)[0]
    assert sequence.frames.names == ("b8.png", "b9.png")
    assert sequence.remarks[0].startswith(f"{images / 'b10.png'} is left out: ")
    (images / "b9 copy.png").touch()
    with pytest.raises(UserError, match=r"holds b9 copy\.png among images named like b8\.png"):
        TNL2K(tmp_path)[0]
    (images / "b9 copy.png").unlink()
    (tmp_path / "cat" / "groundtruth.txt").write_text("1,1,2,3\n" * 3)
    (tmp_path / "cat" / "language.txt").write_bytes("un café".encode("cp1252"))
    assert (TNL2K(tmp_path)[0].sentence, len(TNL2K(tmp_path)[0].remarks)) == (None, 1)


def nfs_original(root, name, images, annotated):
    (root / name / "30" / name).mkdir(parents=True)
    for number in range(1, images + 1):
        (root / name / "30" / name / f"{number:05d}.jpg").touch()
    rows = [f'0 {f} 20 {f + 30} 60 {f} {int(f == 8)} 0 1 "cat"\n' for f in range(annotated)]
    (root / name / "30" / f"{name}.txt").write_text("".join(rows))


def test_nfs_takes_every_eighth_corner_row(tmp_path):
    nfs_original(tmp_path, "cat", images=4, annotated=30)
    sequence = NFS(tmp_path)[0]
    assert sequence.boxes_xywh.tolist() == [[0, 20, 30, 40], [8, 20, 30, 40], [16, 20, 30, 40], [24, 20, 30, 40]]
    assert sequence.visible.tolist() == [True, False, True, True]


@pytest.mark.parametrize("annotated", [17, 33])
def test_nfs_cuts_the_longer_by_one(tmp_path, annotated):
    nfs_original(tmp_path, "cat", images=4, annotated=annotated)
    sequence = NFS(tmp_path)[0]
    assert len(sequence) == len(sequence.boxes_xywh) == min(4, -(-annotated // 8))


def test_nfs_broken(tmp_path):
    nfs_original(tmp_path, "cat", images=4, annotated=80)
    with pytest.raises(UserError, match=r"cat\.txt has 10 rows for 4 frames"):
        NFS(tmp_path)[0]
    (tmp_path / "cat" / "30" / "cat.txt").write_text("1,2,3,4\n")
    with pytest.raises(UserError, match=r"cat\.txt, line 1: no row of a VATIC annotation"):
        NFS(tmp_path)[0]
    with pytest.raises(UserError, match="no variant 'vatic'"):
        NFS(tmp_path, variant="vatic")


def test_nfs_pingpong_has_263_sound_frames(tmp_path):
    nfs_original(tmp_path, "pingpong_2", images=300, annotated=300 * 8)
    assert len(NFS(tmp_path)[0].boxes_xywh) == 263


@pytest.mark.parametrize("place", ["sequence", "folder"])
def test_a_table_that_leads_elsewhere(tmp_path, place):
    row = next(iter(read_table("uav123.csv").values())) | {place: "../outside"}
    (tmp_path / "ranges.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(UserError, match=r"ranges\.csv: '.*' leads out of the dataset's folder"):
        read_table("uav123.csv", tmp_path / "ranges.csv")

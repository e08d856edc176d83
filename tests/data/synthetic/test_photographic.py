from dataclasses import replace

import cv2
import numpy as np
import pytest
from pictures import make_sources, texture, write_cut_outs, write_photographs

from relo.data.sequences import GOT10k
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.degradation import draw_degradation
from relo.data.synthetic.image_sources import find_sources
from relo.data.synthetic.photographic import PhotographicMaterial
from relo.data.synthetic.scene import Scene
from relo.data.synthetic.settings import (
    DISTRACTORS,
    HARD,
    OCCLUDED,
    PhotographicSettings,
    SceneSettings,
    photographic,
)
from relo.errors import UserError

FLAWLESS = PhotographicSettings(grey=0, dark=0, coarse=0, noisy=0, compressed=0, zooming=0)
BARE = SceneSettings(light_change=0, blur=0, motion_blur=0, noise=0, shake=0, camouflage=0, distractors=(0, 0),
                     occlusions=0, out_of_view=0, camera_motion=0.05)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


def make_scene(sources, name, scene=BARE, settings=FLAWLESS, frames=9):
    scene = photographic(scene)
    material = PhotographicMaterial(sources, settings, scene)
    return Scene(name, frames=frames, width=160, height=120, seed=0, split="train", settings=scene, material=material)


def annotated(scene):
    images, ratios = zip(*scene.render(), strict=True)
    return np.stack(images), scene.annotate(np.array(ratios))


def drawn_target(scene, index):
    """The boxed alpha [H, W] of the target alone."""
    return scene._paste(np.zeros((120, 160, 3), np.uint8), scene._target, index)


@pytest.mark.parametrize("kind", ["cut-outs", "shapes", "parts"])
def test_boxes_are_the_extent_of_what_is_drawn(sources, kind):
    settings = replace(FLAWLESS, shapes=float(kind == "shapes"), parts=float(kind == "parts"))
    for number in range(5):
        scene = make_scene(sources, f"box{number}", settings=settings)
        boxes_xywh = scene.annotate(np.ones(9)).boxes_xywh
        for index in (0, 4, 8):
            x, y, w, h = boxes_xywh[index]
            rows, columns = np.nonzero(drawn_target(scene, index) >= 128)
            drawn_xyxy = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(drawn_xyxy, [x, y, x + w, y + h], atol=1.1)


def test_targets_change_shape(sources):
    """After the best fit of its box, a disc that is no ellipse any more has bent."""
    differences = []
    for number in range(8):
        scene = make_scene(sources, f"bend{number}", settings=replace(FLAWLESS, shapes=0, parts=0, deformed=1))
        cut = []
        for index, box_xywh in enumerate(scene.annotate(np.ones(9)).boxes_xywh):
            x, y, w, h = np.round(box_xywh).astype(int)
            cut.append(cv2.resize(drawn_target(scene, index)[y : y + h, x : x + w], (32, 32)) / 255)
        differences.append(max(np.abs(image - cut[0]).mean() for image in cut[1:]))
    assert max(differences) > 0.05


def test_a_part_moves_with_its_whole_and_has_no_edge_of_its_own(sources):
    settings = replace(FLAWLESS, shapes=0, parts=1)
    larger = 0
    for number in range(8):
        scene = make_scene(sources, f"part{number}", settings=settings)
        boxed = drawn_target(scene, 4) >= 128
        picture = np.full((120, 160, 3), 255, np.uint8)
        scene._paste(picture, scene._target, 4)
        whole = (picture < 255).any(-1)
        assert (whole | ~cv2.erode(boxed.astype(np.uint8), np.ones((3, 3))).astype(bool)).all()
        larger += whole.sum() > 1.5 * boxed.sum()
    assert larger >= 5


def test_visible_flags_are_exact(sources):
    hidden = 0
    for number in range(12):
        scene = make_scene(sources, f"hide{number}", replace(BARE, occlusions=4, full_occlusion=1), frames=24)
        _, annotation = annotated(scene)
        assert annotation.visible[0]
        for index in range(0, 24, 4):
            alone = drawn_target(scene, index).astype(int)
            seen = alone.copy()
            for actor in scene._before:
                cover = scene._paste(np.zeros((120, 160, 3), np.uint8), actor, index)
                seen = seen * (255 - cover.astype(int)) // 255
            outside = scene.annotate(np.ones(24)).cut_by_image[index]
            if not outside:
                assert abs(seen.sum() / alone.sum() - annotation.visible_ratio[index]) < 0.05
        hidden += int((~annotation.visible).sum())
    assert hidden > 5


def test_targets_leave_the_image_and_come_back(sources):
    scenes = [make_scene(sources, f"away{n}", replace(BARE, out_of_view=1.0), frames=60) for n in range(4)]
    away = [scene.annotate(np.ones(60)).boxes_xywh[:, 2] == 0 for scene in scenes]
    assert any(gone.any() and not gone[-1] for gone in away)
    for scene, gone in zip(scenes, away, strict=True):
        _, annotation = annotated(scene)
        assert not annotation.visible[gone].any()


def test_targets_are_cut_by_the_border_and_shrink_to_twelve_pixels(sources):
    settings = replace(BARE, target_size=(0.05, 0.5), scale_change=1.5)
    annotations = [make_scene(sources, f"size{n}", settings, frames=40).annotate(np.ones(40)) for n in range(25)]
    assert any(a.cut_by_image.any() for a in annotations)
    scales = np.concatenate([
        np.sqrt(np.abs(np.linalg.det(scene._target.matrices))) * scene._size
        for scene in (make_scene(sources, f"size{n}", settings, frames=40) for n in range(25))
    ])  # fmt: skip
    assert scales.min() >= 11.99
    assert scales.min() < 12.5


def test_look_alikes_are_the_same_thing_and_others_are_not(sources):
    def differences(look_alike):
        found = []
        for number in range(6):
            settings = replace(BARE, distractors=(1, 1), look_alike=look_alike)
            scene = make_scene(sources, f"like{number}", settings, replace(FLAWLESS, shapes=0, parts=0, deformed=0))
            target, other = (actor.appearance.picture.levels[0].image for actor in (scene._target, *scene._behind))
            size = target.shape[1::-1]
            pair = [cv2.resize(image, size).astype(int) for image in (other, other[:, ::-1])]
            found.append(min(np.abs(image - target).mean() for image in pair))
        return found

    assert sorted(differences(1.0))[1] < 6  # some are the very same, mirrored or not
    assert min(differences(0.0)) > 6


def test_camouflage_has_the_colours_of_the_ground(sources):
    def distance(hidden):
        found = []
        for number in range(12):
            scene = make_scene(
                sources, f"hidden{number}", replace(BARE, camouflage=hidden), replace(FLAWLESS, shapes=0, standing=0)
            )
            image = scene._target.appearance.picture.levels[0].image
            opaque = image[..., 3] == 255
            found.append(np.abs(image[opaque][:, :3].mean(0) - scene._material._ground.mean((0, 1))).mean())
        return np.mean(found)

    assert distance(1.0) < 0.6 * distance(0.0)


def test_the_camera_zooms_on_everything(sources):
    scene = make_scene(sources, "zoom", settings=replace(FLAWLESS, zooming=1, zoom=0.8), frames=40)
    flat = make_scene(sources, "zoom", settings=replace(FLAWLESS, zooming=0), frames=40)
    grown = np.linalg.det(scene._target.matrices) / np.linalg.det(flat._target.matrices)
    shown = np.linalg.det(flat._view[..., :2]) / np.linalg.det(scene._view[..., :2])
    np.testing.assert_allclose(grown, shown)
    assert grown.max() > 1.2
    # The first centre stays, and lies over the same place of the background.
    np.testing.assert_allclose(scene._target.centres_xy[0], flat._target.centres_xy[0])
    under = [s._view[0, :, :2] @ flat._target.centres_xy[0] + s._view[0, :, 2] for s in (scene, flat)]
    np.testing.assert_allclose(*under)


@pytest.mark.parametrize("fault", ["grey", "dark", "coarse", "noisy", "compressed"])
def test_faults_of_the_camera(fault):
    frame = texture(3, 120, 160)
    camera = draw_degradation(np.random.default_rng(1), **(dict.fromkeys(FLAWLESS.faults(), 0.0) | {fault: 1.0}))
    first, second = camera.apply(frame, 0), camera.apply(frame, 1)
    assert first.shape == frame.shape
    assert first.dtype == np.uint8
    change = np.abs(first.astype(int) - frame)
    detail = [np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean() for image in (frame, first)]
    assert {
        "grey": (first[..., 0] == first[..., 1]).all() and (first[..., 0] == first[..., 2]).all(),
        "dark": first.mean() < 0.7 * frame.mean(),
        "coarse": detail[1] < 0.7 * detail[0],
        "noisy": change.std() > 3 and (first != second).mean() > 0.5,
        "compressed": change.mean() > 1 and (first == second).all(),
    }[fault]


def test_no_fault_changes_nothing():
    frame = texture(3, 120, 160)
    camera = draw_degradation(np.random.default_rng(1), **dict.fromkeys(FLAWLESS.faults(), 0.0))
    assert (camera.apply(frame, 0) == frame).all()


@pytest.mark.parametrize("difficulty", [HARD, OCCLUDED, DISTRACTORS])
def test_every_difficulty_shows_the_target_first(sources, difficulty):
    for number in range(4):
        frames, annotation = annotated(make_scene(sources, f"s{number}", difficulty, PhotographicSettings()))
        assert frames.shape == (9, 120, 160, 3)
        assert annotation.visible[0]
        assert (annotation.boxes_xywh[annotation.visible, 2:] > 0).all()


def test_thin_and_tiny_cut_outs_can_be_drawn(tmp_path):
    things = write_cut_outs(tmp_path / "things", 2)
    for number, thickness in enumerate((1, 1, 2)):
        mask = np.zeros((300, 300), np.uint8)
        cv2.line(mask, (10, 20 + number), (290, 270), 255, thickness)
        cv2.imwrite(str(things / f"wire{number}.png"), np.dstack([texture(number, 300, 300), mask]))
    sources = find_sources([write_photographs(tmp_path / "photographs", 4)], [things], "train")
    for number in range(12):
        scene = make_scene(
            sources, f"thin{number}", replace(BARE, target_size=(0.05, 0.1)), replace(FLAWLESS, parts=0.5)
        )
        _, annotation = annotated(scene)
        assert (annotation.boxes_xywh[:, 2:] > 0).all()


# --------------------------------------------------------------------------------------------------- the whole command


@pytest.fixture
def folders(tmp_path):
    return {
        "photographs": [write_photographs(tmp_path / "photographs")],
        "cutouts": [write_cut_outs(tmp_path / "things")],
    }


SMALL = {"layout": "got10k", "sequences": 3, "frames": 6, "width": 96, "height": 72, "difficulty": "hard"}


def tree(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_same_bytes_whatever_the_number_of_processes_and_the_place_of_the_images(tmp_path, folders):
    synthesize(tmp_path / "0", workers=0, **SMALL, **folders)
    for path in (tmp_path / "photographs", tmp_path / "things"):
        (tmp_path / "moved" / path.name).parent.mkdir(exist_ok=True)
        path.rename(tmp_path / "moved" / path.name)
    moved = {name: [tmp_path / "moved" / path.name for path in paths] for name, paths in folders.items()}
    synthesize(tmp_path / "2", workers=2, **SMALL, **moved)
    assert tree(tmp_path / "0") == tree(tmp_path / "2")


def test_other_images_are_not_mixed_in(tmp_path, folders):
    synthesize(tmp_path / "out", workers=0, **SMALL, **folders)
    for change in ({}, {**folders, "photographs": [write_photographs(tmp_path / "others", first=500)]}):
        with pytest.raises(UserError, match="other settings"):
            synthesize(tmp_path / "out", workers=0, **SMALL, **change)


def test_splits_differ_and_read_back(tmp_path, folders):
    for split in ("train", "val"):
        synthesize(tmp_path / "out", split=split, workers=0, **SMALL, **folders)
        for sequence in GOT10k(tmp_path / "out", split):
            assert sequence.frames[5].shape == (72, 96, 3)
            assert (sequence.boxes_xywh[sequence.visible, 2:] > 0).all()


def test_images_of_no_use_are_said(tmp_path, folders, capsys):
    cv2.imwrite(str(tmp_path / "photographs" / "small.png"), texture(1, 20, 20))
    synthesize(tmp_path / "out", workers=0, **SMALL, **folders)
    assert "1 of 13 images are left out, as smaller than 48 px" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("missing", ["photographs", "cutouts"])
def test_both_sorts_are_needed(tmp_path, folders, missing):
    del folders[missing]
    with pytest.raises(UserError, match="with --photographs and with --cutouts"):
        synthesize(tmp_path / "out", workers=0, **SMALL, **folders)
    assert not (tmp_path / "out").exists()


def test_a_mistake_leaves_nothing_behind(tmp_path, folders):
    (tmp_path / "things" / "broken.png").write_bytes((tmp_path / "things" / "c1000.png").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"broken\.png is not a readable image"):
        synthesize(tmp_path / "out", workers=0, **SMALL, **folders)
    assert not (tmp_path / "out").exists()

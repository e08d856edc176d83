"""What `relo track` is given wrongly, or breaks halfway: one sentence, exit code 2, and what was found is saved."""

import re

import cv2
import numpy as np
import pytest

import relo.commands.targets
import relo.tracking.run
from relo.commands.main import main
from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter

FRAMES = 12
BOX = "40,30,30,40"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    for index, image in enumerate(np.random.default_rng(0).integers(0, 255, (FRAMES, 120, 160, 3), np.uint8)):
        cv2.imwrite(str(path / f"{index}.png"), image)
    return path


@pytest.fixture
def track(network, tmp_path, monkeypatch, capsys):
    """Runs `relo track`; gives exit code, the sentence on stderr, and what is on stdout."""
    save_network(network, tmp_path / "model")
    monkeypatch.setattr(relo.tracking.run, "DECODED_AHEAD", 1)

    def run(*words):
        capsys.readouterr()
        code = 0
        try:
            main(["track", *map(str, words), "--model", str(tmp_path / "model"), "--device", "cpu"])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        assert len(captured.err.splitlines()) == (1 if code else 0), captured.err
        return code, captured.err.strip(), " ".join(captured.out.split())

    return run


def kept_after(track, folder, tmp_path, message):
    """Track into every output; the number of frames that all of them hold after the error."""
    boxes, video = tmp_path / "boxes.txt", tmp_path / "video.mp4"
    code, error, printed = track(folder, "--box", BOX, "--save", boxes, "--render", video)
    assert code == 2
    assert error.startswith("relo: error: ")
    assert re.search(message, error), error
    count = len(read_boxes(boxes))
    assert f"Stopped after {count} frames of {folder}." in printed
    assert f"Written until then: {boxes} Written until then: {video}" in printed
    assert len(list(open_frames(video))) == count
    return count


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "500,500,20,20"], "lies outside the image of 160 x 120 px"),
        (["--box", "10,10,0,5"], "has no area"),
        (["--box", BOX, "--box", "10,10,20,-5"], "10, 10, 20, -5 has no area"),
        (["--box", BOX, "5,5,x,5"], "--box '5,5,x,5' is not a box"),
        ([], r"by one of --box x,y,w,h, --boxes FILE and --select, .*\(see `relo track --help`\)"),
        (["--box", BOX, "--select"], "not by --box and --select"),
        (["--box", BOX, BOX, "--truth", "truth.txt"], "--truth truth.txt holds the boxes of one target, but 2"),
        (["--boxes", "none.txt"], "none.txt cannot be read"),
        (["--box", BOX, "--save", "boxes.xml"], "boxes.xml; end the name in"),
        (["--box", BOX, "--start", "12"], "12 frames; it cannot start at frame 12"),
        (["--box", BOX, "--start", "-1"], "There is no frame -1 to start at; start at 0 or later"),
        (["--box", BOX, "--limit", "0"], "Cannot take 0 frames; take 1 or more"),
        (["--box", BOX, "--presence", "presence.yaml"], r"presence as presence\.yaml; end the name in \.txt or \.csv"),
    ],
)
def test_a_wrong_target_is_one_sentence_and_touches_no_file(track, folder, tmp_path, words, message):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("kept")
    code, error, printed = track(folder, *words, "--save", boxes, "--render", tmp_path / "video.mp4")
    assert code == 2
    assert re.search(message, error), error
    assert not printed
    assert boxes.read_text() == "kept"
    assert not (tmp_path / "video.mp4").exists()


def test_an_output_on_the_source_or_on_another_output_is_refused(track, folder, tmp_path):
    video = tmp_path / "video.mp4"
    track(folder, "--box", BOX, "--render", video)
    before = video.read_bytes()
    code, error, _ = track(video, "--box", BOX, "--render", tmp_path / "frames" / ".." / "video.mp4")
    assert code == 2
    assert "video.mp4 is the source itself" in error
    assert video.read_bytes() == before
    code, error, _ = track(video, "--box", BOX, "--save", tmp_path / "a.txt", tmp_path / "a.txt")
    assert code == 2
    assert "a.txt would be written twice" in error
    words = ["--box", BOX, BOX, "--save", tmp_path / "a.txt", "--presence", tmp_path / "a_2.txt"]
    code, error, _ = track(video, *words)  # a file for each target
    assert code == 2
    assert "a_2.txt would be written twice" in error


def test_an_output_on_the_model_or_on_a_frame_is_refused(track, folder, tmp_path):
    for name, target in {"rule.txt": "model/config.yaml", "frame.txt": "frames/3.png"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
        before = (tmp_path / target).read_bytes()
        for option in ("--save", "--presence"):
            code, error, _ = track(folder, "--box", BOX, option, tmp_path / name)
            assert code == 2
            assert re.search(rf"{name} is a (file of the model|frame of the source) itself", error), error
        assert (tmp_path / target).read_bytes() == before


@pytest.mark.parametrize("option", ["--save", "--render", "--presence", "--truth", "--rule", "--boxes"])
def test_an_empty_value_is_refused(track, folder, tmp_path, monkeypatch, option):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for words in ([option, ""], [f"{option}="]):
        code, error, _ = track(folder, "--box", BOX, *words)
        assert code == 2
        assert f"Option {option} was given an empty value" in error
    assert "The command was given an empty value" in track("", "--box", BOX)[1]
    assert not list((tmp_path / "here").iterdir())


def test_a_folder_of_other_files_is_not_rendered_into(track, folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("kept")
    code, error, _ = track(folder, "--box", BOX, "--render", tmp_path / "notes")
    assert code == 2
    assert "notes holds files already; give another, or empty it" in error
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_an_output_that_is_a_link_to_itself(track, folder, tmp_path):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    code, error, _ = track(folder, "--box", BOX, "--save", tmp_path / "a.txt", loop)
    assert code == 2
    assert "loop.txt" in error


@pytest.mark.parametrize("option", ["--box", "--boxes", "--truth"])
def test_an_output_on_a_file_that_is_read_is_refused(track, folder, tmp_path, option):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text(f"{BOX}\n")
    words = [] if "box" in option else ["--box", BOX]
    code, error, _ = track(folder, option, boxes, *words, "--save", boxes)
    assert code == 2
    assert "boxes.txt is " in error
    assert f"{option} itself" in error
    assert boxes.read_text() == f"{BOX}\n"


@pytest.mark.parametrize("option", ["--box", "--boxes"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("40,30,30,40\n40,3o,30,40\n", "line 2: '40 3o 30 40' is not 4 numbers"),
        ("40,30,30,40\n\n40,30,30\n", "line 2"),
        ("40,30,30,40\n40,30,30,40,1\n", "line 2: 4 numbers expected, 5 found"),
        ("", "has 0 boxes|holds no box"),
    ],
)
def test_a_typo_in_a_file_of_boxes_names_the_line(track, folder, tmp_path, option, text, message):
    path = tmp_path / "typo.txt"
    path.write_text(text)
    code, error, _ = track(folder, option, path)
    assert code == 2
    assert re.search(rf"typo\.txt.*({message})", error), error


def test_more_targets_than_are_tracked_at_once(track, folder, tmp_path):
    (tmp_path / "many.txt").write_text("40,30,30,40\n" * 100_000)
    code, error, _ = track(folder, "--boxes", tmp_path / "many.txt")
    assert code == 2
    assert "many.txt; at most 256 are tracked at once" in error
    assert track(folder, *(["--box", "40,30,30,40"] * 257))[0] == 2


@pytest.mark.parametrize("address", ["rtsp://[", "http://[::zz]/stream"])
def test_an_address_that_is_none(track, address):
    code, error, _ = track(address, "--box", BOX)
    assert code == 2
    assert f"{address} cannot be opened: " in error


def test_an_unreadable_video(track, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0" * 1000)
    code, error, _ = track(path, "--box", BOX, "--save", tmp_path / "a.txt")
    assert code == 2
    assert "broken.mp4" in error
    assert not (tmp_path / "a.txt").exists()


def test_a_source_that_vanishes_in_the_middle(track, folder, tmp_path, monkeypatch):
    step = Tracker.step

    def unplugging_step(self, images, states, keep_response=False):
        if states[0].frame_index == 3:
            for path in folder.iterdir():
                path.unlink()
        return step(self, images, states, keep_response)

    monkeypatch.setattr(Tracker, "step", unplugging_step)
    assert 5 <= kept_after(track, folder, tmp_path, r"\d\.png") < FRAMES


def test_a_broken_frame(track, folder, tmp_path):
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:100])
    assert kept_after(track, folder, tmp_path, r"7\.png") == 7


def test_a_video_that_cannot_be_written_any_more(track, folder, tmp_path, monkeypatch):
    write, written = VideoWriter.write, []

    def failing_write(self, image, seconds=None):
        if len(written) == 3:
            raise UserError("The video cannot be written (No space left on device).")
        write(self, image, seconds)
        written.append(seconds)

    monkeypatch.setattr(VideoWriter, "write", failing_write)
    boxes, video = tmp_path / "boxes.txt", tmp_path / "video.mp4"
    code, error, printed = track(folder, "--box", BOX, "--save", boxes, "--render", video)
    assert code == 2
    assert "No space left" in error
    assert len(read_boxes(boxes)) >= 3
    assert f"{len(read_boxes(boxes))} frames of {folder}." in printed
    assert len(list(open_frames(video))) == 3


def test_tracking_goes_on_when_a_frame_changes_size(track, folder, tmp_path):
    cv2.imwrite(str(folder / "4.png"), np.zeros((90, 200, 3), np.uint8))
    code, _, printed = track(folder, "--box", BOX, "--save", tmp_path / "a.txt", "--render", tmp_path / "a.mp4")
    assert code == 0
    assert "frame 4, is 200x90 px" in printed
    assert len(read_boxes(tmp_path / "a.txt")) == len(list(open_frames(tmp_path / "a.mp4"))) == FRAMES


def test_images_with_one_channel_or_alpha_are_read_as_rgb(track, folder, tmp_path):
    found = []
    for conversions in ((cv2.COLOR_BGR2GRAY, cv2.COLOR_GRAY2BGR), (cv2.COLOR_BGR2BGRA, cv2.COLOR_BGRA2BGR)):
        for name, kept in (("narrow", conversions[:1]), ("bgr", conversions)):
            copy = tmp_path / f"{name}-{conversions[0]}"
            copy.mkdir()
            for path in folder.iterdir():
                image = cv2.imread(str(path))
                for conversion in kept:
                    image = cv2.cvtColor(image, conversion)
                cv2.imwrite(str(copy / path.name), image)
            assert track(copy, "--box", BOX, "--save", tmp_path / "a.txt")[0] == 0
            found.append(read_boxes(tmp_path / "a.txt"))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[2], found[3])


def test_ctrl_c_keeps_all_that_was_found(track, folder, tmp_path, monkeypatch):
    step = Tracker.step

    def interrupted_step(self, images, states, keep_response=False):
        if states[0].frame_index == 4:
            raise KeyboardInterrupt
        return step(self, images, states, keep_response)

    monkeypatch.setattr(Tracker, "step", interrupted_step)
    boxes, video = tmp_path / "boxes.txt", tmp_path / "video.mp4"
    code, error, printed = track(folder, "--box", BOX, "--save", boxes, "--render", video)
    assert code == 130
    assert error == "relo: stopped; what was finished is kept."
    assert "Stopped after 5 frames" in printed
    assert len(read_boxes(boxes)) == len(list(open_frames(video))) == 5


def test_selecting_without_window_and_page_says_how_to_get_one(track, folder, monkeypatch):
    monkeypatch.setattr(relo.commands.targets, "_has_window", lambda: False)
    with monkeypatch.context() as without:
        without.setattr("relo.app.find_spec", lambda name: None)
        code, error, _ = track(folder, "--select")
    assert code == 2
    assert "pip install 'relo[app]'" in error
    monkeypatch.setattr(relo.commands.targets, "select_boxes", lambda image: [])
    code, error, _ = track(folder, "--select")
    assert code == 2
    assert "No box was drawn" in error

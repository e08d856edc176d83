"""What the page's server answers, and that it deletes what it was given."""

import io
import json
import math
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from moving_square import FRAMES, write_video

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from relo.app.server import Limits
from relo.errors import UserError

BOX = [10, 24, 16, 16]


@pytest.fixture
def client(make_small_app):
    with TestClient(make_small_app()) as client:
        yield client


def open_session(client):
    return f"/sessions/{client.post('/sessions').json()['id']}"


def upload(client, session, path, name=None):
    return client.put(f"{session}/video", params={"name": name or path.name}, content=path.read_bytes())


def wait_for_end(client, session):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        state = client.get(session).json()
        if state["phase"] in ("done", "stopped", "failed"):
            return state
        time.sleep(0.02)
    raise AssertionError(f"still {state}")


def track(client, session, boxes=(BOX,), start=0):
    return client.post(f"{session}/track", json={"start": start, "boxes": list(boxes)})


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_from_upload_to_download(client, video, tmp_path):
    session = open_session(client)
    uploaded = upload(client, session, video)
    assert uploaded.status_code == 201
    assert uploaded.json() | {"framesPerSecond": 20} == {
        "name": "clip.avi",
        "width": 96,
        "height": 64,
        "count": FRAMES,
        "framesPerSecond": 20,
    }
    frame = client.get(f"{session}/frames/3")
    assert frame.headers["content-type"] == "image/jpeg"
    assert track(client, session).status_code == 202
    state = wait_for_end(client, session)
    assert state["phase"] == "done"
    assert state["frames"] == FRAMES
    names = [file["name"] for file in state["files"]]
    assert names == ["tracked.mp4", "boxes.txt", "boxes.jsonl", "boxes.csv", "boxes.json"]
    for file in state["files"]:
        assert len(client.get(f"{session}/files/{file['name']}").content) == file["bytes"] > 0
    assert str(tmp_path) not in client.get(f"{session}/files/boxes.json").text
    part = client.get(f"{session}/files/tracked.mp4", headers={"Range": "bytes=0-9"})  # players jump
    assert (part.status_code, len(part.content)) == (206, 10)
    boxes = client.get(f"{session}/files/boxes.txt?download")
    assert 'filename="clip_boxes.txt"' in boxes.headers["content-disposition"]
    lines = boxes.text.splitlines()
    assert len(lines) == FRAMES
    assert [float(value) for value in lines[0].split(",")] == BOX


def test_several_targets_from_a_later_frame(client, video):
    session = open_session(client)
    upload(client, session, video)
    assert track(client, session, [BOX, [40, 10, 20, 20]], start=5).status_code == 202
    state = wait_for_end(client, session)
    assert (state["frames"], state["first"], state["targets"]) == (FRAMES - 5, 5, 2)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"{session}/files/boxes.zip").content))
    assert {len(archive.read(name).splitlines()) for name in archive.namelist()} == {FRAMES - 5}
    assert len(archive.namelist()) == 2


def test_a_session_that_ends_leaves_no_file(client, video, tmp_path):
    session = open_session(client)
    upload(client, session, video)
    track(client, session)
    assert files_in(tmp_path / "visitors")
    assert client.post(f"{session}/close").status_code == 204
    assert not files_in(tmp_path / "visitors")
    assert client.get(session).status_code == 404


def test_a_session_whose_page_has_gone_is_closed(make_small_app, video, tmp_path):
    with TestClient(make_small_app(Limits(grace_seconds=0.2))) as client:
        session = open_session(client)
        upload(client, session, video)
        assert files_in(tmp_path / "visitors")
        end = time.monotonic() + 5
        while files_in(tmp_path / "visitors") and time.monotonic() < end:
            time.sleep(0.05)
        assert not files_in(tmp_path / "visitors")
        answer = client.get(session)
        assert answer.status_code == 404
        assert "add the video again" in answer.json()["error"]


def test_the_server_s_end_leaves_no_file(make_small_app, video, tmp_path):
    with TestClient(make_small_app()) as client:
        session = open_session(client)
        upload(client, session, video)
        track(client, session)
    assert not list((tmp_path / "visitors").iterdir())


def test_a_second_video_takes_the_place_of_the_first(client, video, tmp_path):
    session = open_session(client)
    upload(client, session, video)
    track(client, session)
    other = write_video(tmp_path / "other.avi", 8)
    assert upload(client, session, other).json()["count"] == 8
    assert [path.name for path in files_in(tmp_path / "visitors")] == ["video"]
    track(client, session)
    assert wait_for_end(client, session)["frames"] == 8


def test_two_visitors_get_what_one_gets(client, video):
    alone = open_session(client)
    upload(client, alone, video)
    track(client, alone)
    wait_for_end(client, alone)
    expected = client.get(f"{alone}/files/boxes.txt").text
    sessions = [open_session(client), open_session(client)]
    for session in sessions:
        upload(client, session, video)
    for session in sessions:
        track(client, session)
    for session in sessions:
        wait_for_end(client, session)
        assert client.get(f"{session}/files/boxes.txt").text == expected


def test_a_stopped_run_keeps_what_was_found(client, tmp_path):
    session = open_session(client)
    upload(client, session, write_video(tmp_path / "long.avi", 2000))
    track(client, session)
    assert track(client, session).status_code == 409
    client.post(f"{session}/stop")
    state = wait_for_end(client, session)
    assert state["phase"] == "stopped"
    assert 0 < state["frames"] < 2000
    assert len(client.get(f"{session}/files/boxes.txt").text.splitlines()) == state["frames"]


def test_of_several_requests_to_track_at_once_one_is_taken(client, tmp_path):
    session = open_session(client)
    upload(client, session, write_video(tmp_path / "long.avi", 2000))
    for _ in range(2):  # also where there are results to delete
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda _: track(client, session), range(6)))
        assert sorted(answer.status_code for answer in answers) == [202, *[409] * 5]
        assert all("tracked already" in answer.text for answer in answers if answer.status_code == 409)
        client.post(f"{session}/stop")
        assert wait_for_end(client, session)["phase"] == "stopped"


@pytest.mark.parametrize("error", [OSError(28, "No space", "/srv/v/a b.txt"), RuntimeError("'/srv/v/a.txt' is gone")])
def test_no_answer_has_a_path_of_the_server(client, video, monkeypatch, error):
    def fail(*_, **__):
        raise error

    session = open_session(client)
    monkeypatch.setattr("relo.app.server.receive_file", fail)
    answer = upload(client, session, video)
    assert answer.status_code == 500
    assert answer.json()["error"] in (
        "Something went wrong on the server: No space.",
        "Something went wrong on the server: a file is gone.",
    )


def test_a_result_that_cannot_be_written_is_named_without_its_folder(client, video, monkeypatch, tmp_path):
    def fail(path, *_):
        raise UserError(f"The video {path} cannot be written (the disk is full).")

    session = open_session(client)
    upload(client, session, video)
    monkeypatch.setattr("relo.app.result_files.VideoWriter", fail)
    answer = track(client, session)
    assert answer.json() == {"error": "The video tracked.mp4 cannot be written (the disk is full)."}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"dear diary\n" * 100, "no video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no video"),
        (bytes(range(256)) * 40, "diary.mp4"),
    ],
)
def test_an_upload_that_is_no_video(client, video, tmp_path, content, said, caplog):
    session = open_session(client)
    answer = client.put(f"{session}/video?name=diary.mp4", content=content)
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert str(tmp_path) not in answer.json()["error"]
    assert not files_in(tmp_path / "visitors")
    assert "Traceback" not in caplog.text
    assert upload(client, session, video).status_code == 201  # it works on


def test_a_broken_video_is_tracked_as_far_as_it_goes(client, video):
    session = open_session(client)
    content = video.read_bytes()
    assert client.put(f"{session}/video?name=cut.avi", content=content[: len(content) // 2]).status_code == 201
    track(client, session)
    state = wait_for_end(client, session)
    assert 0 < state["frames"] < FRAMES


def test_what_is_too_large_is_refused_and_not_kept(make_small_app, video, tmp_path):
    with TestClient(make_small_app(Limits(max_megabytes=0.001))) as client:
        session = open_session(client)
        for content in (video.read_bytes(), iter([video.read_bytes()] * 3)):  # with a length, and without
            answer = client.put(f"{session}/video?name=clip.avi", content=content)
            assert answer.status_code == 413
            assert "0.001 MB" in answer.json()["error"]
        assert not files_in(tmp_path / "visitors")


def test_what_is_too_long_is_refused(make_small_app, video, tmp_path):
    with TestClient(make_small_app(Limits(max_frames=10))) as client:
        answer = upload(client, open_session(client), video)
        assert answer.status_code == 422
        assert "20 frames" in answer.json()["error"]
        assert not files_in(tmp_path / "visitors")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": 0, "boxes": [[200, 200, 10, 10]]}, "outside"),
        ({"start": 0, "boxes": [[10, 10, 0, 10]]}, "no area"),
        ({"start": 0, "boxes": [[10, 10, 5]]}, "four numbers"),
        ({"start": 0, "boxes": [["a", 10, 5, 5]]}, "four numbers"),
        ({"start": 0, "boxes": [[10**400, 1, 1, 1]]}, "four numbers"),
        ({"start": 0, "boxes": [[math.inf, 1, 1, 1]]}, "four numbers"),
        ({"start": 0, "boxes": [[1, math.nan, 1, 1]]}, "four numbers"),
        ({"start": 0, "boxes": []}, "Draw a box"),
        ({"start": 0, "boxes": [BOX] * 99}, "1 to 16"),
        ({"start": -1, "boxes": [BOX]}, "first frame"),
        ({"start": 99, "boxes": [BOX]}, "99"),
        ([], "first frame"),
    ],
)
def test_a_box_that_cannot_be_tracked(client, video, asked, said):
    session = open_session(client)
    upload(client, session, video)
    answer = client.post(f"{session}/track", content=json.dumps(asked))
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert track(client, session).status_code == 202  # it works on


def test_a_request_that_is_too_large(client, video):
    session = open_session(client)
    upload(client, session, video)
    asked = json.dumps({"start": 0, "boxes": [BOX]}).encode()
    for content in (asked + b" " * 64_000, iter([asked, b" " * 40_000, b" " * 40_000])):  # with a length, and without
        answer = client.post(f"{session}/track", content=content)
        assert answer.status_code == 413
        assert "larger than 64 kB" in answer.json()["error"]
    assert client.post(f"{session}/track", content=asked + b" " * 60_000).status_code == 202


def test_what_is_not_there(client, video):
    assert client.get("/sessions/unknown").status_code == 404
    assert client.post("/sessions/unknown/track", json={}).status_code == 404
    assert "error" in client.get("/nothing").json()
    session = open_session(client)
    assert "add one first" in track(client, session).json()["error"]
    upload(client, session, video)
    assert "no frame 99" in client.get(f"{session}/frames/99").json()["error"]
    for index in ("9" * 5000, "9" * 10, "-1", "1.5", "x"):
        answer = client.get(f"{session}/frames/{index}")
        assert answer.status_code == 404
        assert "There is no frame" in answer.json()["error"]
    assert client.get(f"{session}/files/../video").status_code == 404
    assert client.get(f"{session}/files/video").status_code == 404


def test_a_folder_that_was_cleaned_away_is_made_again(client, video, tmp_path):
    opened = open_session(client)
    (folder,) = (tmp_path / "visitors").iterdir()
    shutil.rmtree(folder)
    for session in (open_session(client), opened):  # a page that is opened now, and one that was open
        assert upload(client, session, video).status_code == 201
        assert track(client, session).status_code == 202


def test_there_is_an_end_to_the_number_of_pages(make_small_app):
    with TestClient(make_small_app(Limits(max_sessions=1))) as client:
        first = open_session(client)
        answer = client.post("/sessions")
        assert answer.status_code == 503
        assert "try later" in answer.json()["error"]
        client.post(f"{first}/close")
        assert client.post("/sessions").status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://[::zz]"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_requests_of_other_sites_are_refused(client, headers):
    assert client.post("/sessions", headers=headers).status_code == 403


def test_requests_of_the_page_itself_are_not(client):
    headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/sessions", headers=headers).status_code == 201
    page = client.get("/")
    assert "relo" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_a_server_that_is_open_to_all_answers_to_any_name(make_small_app):
    with TestClient(make_small_app(names=None)) as client:
        assert client.post("/sessions", headers={"Host": "studio.example"}).status_code == 201
        foreign = {"Host": "studio.example", "Origin": "http://evil.example"}
        assert client.post("/sessions", headers=foreign).status_code == 403

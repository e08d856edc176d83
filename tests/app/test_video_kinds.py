"""Videos as phones and cameras make them, and runs that fail halfway, through the page's server."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from moving_square import FRAMES

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient
from test_server import BOX, open_session, track, upload, wait_for_end

from relo.app.server import make_app
from relo.app.shared_tracker import SharedTracker
from relo.errors import UserError
from relo.tracking.tracker import Tracker
from small_networks import make_network

STAMPS = [0, 33, 66, 166, 200, 233, 333, 733]  # milliseconds
QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)


def encode(path, pix_fmt="yuv420p", turn=False):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"threads": "1"})
        stream.pix_fmt, stream.width, stream.height = pix_fmt, 96, 64
        for index, stamp in enumerate(STAMPS):
            image = np.full((64, 96, 3), 40, np.uint8)
            image[24:40, 10 + index : 26 + index] = 220
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turn:
        data = bytearray(path.read_bytes())
        place = data.index(b"tkhd") + 44
        data[place : place + len(QUARTER_TURN)] = QUARTER_TURN
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(("pix_fmt", "turn"), [("yuv420p", False), ("yuv420p10le", False), ("yuv420p", True)])
def test_a_video_of_a_phone(make_small_app, tmp_path, pix_fmt, turn):
    with TestClient(make_small_app()) as client:
        session = open_session(client)
        uploaded = upload(client, session, encode(tmp_path / "a.mp4", pix_fmt, turn)).json()
        size = (64, 96) if turn else (96, 64)
        assert (uploaded["width"], uploaded["height"]) == size
        assert track(client, session).status_code == 202
        state = wait_for_end(client, session)
        assert (state["phase"], state["frames"], state["error"]) == ("done", len(STAMPS), None)
        (tmp_path / "result.mp4").write_bytes(client.get(f"{session}/files/tracked.mp4").content)
        with av.open(tmp_path / "result.mp4") as container:
            result = container.streams.video[0]
            assert result.width / result.height == size[0] / size[1]
            seconds = [frame.time for frame in container.decode(video=0)]
        assert seconds == pytest.approx([stamp / 1000 for stamp in STAMPS], abs=2e-3)


class Failing(Tracker):
    """Fails in the eighth frame."""

    failure: Exception
    steps = 0

    def step(self, *arguments, **options):
        self.steps += 1
        if self.steps > 7:
            raise self.failure
        return super().step(*arguments, **options)


@pytest.mark.parametrize("failure", [UserError("The video breaks off."), RuntimeError("out of memory")])
@pytest.mark.parametrize("targets", [1, 2])
def test_what_was_tracked_before_an_error_is_kept(video, tmp_path, monkeypatch, failure, targets):
    (tmp_path / "visitors").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "visitors"))
    tracker = Failing(make_network())
    tracker.failure = failure
    with TestClient(make_app(SharedTracker(tracker), "small")) as client:
        session = open_session(client)
        upload(client, session, video)
        assert track(client, session, [BOX, [40, 10, 20, 20]][:targets]).status_code == 202
        state = wait_for_end(client, session)
        assert (state["phase"], state["frames"]) == ("failed", 8)
        assert str(failure).rstrip(".") in state["error"]
        names = [file["name"] for file in state["files"]]
        assert names[0] == "tracked.mp4"
        assert names[1] == ("boxes.txt" if targets == 1 else "boxes.zip")
        assert len(client.get(f"{session}/files/boxes.jsonl").text.splitlines()) == 8
        (tmp_path / "result.mp4").write_bytes(client.get(f"{session}/files/tracked.mp4").content)
        with av.open(tmp_path / "result.mp4") as container:
            assert len(list(container.decode(video=0))) == 8
        tracker.steps = -FRAMES  # and the page works on
        assert track(client, session).status_code == 202
        assert wait_for_end(client, session)["phase"] == "done"

"""Videos from network addresses: whole, live, cut, silent and dead ones."""

import functools
import http.server
import re
import socket
import socketserver
import threading
import time

import av
import cv2
import numpy as np
import pytest

import relo.tracking.video_reader
from relo.errors import UserError
from relo.tracking.sources import open_frames
from relo.tracking.video_writer import VideoWriter

FRAMES = 40


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(relo.tracking.video_reader, "PATIENCE", 0.5)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    for name in ("video.webm", "video.avi"):
        with VideoWriter(folder / name) as video:
            for index in range(FRAMES):
                image = random.integers(0, 255, (48, 64, 3), np.uint8)
                image[:, :32] = 6 * index
                video.write(image)
    with av.open(str(folder / "video.ts"), "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height = 64, 48
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * index, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (folder / "page.webm").write_text("<html>no video</html>")
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; below /cut/ it ends the connection, below /stalled/ it falls silent; /live/ sends JPEG images."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        _, way, *rest = self.path.split("/")
        if way in ("cut", "stalled"):
            content = (self.server.folder / rest[0]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) * 6 // 10])
            self.wfile.flush()
            if way == "stalled":
                self.server.is_over.wait(10)
            self.close_connection = True
        elif way == "live":
            self.send_images(int(rest[0]))
        else:
            super().do_GET()

    def send_images(self, count):
        """Images as network cameras send them, 100 a second, each of them a level of grey; after 5 there is silence."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=image")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(count):
            image = cv2.imencode(".jpg", np.full((48, 64, 3), index, np.uint8))[1].tobytes()
            head = f"--image\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            try:
                self.send_chunk(head.encode() + image + b"\r\n")
            except OSError:
                self.server.is_left.set()
                return
            time.sleep(0.01)
        if count == 5:
            self.server.is_over.wait(10)
        self.send_chunk(b"")

    def send_chunk(self, content):
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")


@pytest.fixture
def server(videos):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(videos)))
    server.folder, server.is_over, server.is_left = videos, threading.Event(), threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.is_over.set()
    server.shutdown()
    thread.join()
    server.server_close()


class UDPHandler(socketserver.StreamRequestHandler):
    """An RTSP server that sends its transport stream by UDP alone, as VLC's does, and is then silent."""

    def handle(self):
        while request := self.rfile.readline().decode().split():
            if request[0] == "PLAY" and "busy" in request[1]:
                return
            headers = dict(line.split(": ", 1) for line in iter(lambda: self.rfile.readline().decode().strip(), ""))
            head, body, status = f"CSeq: {headers['CSeq']}\r\nSession: 1\r\n", "", "200 OK"
            if request[0] == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:video\r\n"
                head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            if request[0] == "SETUP":
                self.server.transports.append(headers["Transport"])
                if ports := re.search(r"RTP/AVP(?:/UDP)?;unicast;client_port=(\d+)", headers["Transport"]):
                    head += (
                        f"Transport: RTP/AVP;unicast;client_port={ports[1]}-{int(ports[1]) + 1};server_port=9-10\r\n"
                    )
                else:
                    status = "461 Unsupported Transport"
            self.wfile.write(f"RTSP/1.0 {status}\r\n{head}\r\n{body}".encode())
            if request[0] == "PLAY":
                self.send_packets(int(ports[1]))

    def send_packets(self, port):
        content, size = (self.server.folder / "video.ts").read_bytes(), 7 * 188
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number, begin in enumerate(range(0, len(content), size)):
                head = b"\x80\x21" + number.to_bytes(2, "big") + bytes(4) + b"relo"
                sender.sendto(head + content[begin : begin + size], ("127.0.0.1", port))
                time.sleep(0.002)


@pytest.fixture
def udp_server(videos):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), UDPHandler) as server:
        server.daemon_threads, server.folder, server.transports = True, videos, []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def silent_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["video.webm", "video.avi"])
def test_a_video_behind_an_address_is_like_a_file(server, videos, name):
    frames, local = open_frames(f"{server.address}/{name}", 2, 20), open_frames(videos / name, 2, 20)
    assert all(np.array_equal(a, b) for a, b in zip(frames, local, strict=True))
    assert frames.seconds == local.seconds
    assert (frames.count, frames.is_live, frames.remarks) == (20, False, [])


@pytest.mark.parametrize(("way", "reason"), [("cut", "the connection failed"), ("stalled", "nothing came for")])
def test_a_connection_that_ends_midway_is_an_error_after_the_frames_before_it(server, way, reason):
    frames, count = open_frames(f"{server.address}/{way}/video.avi"), 0
    with pytest.raises(UserError, match=f"^{server.address}/{way}/video.avi broke off: {reason}"):  # noqa: PT012
        for _ in frames:
            count += 1
    assert 15 < count < 30
    assert len(frames.seconds) == count


def test_a_limit_before_the_end_is_no_error(server):
    assert len(list(open_frames(f"{server.address}/cut/video.avi", limit=10))) == 10


def test_an_address_in_capitals(server):
    address = server.address.replace("http://", "HTTP://")
    assert len(list(open_frames(f"{address}/video.avi", limit=3))) == 3


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{server}/nowhere.mp4", "404 Not Found"),
        ("{server}/page.webm", "no video"),
        ("http://127.0.0.1:{closed}/a.mp4", "refused"),
        ("rtsp://127.0.0.1:{closed}/a", "refused"),
        ("rtmp://127.0.0.1:{closed}/a", "refused"),
        ("http://127.0.0.1:{silent}/a.mp4", "nothing came"),
        ("rtsp://127.0.0.1:{silent}/a", "nothing came"),
        ("rtmp://127.0.0.1:{silent}/a", "nothing came"),
        ("udp://127.0.0.1:{closed}", "nothing came"),
        ("ftp://127.0.0.1/a.mp4", "give rtsp"),
        ("concat://a", "give rtsp"),
    ],
)
def test_a_dead_address_is_one_sentence_soon(server, closed_port, silent_port, capfd, address, reason):
    address = address.format(server=server.address, closed=closed_port, silent=silent_port)
    started = time.monotonic()
    with pytest.raises(UserError, match=reason) as error:
        open_frames(address)
    assert address.split("://")[0] in str(error.value)
    assert time.monotonic() - started < 2
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("user:secret@{host}/stream", "{host}/stream"),
        ("user:secret/se?cret@{host}/stream", "{host}/stream"),
        ("user:secret#secret@{host}/stream", "{host}/stream"),
        ("{host}/?user=me&password=secret&channel=1", "{host}/?user=me&password=***&channel=1"),
        ("{host}/@me/stream", "{host}/@me/stream"),
    ],
)
def test_a_password_is_not_shown(closed_port, given, shown):
    host = f"127.0.0.1:{closed_port}"
    with pytest.raises(UserError) as error:
        open_frames(f"rtsp://{given.format(host=host)}")
    assert "secret" not in str(error.value)
    assert f"rtsp://{shown.format(host=host)} cannot" in str(error.value)


def test_a_server_that_sends_by_udp_alone(udp_server):
    frames = open_frames(f"rtsp://127.0.0.1:{udp_server.server_address[1]}/video")
    assert frames.is_live
    frames = iter(frames)
    assert next(frames).shape == (48, 64, 3)
    started = time.monotonic()
    with pytest.raises(UserError, match="broke off: nothing came"):
        list(frames)
    assert time.monotonic() - started < 0.9  # not twice as long as silence is borne
    assert ["TCP" in transport for transport in udp_server.transports] == [True, False]


def test_a_server_that_hangs_up_instead_of_playing(udp_server):
    with pytest.raises(UserError, match="/busy cannot be opened: the connection failed"):
        open_frames(f"rtsp://127.0.0.1:{udp_server.server_address[1]}/busy")


def test_a_live_stream_is_read_on_before_its_first_frame_is_asked_for(server):
    frames = open_frames(f"{server.address}/live/100000")
    time.sleep(0.4)  # as long as a model loads, or a person draws a box
    assert next(iter(frames))[0, 0, 0] > 15


def test_a_live_stream_that_nobody_iterates_is_left(server):
    open_frames(f"{server.address}/live/100000")
    assert server.is_left.wait(5)


def test_a_slow_reader_of_a_live_stream_gets_the_newest_frames(server):
    frames = open_frames(f"{server.address}/live/60")
    assert frames.is_live
    assert frames.count is None
    levels, remarks = [], []
    try:
        for image in frames:
            levels.append(int(image[0, 0, 0]))
            time.sleep(0.05)
        remarks = [f"{frames.name} ended after {len(levels)} frames."]
    except UserError as error:  # FFmpeg 9 tells a stream's end from a lost connection no more
        assert "broke off: the connection failed" in str(error)  # noqa: PT017
    assert 2 < len(levels) < 50
    assert levels[0] < 10
    assert (np.diff(levels) > 0).all()
    assert levels[-1] == pytest.approx(59, abs=1)
    assert len(frames.seconds) == 1
    assert frames.remarks == remarks


def test_leaving_a_live_stream_closes_the_connection(server):
    for index, _ in enumerate(open_frames(f"{server.address}/live/100000")):
        if index == 3:
            break
    assert server.is_left.wait(5)


def test_a_live_stream_that_falls_silent(server):
    levels, frames = [], open_frames(f"{server.address}/live/5")
    with pytest.raises(UserError, match="broke off: nothing came"):
        levels.extend(int(image[0, 0, 0]) for image in frames)
    assert levels[-1] == 4
    started = time.monotonic()
    for image in open_frames(f"{server.address}/live/5"):
        if image[0, 0, 0] == 4:
            break
    assert time.monotonic() - started < 2

"""`relo serve` and the page for `--select` as processes and sockets have them."""

import _thread
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from moving_square import write_video

from relo.errors import UserError
from small_networks import make_network

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import relo.app
import relo.app.listen
from relo.app.listen import Server, address_of, listen
from relo.app.select import select_boxes
from relo.commands.serve import serve
from relo.models.checkpoints.weights import save_network


@pytest.fixture
def model(tmp_path):
    save_network(make_network(), tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def not_run(monkeypatch):
    """The server is made, and not run."""
    monkeypatch.setattr(Server, "run_until_stopped", lambda *_: None)


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_end_of_the_process_leaves_no_file(model, tmp_path):
    codes = {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM, signal.SIGHUP: 0}
    video = write_video(tmp_path / "long.avi", 1500).read_bytes()
    command = [sys.executable, "-m", "relo", "serve", "--port", "0", "--model", model, "--device", "cpu"]
    runs = {}
    for ending in codes:  # side by side: most of the time goes into their start
        (tmp_path / ending.name).mkdir()
        environment = os.environ | {"TMPDIR": str(tmp_path / ending.name), "PYTHONUNBUFFERED": "1"}
        runs[ending] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
    for ending, run in runs.items():
        port = int(run.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
        session = f"/sessions/{ask(port, 'POST', '/sessions')[1]['id']}"
        stream = http.client.HTTPConnection("127.0.0.1", port)  # an open page
        stream.request("GET", f"{session}/events")
        assert stream.getresponse().readline().startswith(b"event: state")
        assert ask(port, "PUT", f"{session}/video?name=long.avi", video)[0] == 201
        assert ask(port, "POST", f"{session}/track", '{"start": 0, "boxes": [[10, 24, 16, 16]]}')[0] == 202
        assert len([path for path in (tmp_path / ending.name).rglob("*") if path.is_file()]) > 1
        run.send_signal(ending)
        assert "Traceback" not in run.communicate(timeout=30)[0]
        assert not list((tmp_path / ending.name).iterdir())
        assert run.returncode == codes[ending]


def test_a_taken_port_gives_the_next_one():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + 20
            assert address_of(second) == f"http://127.0.0.1:{second.getsockname()[1]}/"


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 8000), ("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_an_address_that_cannot_be_listened_on(host, port):
    with pytest.raises(UserError, match=rf"{host}|{port}"):
        listen(host, port)


def test_only_a_server_for_all_machines_warns(model, not_run, capsys):
    serve(model=model, device="cpu", port=0)
    assert "without a password" not in capsys.readouterr().out
    serve(model=model, device="cpu", port=0, host="0.0.0.0")
    assert "Every machine that reaches 0.0.0.0 can open it, without a password" in capsys.readouterr().out


def test_an_address_of_letters_is_printed_whole(model, not_run, capsys, monkeypatch):
    monkeypatch.setattr(relo.app.listen, "address_of", lambda _: "http://[fd00::5]:8000/")
    serve(model=model, device="cpu", port=0)
    assert "The page is at http://[fd00::5]:8000/ (Ctrl-C" in capsys.readouterr().out


@pytest.mark.parametrize(
    "limits",
    [
        {"max_size": 0},
        {"max_size": float("nan")},
        {"max_size": float("inf")},
        {"max_frames": 0},
        {"max_frames": 10**400},
    ],
)
def test_limits_that_are_none(model, not_run, limits):
    with pytest.raises(UserError, match=rf"This command has {min(limits)} = .*; it must be a (whole )?number from"):
        serve(model=model, device="cpu", **limits)


def test_the_page_is_opened_where_it_is(model, not_run, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    serve(model=model, port=0, device="cpu")
    assert opened == []
    serve(model=model, port=0, device="cpu", open=True)
    assert f"The page is at {opened[0]} (Ctrl-C" in capsys.readouterr().out


def test_missing_packages_are_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(relo.app, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    for start in (serve, lambda: select_boxes(np.zeros((8, 8, 3), np.uint8))):
        with pytest.raises(UserError, match=r"needs uvicorn: pip install 'relo\[app\]'"):
            start()


def test_a_selection_can_be_interrupted():
    threading.Timer(1.0, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        select_boxes(np.zeros((8, 8, 3), np.uint8), open_browser=False)


@contextmanager
def half_upload(port, session):
    """A connection on which a file has begun to come."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sender:
        head = f"PUT /sessions/{session}/video?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
        sender.sendall(head.encode() + b"\0")
        yield sender


def test_the_end_of_the_server_ends_uploads(make_small_app, capfd):
    app = make_small_app()
    with (
        ExitStack() as uploads,
        listen("127.0.0.1", 0) as listener,
        Server(app, app.state.sessions.announce_end).in_background(listener),
    ):
        port = listener.getsockname()[1]
        for _ in range(3):
            uploads.enter_context(half_upload(port, ask(port, "POST", "/sessions")[1]["id"]))
        while not all(session.is_receiving for session in app.state.sessions._sessions.values()):
            time.sleep(0.01)
    assert "".join(capfd.readouterr()) == ""


def test_an_upload_that_stops_coming_is_given_up(make_small_app, monkeypatch):
    from relo.app import uploads
    from relo.app.server import Limits

    monkeypatch.setattr(uploads, "PATIENCE", 0.3)
    monkeypatch.setattr(uploads, "_GLANCE", 0.1)
    app = make_small_app(Limits(max_sessions=1, grace_seconds=0.2))
    with listen("127.0.0.1", 0) as listener, Server(app, app.state.sessions.announce_end).in_background(listener):
        port = listener.getsockname()[1]
        with half_upload(port, ask(port, "POST", "/sessions")[1]["id"]) as sender:
            answer = b""
            while b"}" not in answer:
                answer += sender.recv(1000)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"Nothing came for 0.3 seconds" in answer
            end = time.monotonic() + 5
            while (status := ask(port, "POST", "/sessions")[0]) == 503 and time.monotonic() < end:
                time.sleep(0.05)
            assert status == 201


def test_a_file_that_grows_too_large_is_refused_while_it_is_sent(make_small_app, tmp_path):
    from relo.app.server import Limits

    app = make_small_app(Limits(max_megabytes=1))
    with listen("127.0.0.1", 0) as listener, Server(app, app.state.sessions.announce_end).in_background(listener):
        port = listener.getsockname()[1]
        session = ask(port, "POST", "/sessions")[1]["id"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sender:
            head = f"PUT /sessions/{session}/video?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            sender.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(12):
                sender.sendall(b"19000\r\n" + bytes(0x19000) + b"\r\n")
            # The body has not ended, and the answer is there.
            assert sender.recv(100).startswith(b"HTTP/1.1 413")
        assert not [path for path in (tmp_path / "visitors").rglob("*") if path.is_file()]

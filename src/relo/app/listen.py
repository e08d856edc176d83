"""Listening on an address, and running a server there."""

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from relo.errors import UserError

_PORTS_TO_TRY = 20
# A visitor whose machine has gone is noticed within half a minute; the names differ by system.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


def listen(host: str, port: int) -> socket.socket:
    """A socket on a port of an address, or on the next free one; port 0 is any.

    Raises:
        UserError: there is no such address here, or no free port.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"There is no port {port}; give one from 0 to {2**16 - 1}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"There is no address {host} here; give 127.0.0.1, or 0.0.0.0 for all.") from error
    last = port if port == 0 else min(port + _PORTS_TO_TRY, 2**16) - 1
    for candidate in range(port, last + 1):
        listener = socket.socket(family, kind, protocol)
        try:
            _set_options(listener)
            listener.bind((address[0], candidate, *address[2:]))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UserError(f"Cannot listen on {host}, port {candidate} ({error.strerror}).") from error
        else:
            return listener
    raise UserError(f"No port from {port} to {last} is free on {host}; give another by --port.")


def address_of(listener: socket.socket) -> str:
    """The address to type into a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """Runs an app on one socket; streams that wait for the end hear of it before connections are waited for."""

    def __init__(self, app: ASGIApp, before_shutdown: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="error",
                access_log=False,  # addresses hold the sessions' ids
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=3,
            )
        )
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._before_shutdown()
        await super().shutdown(sockets)

    def run_until_stopped(self, listener: socket.socket) -> None:
        """Answer until Ctrl-C or a signal to end; a closed terminal is one too.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, self.handle_exit)
        self.run(sockets=[listener])

    @contextmanager
    def in_background(self, listener: socket.socket) -> Iterator[None]:
        """Answer in a thread, for as long as the block lasts."""
        thread = threading.Thread(target=self.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.should_exit = True
            thread.join()


def _set_options(listener: socket.socket) -> None:
    if hasattr(socket, "SO_REUSEADDR") and hasattr(signal, "SIGHUP"):  # on Windows it would share a taken port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

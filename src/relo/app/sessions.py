"""Visitors: each has a folder of its own, which is deleted when the page goes."""

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from relo.app.job import Job
from relo.app.refusals import RefusedError
from relo.app.video import UploadedVideo


class Session:
    """One open page: its video, its job, and the folder that holds all that is its own."""

    def __init__(self, folder: Path) -> None:
        self.id = secrets.token_urlsafe(24)
        self.folder = folder
        self.video: UploadedVideo | None = None
        self.job: Job | None = None
        self.is_receiving = False  # a file is on its way
        self.is_starting = False  # a job is about to take the place of the one before
        self.is_closed = False
        self.streams = 0  # of events; an open page has one
        self.last_seen = time.monotonic()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While a page listens, the session lives."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
            self.last_seen = time.monotonic()

    def make_folder(self) -> None:
        """Make the folder again where the system has cleaned it away."""
        if not self.is_closed:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, exist_ok=True)

    def drop_job(self) -> None:
        """Stop tracking, wait until it has ended, and delete the results."""
        if self.job is not None:
            self.job.stop()
            self.job.join()
            self.job = None
        shutil.rmtree(self.results, ignore_errors=True)

    def drop_video(self) -> None:
        """Delete the video and all that came of it."""
        self.drop_job()
        if self.video is not None:
            self.video.close()
            self.video.path.unlink(missing_ok=True)
            self.video = None

    @property
    def results(self) -> Path:
        """The folder of the files that can be downloaded."""
        return self.folder / "results"

    def close(self) -> None:
        """Delete everything."""
        self.is_closed = True
        self.drop_video()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The sessions of a server, in a temporary folder."""

    def __init__(self, grace_seconds: float, most: int) -> None:
        """Begin without any.

        Args:
            grace_seconds: how long a session without an open page is kept: pages reload, and connections drop.
            most: how many there may be at once.
        """
        self._folder: Path | None = None
        self._grace_seconds = grace_seconds
        self._most = most
        self._sessions: dict[str, Session] = {}
        self.is_closing = False

    def open(self) -> Session:
        """A session for a page that was opened.

        Raises:
            RefusedError: there are too many.
        """
        if len(self._sessions) >= self._most:
            raise RefusedError(503, f"{self._most} pages are open, which is as many as this server takes; try later.")
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="relo-serve-"))
        self._folder.mkdir(mode=0o700, exist_ok=True)  # systems clean such folders away after some days
        session = Session(Path(tempfile.mkdtemp(dir=self._folder)))
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str) -> Session:
        """The session of an id.

        Raises:
            RefusedError: there is none, or there is none any more.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise RefusedError(404, "This session has ended, and its files are deleted; add the video again.")
        session.last_seen = time.monotonic()
        return session

    async def close(self, session: Session) -> None:
        """End a session: its job is stopped, its files are deleted."""
        if self._sessions.pop(session.id, None) is not None:
            await run_in_threadpool(session.close)

    async def expire(self) -> None:
        """Close the sessions whose page has gone, for as long as the server runs."""
        while True:
            oldest = time.monotonic() - self._grace_seconds
            for session in list(self._sessions.values()):
                if not session.streams and not session.is_receiving and session.last_seen < oldest:
                    await self.close(session)
            await asyncio.sleep(min(1.0, self._grace_seconds / 4))

    def announce_end(self) -> None:
        """Let the streams of events end, which the server would otherwise wait for."""
        self.is_closing = True

    def close_all(self) -> None:
        """Delete all that visitors gave."""
        self.announce_end()
        while self._sessions:
            self._sessions.popitem()[1].close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

"""The page's server: its addresses, and what they answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from relo.app.events import describe, stream
from relo.app.guard import Guard
from relo.app.job import Job
from relo.app.pictures import page_colors, to_jpeg
from relo.app.refusals import RefusedError, answered, error_response
from relo.app.result_files import LABELS
from relo.app.sessions import Session, Sessions
from relo.app.shared_tracker import SharedTracker
from relo.app.uploads import arriving, receive_file
from relo.app.video import UploadedVideo
from relo.errors import excerpt

PAGE = Path(__file__).parent / "page"
MOST_TARGETS = 16
_FRAME_SIDE = 1600  # pixels of the frame to draw on
_LONGEST_NAME = 200  # characters of a file's name
_FRAME_DIGITS = 9  # of a frame's number
_LARGEST_JSON = 64_000  # bytes; the boxes of all targets are some hundred


@dataclass(frozen=True)
class Limits:
    """What a server takes of its visitors."""

    max_megabytes: float = 500
    max_frames: int = 10_000
    max_sessions: int = 16
    grace_seconds: float = 10.0  # how long files are kept after the page's connection has gone


def make_app(
    tracker: SharedTracker,
    model: str,
    limits: Limits = Limits(),
    names: Collection[str] | None = None,
) -> Starlette:
    """The server's app.

    Args:
        tracker: what tracks, for all visitors.
        model: the model's name, to be shown.
        limits: see there.
        names: the host names that it answers to; None is any.
    """
    pages = _Pages(tracker, model, limits, is_local=names is not None)
    app = Starlette(
        routes=pages.routes(),
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={HTTPException: _http_error},
        lifespan=pages.lifespan,
    )
    app.state.sessions = pages.sessions
    return app


class _Pages:
    """The endpoints, and what they share."""

    def __init__(self, tracker: SharedTracker, model: str, limits: Limits, is_local: bool) -> None:
        self.sessions = Sessions(limits.grace_seconds, limits.max_sessions)
        self._tracker, self._model, self._limits, self._is_local = tracker, model, limits, is_local

    def routes(self) -> list[Route | Mount]:
        session = "/sessions/{id}"
        return [
            Route("/config", answered(self.config)),
            Route("/sessions", answered(self.open_session), methods=["POST"]),
            Route(session, answered(self.state)),
            Route(f"{session}/close", answered(self.close_session), methods=["POST"]),  # beacons can only post
            Route(f"{session}/events", answered(self.events)),
            Route(f"{session}/video", answered(self.receive_video), methods=["PUT"]),
            Route(f"{session}/frames/{{index}}", answered(self.frame)),
            Route(f"{session}/track", answered(self.track), methods=["POST"]),
            Route(f"{session}/stop", answered(self.stop), methods=["POST"]),
            Route(f"{session}/files/{{name}}", answered(self.file)),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        expiry = asyncio.create_task(self.sessions.expire())
        try:
            yield
        finally:
            expiry.cancel()
            with suppress(asyncio.CancelledError):
                await expiry
            await run_in_threadpool(self.sessions.close_all)
            self._tracker.close()

    async def config(self, request: Request) -> Response:
        return JSONResponse(
            {
                "model": self._model,
                "device": str(self._tracker.device),
                "measure": "presence" if self._tracker.has_presence else "score",
                "sure": self._tracker.sure_presence if self._tracker.has_presence else None,
                "maxMegabytes": self._limits.max_megabytes,
                "maxFrames": self._limits.max_frames,
                "maxTargets": MOST_TARGETS,
                "isLocal": self._is_local,
                "colors": page_colors(),
            }
        )

    async def open_session(self, request: Request) -> Response:
        return JSONResponse({"id": self.sessions.open().id}, 201)

    async def state(self, request: Request) -> Response:
        return JSONResponse(describe(self._session(request)))

    async def close_session(self, request: Request) -> Response:
        await self.sessions.close(self._session(request))
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        return StreamingResponse(stream(self._session(request), self.sessions), media_type="text/event-stream")

    async def receive_video(self, request: Request) -> Response:
        session = self._session(request)
        if session.is_receiving:
            raise RefusedError(409, "Another file is on its way; wait for it, or reload the page.")
        if session.is_starting:
            raise RefusedError(409, "Tracking is about to start; wait for it, or reload the page.")
        session.is_receiving = True
        try:
            video = await self._received(request, session)
        finally:
            session.is_receiving = False
        return JSONResponse(
            {
                "name": video.name,
                "width": video.width,
                "height": video.height,
                "count": video.count,
                "framesPerSecond": video.frames_per_second,
            },
            201,
        )

    async def _received(self, request: Request, session: Session) -> UploadedVideo:
        await run_in_threadpool(session.drop_video)
        session.make_folder()
        name = Path(request.query_params.get("name", "")).name[:_LONGEST_NAME] or "The file"
        path = session.folder / "video"
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else None
        limits = self._limits
        await receive_file(
            request.stream(),
            path,
            announced,
            limits.max_megabytes,
            lambda: not session.is_closed and not self.sessions.is_closing,
        )
        try:
            video = await run_in_threadpool(UploadedVideo, path, name)
            if video.count is not None and video.count > limits.max_frames:
                raise RefusedError(
                    422,
                    f"{name} has {video.count} frames; this server takes at most {limits.max_frames}: cut it first.",
                )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        session.video = video
        if session.is_closed:
            await run_in_threadpool(session.close)
            raise RefusedError(410, "The page was closed while the file was on its way.")
        return video

    async def frame(self, request: Request) -> Response:
        video, index = self._video(request), request.path_params["index"]
        if not index.isdecimal() or len(index) > _FRAME_DIGITS:
            raise RefusedError(404, f"There is no frame {excerpt(index)} of this video.")
        image = await run_in_threadpool(video.frame, int(index))
        return Response(await run_in_threadpool(to_jpeg, image, _FRAME_SIDE), media_type="image/jpeg")

    async def track(self, request: Request) -> Response:
        session, video = self._session(request), self._video(request)
        asked = await read_json(request, lambda: not self.sessions.is_closing)
        start, boxes_xywh = _read_start(asked), read_boxes(asked)
        if session.is_receiving:
            raise RefusedError(409, "Another file is on its way; wait for it, or reload the page.")
        if session.is_starting or (session.job is not None and session.job.is_running):
            raise RefusedError(409, "This video is being tracked already; stop that first.")
        session.is_starting = True
        try:
            total = await self._started(session, video, boxes_xywh, start)
        finally:
            session.is_starting = False
        return JSONResponse({"first": start, "total": total}, 202)

    async def _started(
        self, session: Session, video: UploadedVideo, boxes_xywh: list[list[float]], start: int
    ) -> int | None:
        """Begin a job, and wait for its first frame; the number of frames to track."""
        await run_in_threadpool(session.drop_job)
        if session.is_closed:
            raise RefusedError(410, "The page was closed.")
        session.results.mkdir(parents=True)
        job = Job(self._tracker, video, boxes_xywh, start, self._limits.max_frames, session.results)
        session.job = job
        await run_in_threadpool(job.started.wait)
        if job.error is not None and not job.records:
            await run_in_threadpool(session.drop_job)
            raise RefusedError(422, job.error)
        return job.total

    async def stop(self, request: Request) -> Response:
        job = self._session(request).job
        if job is not None:
            job.stop()
        return Response(status_code=204)

    async def file(self, request: Request) -> Response:
        session, name = self._session(request), request.path_params["name"]
        path = session.results / name
        if name not in LABELS or session.job is None or session.job.is_running or not path.is_file():
            raise RefusedError(404, f"There is no file {name} of this video.")
        stem = Path(self._video(request).name).stem
        download = f"{stem}_{name}" if "download" in request.query_params else None
        return FileResponse(path, filename=download)

    def _session(self, request: Request) -> Session:
        return self.sessions.find(request.path_params["id"])

    def _video(self, request: Request) -> UploadedVideo:
        video = self._session(request).video
        if video is None:
            raise RefusedError(409, "There is no video yet; add one first.")
        return video


async def read_json(request: Request, is_wanted: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """What a page has sent, by name; nothing where it is something else.

    Raises:
        RefusedError: it is too large, or as of `arriving`.
    """
    body = bytearray()
    async for chunk in arriving(request.stream(), is_wanted):
        body += chunk
        if len(body) > _LARGEST_JSON:
            raise RefusedError(413, f"The request is larger than {_LARGEST_JSON // 1000} kB, the most that is read.")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    return asked if isinstance(asked, dict) else {}


def read_boxes(asked: dict[str, Any]) -> list[list[float]]:
    """The boxes x, y, w, h in what a page has sent.

    Raises:
        RefusedError: they are none, too many, or no boxes.
    """
    boxes = asked.get("boxes")
    if not isinstance(boxes, list) or not 1 <= len(boxes) <= MOST_TARGETS:
        raise RefusedError(422, f"Draw a box around each target; 1 to {MOST_TARGETS} can be tracked at once.")
    if not all(isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in boxes):
        raise RefusedError(422, "A box is not four numbers x, y, w, h.")
    return [[float(value) for value in box] for box in boxes]


def _read_start(asked: dict[str, Any]) -> int:
    start = asked.get("start")
    if type(start) is not int or start < 0:
        raise RefusedError(422, "The first frame is no number from 0 on.")
    return start


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, f"{request.url.path} cannot be answered ({error.detail}).")

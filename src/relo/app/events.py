"""What happens in a session, as a stream of server-sent events: news of the job, and its latest frame."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from relo.app.job import Job
from relo.app.pictures import map_to_png, to_jpeg
from relo.app.result_files import list_results
from relo.app.sessions import Session, Sessions
from relo.tracking.frame_result import FrameResult

VIEWS_PER_SECOND = 15
_VIEW_SIDE = 960  # pixels
_PULSE_SECONDS = 5.0  # how often a line is sent though nothing happens, so that a dead connection is noticed


def describe(session: Session) -> dict[str, Any]:
    """Where a session stands."""
    job, video = session.job, session.video
    news: dict[str, Any] = {"phase": "empty" if video is None else "ready"}
    if job is not None:
        files = [] if job.is_running else list_results(session.results)
        news |= {"phase": job.phase, "error": job.error, "remarks": job.remarks, "files": files}
        news |= {"frames": len(job.records), "targets": job.targets, "first": job.first_index}
    return news


async def stream(session: Session, sessions: Sessions) -> AsyncIterator[str]:
    """The events of a session, until it or the server is closed.

    `state` is as of `describe`; `progress` has the frames' results since the last one, and what the latest frame shows.
    """
    announced: dict[str, Any] | None = None
    job: Job | None = None
    sent, silent = 0, 0.0
    with session.watched():
        while not (session.is_closed or sessions.is_closing):
            if session.job is not job:
                job, sent = session.job, 0
            # The phase first: what is found afterwards is sent in the next round.
            news = describe(session)
            if job is not None and len(job.records) > sent:
                progress = await run_in_threadpool(_progress, job, sent)
                sent, silent = sent + len(progress["records"]), 0.0
                yield _event("progress", progress)
            if (state := {key: value for key, value in news.items() if key != "frames"}) != announced:
                announced, silent = state, 0.0
                yield _event("state", news)
            if silent >= _PULSE_SECONDS:
                silent = 0.0
                yield ": alive\n\n"
            await asyncio.sleep(1 / VIEWS_PER_SECOND)
            silent += 1 / VIEWS_PER_SECOND


def _progress(job: Job, sent: int) -> dict[str, Any]:
    records = job.records[sent:]
    view = None if job.latest is None else _view(job.latest)
    return {"from": sent, "records": records, "total": job.total, "rate": job.rate, "view": view}


def _view(result: FrameResult) -> dict[str, Any]:
    maps = [None if target.response is None else map_to_png(target.response.numpy()) for target in result.targets]
    return {
        "index": result.index,
        "image": _base64(to_jpeg(result.image, _VIEW_SIDE)),
        "boxes": result.boxes_xywh.round(2).tolist(),
        "status": [target.status for target in result.targets],
        "maps": [None if png is None else _base64(png) for png in maps],
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"

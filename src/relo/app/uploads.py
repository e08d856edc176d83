"""What is sent by the page: a file is streamed to the disk, and refused as soon as it is too large or stops coming."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from relo.app.refusals import RefusedError

MEGABYTE = 1_000_000  # bytes
PATIENCE = 30.0
"""Seconds without data after which a visitor counts as gone."""

_GLANCE = 0.5  # seconds; the server waits for 3 when it ends


async def arriving(chunks: AsyncGenerator[bytes, None], is_wanted: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """A request's body, as long as it comes.

    Args:
        chunks: the body.
        is_wanted: false as soon as the visitor has gone, or the server ends.

    Raises:
        RefusedError: nothing came for 30 seconds, or it is not wanted any more.
    """

    async def following() -> bytes | None:
        return await anext(chunks, None)

    coming, silence = None, 0.0
    try:
        while is_wanted():
            coming = coming or asyncio.create_task(following())
            if not (await asyncio.wait([coming], timeout=_GLANCE))[0]:
                silence += _GLANCE
                if silence >= PATIENCE:
                    raise RefusedError(408, f"Nothing came for {PATIENCE:g} seconds; try again.")
                continue
            if (chunk := coming.result()) is None:
                return
            yield chunk
            coming, silence = None, 0.0
    finally:
        if coming is not None:
            coming.cancel()
    raise RefusedError(410, "The page or the server was closed meanwhile.")


async def receive_file(
    chunks: AsyncGenerator[bytes, None],
    path: Path,
    announced: int | None,
    max_megabytes: float,
    is_wanted: Callable[[], bool],
) -> None:
    """Write a request's body to a file; nothing is left of one that is refused or breaks off.

    Args:
        chunks: the body.
        path: the file to write.
        announced: the bytes that the request says it has.
        max_megabytes: the most that is taken.
        is_wanted: as of `arriving`.

    Raises:
        RefusedError: the file is empty or too large, the disk is full, or as of `arriving`.
    """
    limit = max_megabytes * MEGABYTE
    too_large = RefusedError(413, f"The file is larger than {max_megabytes:g} MB, the most that this server takes.")
    if announced is not None and announced > limit:
        raise too_large
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in arriving(chunks, is_wanted):
                size += len(chunk)
                if size > limit:
                    raise too_large
                await run_in_threadpool(file.write, chunk)
        if not size:
            raise RefusedError(422, "The file is empty.")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RefusedError(507, f"The file cannot be kept on the server ({error.strerror}).") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def is_text(path: Path) -> bool:
    """Whether a file begins as text does: no video, but it may be a playlist, which would name other files to open."""
    with path.open("rb") as file:
        beginning = file.read(1024)
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in beginning)

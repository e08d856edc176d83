"""A file that is sent by the page: streamed to the disk, and refused as soon as it is too large."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from relo.app.refusals import RefusedError

MEGABYTE = 1_000_000  # bytes


async def receive_file(
    chunks: AsyncIterator[bytes],
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
        is_wanted: false as soon as the visitor has gone.

    Raises:
        RefusedError: the file is empty or too large, the disk is full, or the visitor has gone.
    """
    limit = max_megabytes * MEGABYTE
    too_large = RefusedError(413, f"The file is larger than {max_megabytes:g} MB, the most that this server takes.")
    if announced is not None and announced > limit:
        raise too_large
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise too_large
                if not is_wanted():
                    raise RefusedError(410, "The page was closed while the file was on its way.")
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

"""What a request that cannot be done is answered: a status and one sentence."""

import logging
import re
from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from relo.errors import UserError

logger = logging.getLogger(__name__)

_PATH = re.compile(r"(?<![\w.])['\"]?(?:/|[A-Za-z]:\\)[^\s'\",:;]+['\"]?")

Endpoint = Callable[[Request], Awaitable[Response]]


class RefusedError(UserError):
    """A request that is answered with `status`, and with this sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def error_response(status: int, sentence: str) -> Response:
    """The answer that the page shows to the person."""
    return JSONResponse({"error": sentence}, status)


def answered(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose errors are answers: the person reads a sentence, and the log has no traceback."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except UserError as error:
            return error_response(error.status if isinstance(error, RefusedError) else 422, str(error))
        except ClientDisconnect:
            return error_response(400, "The page was closed.")
        except Exception as error:
            return error_response(500, unexpected(error))

    return answer


def unexpected(error: Exception) -> str:
    """A sentence about a fault of the program, or of the machine; it is logged, its traceback as a debug record.

    The log has all words; the sentence is for visitors, and has no path of the server.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    logger.error("%s: %s", type(error).__name__, words)
    logger.debug("Traceback", exc_info=error)
    said = error.strerror if isinstance(error, OSError) and error.strerror else _PATH.sub("a file", words)
    return f"Something went wrong on the server: {said[:300]}."

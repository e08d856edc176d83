"""Who may ask: against other sites' pages that post to a local server, and names that are rebound to its address."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relo.app.refusals import error_response

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_local(host: str) -> bool:
    """Whether an address or name is one that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Refuses requests under a foreign name, and what pages of other origins ask for; sets the headers of safety."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        """Wrap an app.

        Args:
            app: what answers the requests that are let through.
            names: the host names that requests may give; None lets through all. The port may be any, so that a
                forwarded one works.
        """
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if sentence := self._refusal(headers):
            await error_response(403, sentence)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self._names is not None and _hostname(f"//{host}") not in self._names:
            return f"This server answers under the name {' or '.join(dict.fromkeys(self._names))} alone."
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host  # urlsplit refuses what is no address
        # Browsers say where a request comes from; a link that a person follows has no origin.
        posted_by_others = headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        )
        return "This server takes nothing from the pages of other sites." if foreign or posted_by_others else None


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

"""The page on which boxes are drawn on one image: served until they are."""

import queue
import secrets
import webbrowser

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from relo.app.guard import LOCAL_NAMES, Guard
from relo.app.listen import Server, address_of, listen
from relo.app.pictures import page_colors, to_jpeg
from relo.app.refusals import answered
from relo.app.server import MOST_TARGETS, PAGE, read_boxes, read_json
from relo.console import make_console
from relo.tracking.crops import RGBImage

_HOST = "127.0.0.1"
_LONGEST_SIDE = 2560  # pixels


def ask(image: RGBImage, open_browser: bool) -> list[list[float]]:
    """Serve the page until boxes are drawn; see `relo.app.select.select_boxes`."""
    answers: queue.Queue[list[list[float]]] = queue.Queue()
    token = secrets.token_urlsafe(16)
    with listen(_HOST, 0) as listener:
        address = f"{address_of(listener)}{token}/"
        with Server(_make_app(image, token, answers)).in_background(listener):
            make_console(stderr=True, soft_wrap=True).print(f"Draw the targets' boxes at {address}", highlight=False)
            if open_browser:
                webbrowser.open(address)
            while True:
                try:
                    return answers.get(timeout=0.5)  # without one, Ctrl-C would wait on Windows
                except queue.Empty:
                    continue


def _make_app(image: RGBImage, token: str, answers: "queue.Queue[list[list[float]]]") -> Starlette:
    height, width = image.shape[:2]
    picture = to_jpeg(image, _LONGEST_SIDE)

    async def config(request: Request) -> Response:
        return JSONResponse({"width": width, "height": height, "colors": page_colors(), "maxTargets": MOST_TARGETS})

    async def show(request: Request) -> Response:
        return FileResponse(PAGE / "select.html")

    async def send_image(request: Request) -> Response:
        return Response(picture, media_type="image/jpeg")

    async def done(request: Request) -> Response:
        answers.put(read_boxes(await read_json(request)))
        return Response(status_code=204)

    return Starlette(
        routes=[
            Mount(
                f"/{token}",
                routes=[
                    Route("/", show),
                    Route("/select/config", config),
                    Route("/select/image", send_image),
                    Route("/select/done", answered(done), methods=["POST"]),
                    Mount("/", StaticFiles(directory=PAGE)),
                ],
            )
        ],
        middleware=[Middleware(Guard, names=LOCAL_NAMES)],
    )

"""The page in headless Chromium: from a video to its boxes, as a person does it."""

import re
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from moving_square import FRAMES, HEIGHT, WIDTH, write_video

pytest.importorskip("playwright")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from playwright import sync_api

from relo.app.listen import Server, address_of, listen
from relo.app.select_page import ask
from relo.app.server import Limits
from relo.app.shared_tracker import SharedTracker
from relo.errors import UserError

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.is_file():
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def address(make_small_app):
    limits = Limits(max_megabytes=2, max_frames=3000, grace_seconds=1)
    app = make_small_app(limits)
    with listen("127.0.0.1", 0) as listener, Server(app, app.state.sessions.announce_end).in_background(listener):
        yield address_of(listener)


@pytest.fixture
def open_page(browser, address):
    """Opens the page in a window of its own; at the end no script may have failed."""
    contexts, errors = [], []

    def open_one(viewport=WIDE, **settings):
        context = browser.new_context(viewport=viewport, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("[data-ready]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors


def add(page, path, phase="ready"):
    page.set_input_files("#file", path)
    page.wait_for_selector(f'[data-phase="{phase}"]')


def draw(page, x, y, w, h):
    """Drag with the mouse over a box of the video."""
    page.locator("#boxes").scroll_into_view_if_needed()
    frame = page.locator("#boxes").bounding_box()
    across, down = frame["width"] / WIDTH, frame["height"] / HEIGHT
    page.mouse.move(frame["x"] + x * across, frame["y"] + y * down)
    page.mouse.down()
    page.mouse.move(frame["x"] + (x + w) * across, frame["y"] + (y + h) * down, steps=4)
    page.mouse.up()


def sizes(page):
    return [text.replace("\u00d7", "x") for text in page.locator("#targets .size").all_inner_texts()]


def wait_until_deleted(folder):
    end = time.monotonic() + 10
    while (left := [path for path in folder.rglob("*") if path.is_file()]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_from_upload_to_download(open_page, video, viewport):
    page = open_page(viewport)
    assert page.locator("#intro-title").is_visible()
    add(page, video)
    assert page.locator("#track").is_disabled()
    draw(page, 10, 24, 16, 16)
    draw(page, 60, 8, 20, 20)
    assert sizes(page) == ["16 x 16 at 10, 24", "20 x 20 at 60, 8"]
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.click("#track")
    page.wait_for_selector('[data-phase="done"]', timeout=20_000)
    assert f"{FRAMES} frames tracked" in page.locator("#facts").inner_text()
    assert page.locator("#curve-summary li").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.wait_for_function("document.getElementById('player').duration > 0", timeout=20_000)  # not a number until read
    length = page.evaluate("document.getElementById('player').duration")
    assert length == pytest.approx(FRAMES / 20, abs=0.06)  # it plays
    with page.expect_download() as download:
        page.locator("#files a", has_text="text").click()
    assert download.value.suggested_filename == "clip_boxes.zip"
    assert download.value.path().stat().st_size > 100
    with page.expect_download() as download:
        page.locator("#files a", has_text="mp4").click()
    assert download.value.path().stat().st_size > 1000
    page.click("#again")
    assert sizes(page) == ["16 x 16 at 10, 24", "20 x 20 at 60, 8"]


def test_boxes_are_moved_resized_and_deleted(open_page, video):
    page = open_page()
    add(page, video)
    draw(page, 10, 24, 16, 16)
    draw(page, 18, 32, 4, 4)  # inside: it moves the box
    assert sizes(page) == ["16 x 16 at 14, 28"]
    draw(page, 30, 44, 10, 10)  # from its corner: it resizes it
    assert sizes(page) == ["26 x 26 at 14, 28"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert sizes(page) == ["26 x 25 at 15, 28"]
    draw(page, 60, 8, 0, 0)  # a click draws nothing
    assert len(sizes(page)) == 1
    page.click("#add")
    assert len(sizes(page)) == 2
    page.keyboard.press("Delete")
    assert len(sizes(page)) == 1
    page.click("#targets .remove")
    assert sizes(page) == []
    assert page.locator("#track").is_disabled()


def test_a_box_is_drawn_by_touch(open_page, video):
    page = open_page(NARROW, has_touch=True)
    add(page, video)
    frame = page.locator("#boxes").bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        scale = frame["width"] / WIDTH
        places = [{"x": frame["x"] + x * scale, "y": frame["y"] + y * scale} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (10, 24))
    touch("touchMove", (20, 30))
    touch("touchMove", (26, 40))
    touch("touchEnd")
    assert sizes(page) == ["16 x 16 at 10, 24"]


def test_tracking_begins_at_the_chosen_frame(open_page, video):
    page = open_page()
    add(page, video)
    for _ in range(4):
        page.click("#first-forward")
    page.wait_for_selector('#frame[alt="Frame 4 of the video"]')
    draw(page, 14, 24, 16, 16)
    page.click("#track")
    page.wait_for_selector('[data-phase="done"]', timeout=20_000)
    assert f"{FRAMES - 4} frames tracked" in page.locator("#facts").inner_text()


def test_what_cannot_be_used_is_a_message_and_the_page_works_on(open_page, video, tmp_path):
    page = open_page()
    text, large = tmp_path / "notes.mp4", tmp_path / "large.mp4"
    text.write_text("no video\n" * 50)
    large.write_bytes(bytes(2_100_000))
    message = page.locator("#message-text")
    for path, said in ((text, "notes.mp4 is no video"), (large, "at most 2 MB")):
        page.set_input_files("#file", path)
        page.locator("#message").filter(has_text=said).wait_for()
    page.evaluate("""
        const data = new DataTransfer();
        for (const name of ["a.mp4", "b.mp4"]) data.items.add(new File(["x"], name));
        dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
    """)
    page.locator("#message").filter(has_text="one video at a time").wait_for()
    page.click("#message-close")
    assert not message.is_visible()
    add(page, video)
    draw(page, 10, 24, 16, 16)
    page.click("#track")
    page.wait_for_selector('[data-phase="done"]', timeout=20_000)


def test_a_video_is_dropped(open_page, video):
    page = open_page()
    page.evaluate(
        """content => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "dropped.avi"));
            dispatchEvent(new DragEvent("dragenter", {dataTransfer: data}));
            dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
        }""",
        b64encode(video.read_bytes()).decode(),
    )
    page.wait_for_selector('[data-phase="ready"]')
    assert page.locator("#name").inner_text() == "dropped.avi"
    assert not page.locator("#overlay").is_visible()


def test_an_error_halfway_is_a_message_and_what_was_tracked_is_there(open_page, video, monkeypatch):
    run = SharedTracker.run

    def failing(*arguments):
        for number, result in enumerate(run(*arguments)):
            if number == 8:
                raise UserError("The video breaks off.")
            yield result

    monkeypatch.setattr(SharedTracker, "run", failing)
    page = open_page()
    add(page, video)
    draw(page, 10, 24, 16, 16)
    page.click("#track")
    page.locator("#message", has_text="The video breaks off. What was tracked until then is below.").wait_for()
    assert "8 frames tracked" in page.locator("#facts").inner_text()
    with page.expect_download() as download:
        page.locator("#files a", has_text="per line").click()
    assert len(download.value.path().read_text().splitlines()) == 8


def test_a_connection_that_is_made_again_does_not_take_the_person_off_drawing(open_page, video):
    page = open_page()
    page.add_init_script(
        "window.EventSource = class extends EventSource { constructor(a) { super(a); window.events = this; } }"
    )
    page.reload()
    page.wait_for_selector("[data-ready]")
    page.evaluate("events.addEventListener('progress', (event) => { window.progress = event.data; })")
    add(page, video)
    draw(page, 10, 24, 16, 16)
    page.click("#track")
    page.wait_for_selector('[data-phase="done"]', timeout=20_000)
    page.click("#again")
    # A new stream begins with all that the server knows of the last run.
    page.evaluate("events.dispatchEvent(new MessageEvent('progress', {data: progress}))")
    assert page.evaluate("document.body.dataset.phase") == "ready"
    assert sizes(page) == ["16 x 16 at 10, 24"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_target_s_color_can_be_seen_on_the_page(open_page, scheme):
    page = open_page(color_scheme=scheme)
    colors = page.evaluate(
        """async () => {
            const { legible } = await import("./elements.js");
            const { colors } = await (await fetch("config")).json();
            return [...colors.several, ...colors.alone].map(legible);
        }"""
    )
    ground = 1.0 if scheme == "light" else 0.0109  # of --surface
    for color in colors:
        values = np.array([int(value) for value in re.findall(r"\d+", color)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        bright, faint = sorted((float(linear @ [0.2126, 0.7152, 0.0722]), ground), reverse=True)
        assert (bright + 0.05) / (faint + 0.05) > 2.95, color


def test_a_second_finger_does_not_move_what_the_first_one_draws(open_page, video):
    page = open_page()
    add(page, video)
    page.evaluate(
        """() => {
            const boxes = document.getElementById("boxes");
            boxes.setPointerCapture = () => {};
            const frame = boxes.getBoundingClientRect();
            const send = (type, pointerId, x, y) => boxes.dispatchEvent(new PointerEvent(type, {
                pointerId, button: 0, bubbles: true,
                clientX: frame.left + frame.width * x / 96, clientY: frame.top + frame.height * y / 64,
            }));
            send("pointerdown", 1, 10, 24);
            send("pointermove", 1, 26, 40);
            send("pointermove", 2, 90, 60);
            send("pointerup", 2, 90, 60);
            send("pointerup", 1, 26, 40);
        }"""
    )
    assert sizes(page) == ["16 x 16 at 10, 24"]


def test_tracking_is_watched_and_stopped(open_page, tmp_path):
    page = open_page()
    add(page, write_video(tmp_path / "long.avi", 1500))
    draw(page, 10, 24, 16, 16)
    page.click("#track")
    page.wait_for_selector('[data-phase="tracking"]')
    page.locator("#progress-text", has_text="frames/s").wait_for()
    page.wait_for_selector("#map-image[src^='data:image/png']")
    page.click("#stop")
    page.wait_for_selector('[data-phase="done"]')
    assert "then stopped" in page.locator("#facts").inner_text()


def test_two_pages_at_once_and_a_closed_one_leaves_no_file(open_page, video, tmp_path):
    pages = [open_page(), open_page(NARROW)]
    for page in pages:
        add(page, video)
        draw(page, 10, 24, 16, 16)
    for page in pages:
        page.click("#track")
    for page in pages:
        page.wait_for_selector('[data-phase="done"]', timeout=20_000)
    folders = list((tmp_path / "visitors").glob("*/*"))
    assert len(folders) == 2
    pages[0].goto("about:blank")
    end = time.monotonic() + 5
    while len(list((tmp_path / "visitors").glob("*/*"))) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(list((tmp_path / "visitors").glob("*/*"))) == 1
    assert pages[1].locator("#files a").count() >= 2
    pages[1].close()
    wait_until_deleted(tmp_path / "visitors")


def test_a_session_that_has_ended_is_a_message(open_page, video):
    page = open_page()
    add(page, video)
    draw(page, 10, 24, 16, 16)
    page.route("**/track", lambda route: route.fulfill(status=404, json={"error": "This session has ended."}))
    page.click("#track")
    page.locator("#message", has_text="has ended").wait_for()
    page.wait_for_selector('[data-phase="empty"]')
    page.unroute("**/track")
    add(page, video)
    draw(page, 10, 24, 16, 16)
    page.click("#track")
    page.wait_for_selector('[data-phase="done"]', timeout=20_000)


def test_boxes_are_selected_on_an_image(browser, monkeypatch):
    addresses = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, np.zeros((HEIGHT, WIDTH, 3), np.uint8), True)
        while not addresses:
            time.sleep(0.02)
        page = browser.new_page(viewport=WIDE)
        page.goto(addresses[0])
        page.wait_for_selector("#add")
        draw(page, 10, 24, 16, 16)
        page.click("#done")
        page.wait_for_selector('[data-phase="farewell"]')
        page.close()
        np.testing.assert_allclose(answer.result(timeout=10), [[10, 24, 16, 16]], atol=0.3)

"""`relo serve`: a page to try the tracker in."""

import webbrowser
from pathlib import Path

from relo.app import require_packages
from relo.console import make_console
from relo.models.checkpoints.plugin import trust as trust_modules
from relo.models.checkpoints.weights import SHIPPED
from relo.settings import LARGEST, check_number, check_whole
from relo.tracking.rule import read_rule_file
from relo.tracking.tracker import Tracker

_SMALLEST = 0.001  # MB
_MOST_FRAMES = 10**9


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str = SHIPPED,
    rule: Path | None = None,
    device: str | None = None,
    max_size: float = 500,
    max_frames: int = 10_000,
    open: bool = False,
    trust: list[str] | None = None,
) -> None:
    """Serve a page on which a video is tracked: drop it, draw boxes on its first frame, watch, download.

    Only this machine reaches the page. What a visitor gives is deleted when the page is closed, and when the server
    ends. It needs the packages of the extra `relo[app]`.

    Args:
        host: the address to listen on; 0.0.0.0 lets in all machines of the network, without a password.
        port: the port, or where it is taken, the next free one.
        model: a model's name, its folder, or a checkpoint; the network that comes with the package if not given.
        rule: "lost_and_found", to search for a target that is lost; or a YAML file of the tracking settings that differ
            from the model's own, such as "lost_after: 5".
        device: where to compute, such as "cpu" or "cuda"; the GPU if there is one.
        max_size: the largest video that is taken, in MB.
        max_frames: the longest video that is taken, in frames.
        open: open the page in the browser.
        trust: modules whose classes the model's config may name; otherwise it may name relo's alone.

    Raises:
        UserError: packages are missing, a limit is out of range, the model cannot be used, or the address cannot be
            listened on.
        KeyboardInterrupt: it was stopped.
    """
    require_packages("relo serve")
    trust_modules(trust or ())
    check_number("This command", _SMALLEST, LARGEST, max_size=max_size)
    check_whole("This command", 1, _MOST_FRAMES, max_frames=max_frames)
    from relo.app.guard import LOCAL_NAMES, is_local
    from relo.app.listen import Server, address_of, listen
    from relo.app.server import Limits, make_app
    from relo.app.shared_tracker import SharedTracker

    settings = None if rule is None else read_rule_file(rule, model).rule
    with listen(host, port) as listener:
        tracker = SharedTracker(Tracker.from_pretrained(model, settings, device))
        names = (*LOCAL_NAMES, host) if is_local(host) else None
        name = Path(model).name
        app = make_app(tracker, name, Limits(max_megabytes=max_size, max_frames=max_frames), names)
        console = make_console(soft_wrap=True)
        console.print(f"The page is at {address_of(listener)} (Ctrl-C ends it).", highlight=False)
        if names is None:
            console.print(
                f"Every machine that reaches {host} can open it, without a password, and send videos to this one.",
                style="yellow",
            )
        if open:
            webbrowser.open(address_of(listener))
        Server(app, app.state.sessions.announce_end).run_until_stopped(listener)

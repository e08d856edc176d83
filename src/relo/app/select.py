"""Draw the targets' boxes on an image, in a browser: for machines where no window can be opened."""

from relo.app import require_packages
from relo.tracking.crops import RGBImage


def select_boxes(image: RGBImage, open_browser: bool = True) -> list[list[float]]:
    """The boxes x, y, w, h, in pixels, that a person draws on an RGB image uint8 [H, W, 3] in the browser.

    Prints the page's address, which only this machine reaches, and waits.

    Raises:
        UserError: packages of the extra `relo[app]` are missing.
        KeyboardInterrupt: Ctrl-C.
    """
    require_packages("Drawing boxes in the browser")
    from relo.app.select_page import ask

    return ask(image, open_browser)

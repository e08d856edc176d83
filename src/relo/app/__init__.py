"""The local page: draw a box on a video's first frame in the browser, and watch it tracked."""

from importlib.util import find_spec

from relo.errors import UserError


def require_packages(what: str) -> None:
    """Check that the packages of the extra `relo[app]` are installed.

    Raises:
        UserError: a package is missing; the sentence begins with `what` needs them.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install 'relo[app]'.")

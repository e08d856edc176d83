"""Memory that does not suffice, on a GPU or in the machine, as a sentence."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from relo.errors import UserError

_ON_CPU = ("can't allocate memory", "not enough memory")  # torch's allocator, on Linux and on Windows
_ASKED = re.compile(r"[Tt]ried to allocate (\d[\d.]* ?\w+)")


def shortage(error: BaseException) -> str | None:
    """Which memory does not suffice, and for what; None for any other error."""
    words = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        gpu = re.search(r"GPU (\d+)", words)
        where = f"of GPU {gpu[1]}" if gpu else "of the GPU"
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(sign in words for sign in _ON_CPU)):
        where = "of this machine"
    else:
        return None
    asked = _ASKED.search(words)
    return f"The memory {where} does not suffice" + (f" ({asked[1]} more were asked for)" if asked else "")


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Name the memory that does not suffice for what is done within.

    Args:
        advice: the end of the sentence: what to do.

    Raises:
        UserError: it does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        sentence = shortage(error)
        if sentence is None:
            raise
        raise UserError(f"{sentence}: {advice}.") from error

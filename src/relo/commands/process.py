"""How a process of ours waits and keeps memory: set by commands, benchmarks and data preparation before torch loads.

`import relo` alone changes nothing, as a library's import should not set what holds for a whole program. A script of
your own gets the same from `export OMP_WAIT_POLICY=PASSIVE`, or from `set_defaults()` before it imports torch.
"""

import ctypes
import os
import re
import sys

# The largest thresholds that glibc itself comes to, by freeing large blocks; the options' numbers are of mallopt(3).
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20), "MALLOC_TRIM_THRESHOLD_": (-1, 64 << 20)}
_SIDES = ("COLUMNS", "LINES")  # of the terminal


def set_defaults() -> None:
    """Let threads sleep while they wait, freed memory be used again, and what is printed have a width.

    What the environment says goes first, but for a size of the terminal that is none, as under some editors: with 0
    columns nothing would be printed.

    At the end of each parallel piece of work OpenMP's threads spin for milliseconds, in case the next comes soon. As
    soon as another program needs a core, threads that have work wait for those that spin, and a step takes 10 to 100
    times as long. GNU's library (torch on Linux) and LLVM's or Intel's (macOS, Windows) read OMP_WAIT_POLICY when torch
    loads them; GOMP_SPINCOUNT or KMP_BLOCKTIME, where set, go before it.

    glibc would give a freed frame's memory back, and have the next one's paged in. It reads its variables when a
    process starts: here they are for the children, and mallopt for the process itself. With another C library nothing
    happens.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in _SIDES:
        if not re.fullmatch("0{0,5}[1-9][0-9]{0,5}", os.environ.get(name, "")):
            os.environ.pop(name, None)
    if sys.platform != "linux" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    for name, (option, value) in _MALLOC.items():
        if name not in os.environ:
            os.environ[name] = str(value)
            library.mallopt(option, value)

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "GLIBC_TUNABLES",
)
SCRIPTS = [
    path
    for folder in ("benchmarks", "data_prep")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP and C library")


def run(*arguments, **own):
    """Python in an environment with these settings of its own alone."""
    given = {*SETTINGS, "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in given}
    process = subprocess.run(
        [sys.executable, *arguments], env=environment | own, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return process


@on_linux
def test_threads_of_a_command_sleep_while_they_wait():
    command = run("-m", "relo", "evaluate", "--help", OMP_DISPLAY_ENV="VERBOSE")
    assert "GOMP_SPINCOUNT = '0'" in command.stderr


@on_linux
@pytest.mark.parametrize(
    ("own", "spins"), [({}, "0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"), ({"GOMP_SPINCOUNT": "77"}, "77")]
)
def test_what_the_environment_says_of_waiting_is_kept(own, spins):
    torch = Path(find_spec("torch").origin).parent
    libraries = [*torch.glob("lib/libgomp*"), *torch.parent.glob("torch.libs/libgomp*")]
    if not libraries:
        pytest.skip("torch brings no OpenMP library of GNU's")
    script = (
        "from relo.commands.process import set_defaults; set_defaults(); import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in run("-c", script, libraries[0], OMP_DISPLAY_ENV="VERBOSE", **own).stderr


@on_linux
def test_freed_memory_is_kept_unless_the_environment_says_otherwise():
    # A block beyond the threshold lies in a map of its own, which goes back to the system when it is freed.
    script = """
import ctypes, os
from relo.commands.process import set_defaults

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ["arena", "ordblks", "smblks", "hblks", *"abcdef"]]

set_defaults()
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
before = libc.mallinfo2().hblks
libc.malloc(20 << 20)
print(libc.mallinfo2().hblks - before, os.environ.get("MALLOC_MMAP_THRESHOLD_"))
"""
    assert run("-c", script).stdout.split() == ["0", str(32 << 20)]
    assert run("-c", script, MALLOC_MMAP_THRESHOLD_="65536").stdout.split() == ["1", "65536"]
    assert run("-c", script, GLIBC_TUNABLES="glibc.malloc.mmap_threshold=65536").stdout.split() == ["1", "None"]


@pytest.mark.parametrize(
    ("width", "targets", "given", "threads"),
    [(100, 1, {}, 1), (100, 2, {}, 2), (100, 9, {}, 3), (3000, 1, {}, 3), (100, 1, {"OMP_NUM_THREADS": "2"}, 2)],
)
def test_a_small_network_has_no_more_threads_than_targets(width, targets, given, threads):
    script = f"""
import os, torch
from relo.models.devices import fit_threads
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(3)
fit_threads(torch.nn.Linear({width}, {width}), {targets})
print(torch.get_num_threads())
"""
    assert run("-c", script, **given).stdout.split() == [str(threads)]


def test_importing_the_package_sets_nothing():
    script = f"import os, relo, relo.commands.main; print(*(name for name in os.environ if name in {SETTINGS}))"
    assert run("-c", script).stdout.split() == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_set_it_before_anything_loads_torch(path):
    _, first, second, *_ = ast.parse(path.read_text(encoding="utf-8")).body
    assert [ast.unparse(first), ast.unparse(second)] == [
        "from relo.commands.process import set_defaults",
        "set_defaults()",
    ]

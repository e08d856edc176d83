"""Options that take several values, and positional arguments behind them."""

import shlex

import pytest

from relo.commands.arguments import regrouped
from relo.commands.main import _parse


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("v.mp4 --box 1,2,3,4", "v.mp4 --box 1,2,3,4"),
        ("v.mp4 --box a --model M --box b c", "v.mp4 --box a b c --model M"),
        ("v.mp4 --box=a --box=b", "v.mp4 --box a b"),
        ("--box a v.mp4", "v.mp4 --box a"),
        ("--box=a v.mp4", "v.mp4 --box a"),
        ("--box a b v.mp4 --model M", "v.mp4 --box a b --model M"),
        ("--box a --box b v.mp4", "v.mp4 --box a b"),
        ("--select v.mp4", "v.mp4 --select"),
        ("--select false v.mp4 --model M", "v.mp4 --select false --model M"),
        ("--box -5,1,2,3 v.mp4", "v.mp4 --box -5,1,2,3"),
        ("--box a --model M v.mp4", "--box a --model M v.mp4"),
        ("--box a b --model M v.mp4", "--box a b --model M v.mp4"),
        ("--box a b -- v.mp4", "--box a b -- v.mp4"),
        ("--box a", "--box a"),  # the parser says what is missing
        ("v.mp4 --select true", "v.mp4 --select true"),
        ("--help", "--help"),
    ],
)
def test_list_options_may_be_repeated_and_swallow_no_positional(given, expected):
    assert shlex.join(regrouped(given.split(), {"--box"}, {"--select"}, 1)) == expected


def command(source: str, *, box: list[str] | None = None, seeds: list[int] | None = None, select: bool = False):
    """Do something."""


@pytest.mark.parametrize("arguments", ["v --box a b", "v --box a --box b", "--box a --box b v", "--box a b v"])
def test_repeated_options_reach_the_function(arguments):
    values = _parse("relo", command, [*arguments.split(), "--seeds", "1", "--seeds", "2"])
    assert values == {"source": "v", "box": ["a", "b"], "seeds": [1, 2], "select": False}

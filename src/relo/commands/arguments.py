"""Command lines in an order that argparse understands as people mean them."""

import re
from collections.abc import Collection

NEGATIVE_NUMBER = re.compile(r"-\.?\d")
"""How a value that is no option may begin: "-5,30,30,30", as argparse by itself knows of "-5"."""


def regrouped(arguments: list[str], lists: Collection[str], switches: Collection[str], positionals: int) -> list[str]:
    """The command line with each list option once, and in front the positional arguments that one would swallow.

    By itself argparse lets an option take every value behind it, also those that the command cannot do without, and
    the last occurrence of an option win.

    Args:
        arguments: the command line behind the command's name.
        lists: flags of options that take one or more values, and may be given several times.
        switches: flags of options that may stand without a value.
        positionals: how many positional arguments the command needs.
    """
    front: list[str] = []
    options: list[list[str]] = []  # a flag and the values behind it
    for argument in arguments:
        is_value = not argument.startswith("-") or argument == "-" or NEGATIVE_NUMBER.match(argument)
        if is_value or (options and options[-1][0] == "--"):
            (options[-1] if options else front).append(argument)
            continue
        flag, equals, value = argument.partition("=")
        options.append([flag, value] if equals and flag in lists else [argument])
    missing = positionals - len(front)
    for option in options:
        if option[0] not in lists and option[0] not in switches:
            missing -= max(0, len(option) - (1 if option[0] == "--" or "=" in option[0] else 2))
    swallowed: list[str] = []
    for option in reversed(options):
        least = 2 if option[0] in lists or option[1:2] in (["true"], ["false"]) else 1
        while missing > 0 and option[0] in {*lists, *switches} and len(option) > least:
            swallowed.insert(0, option.pop())
            missing -= 1
    merged: list[list[str]] = []
    for option in options:
        earlier = next((one for one in merged if option[0] in lists and one[0] == option[0]), None)
        if earlier is None:
            merged.append(option)
        else:
            earlier += option[1:]
    return [*front, *swallowed, *(word for option in merged for word in option)]

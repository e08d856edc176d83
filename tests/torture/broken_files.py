"""Ways to break a file, a text, a tree of settings or the records of a store, at random."""

import codecs
import copy
import io
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import torch
import yaml
from safetensors.torch import load_file, save_file

NUMBERS = (
    "1e308",
    "-1e308",
    "9" * 400,
    "9" * 5000,
    "-1",
    "0",
    "nan",
    "inf",
    "-inf",
    "1e-320",
    "1e9",
    "1000000000",
    "1e400",
)
"""Absurd numbers as text. Those in `UNBELIEVABLE` cannot be meant: what takes one says so."""

UNBELIEVABLE = frozenset({"1e308", "-1e308", "9" * 400, "9" * 5000, "inf", "-inf", "1e400"})

WORDS = (
    "",
    " ",
    "word",
    "1_0",
    "0x10",
    "\uff13\uff10",
    "1,2",
    "\0",
    "x" * 300,
    "../../../x",
    "'\"\n",
    "null",
    "[",
    "{}",
    "*",
)

VALUES: tuple[Any, ...] = (
    *(1e308, -1e308, 10**400, -1, 0, 0.5, math.nan, math.inf, 10**9, 10**18, 1e-320, True, None),
    *("", "word", "1e308", "x" * 300, "a\0b", [], {}, [1], [[1]], {"a": 1}, ["word"], {1: 2}, [None]),
)
"""Absurd values of settings."""


def truncate(path: Path, random: Random) -> str:
    size = random.randrange(max(1, path.stat().st_size))
    os.truncate(path, size)
    return f"truncated to {size} bytes"


def flip_bits(path: Path, random: Random) -> str:
    content = bytearray(path.read_bytes())
    reach = random.choice((64, 4096, len(content)))  # headers lie in front
    for _ in range(random.choice((1, 8, 64)) if content else 0):
        content[random.randrange(min(reach, len(content)))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"bits flipped in the first {reach} bytes"


def fill_with(path: Path, random: Random) -> str:
    name, content = random.choice(
        [
            *(("nothing", b""), ("a newline", b"\n"), ("zeros", bytes(5000)), ("a long line", b"x" * 3_000_000)),
            *(("commas", b"," * 100_000), ("brackets", b"[" * 100_000), ("digits", b"9" * 100_000)),
            *(("random bytes", random.randbytes(5000)), ("lines", b"1,1,9,9\n" * 100_000)),
        ]
    )
    path.write_bytes(content)
    return f"filled with {name}"


def swap(path: Path, others: Sequence[Path], random: Random) -> str:
    other = random.choice([each for each in others if each.suffix != path.suffix] or list(others))
    shutil.copyfile(other, path)
    return f"swapped with {other.name}"


def recode(path: Path, random: Random) -> str:
    text = path.read_text(errors="replace")
    changes: dict[str, Callable[[], bytes]] = {
        "UTF-16": lambda: text.encode("utf-16"),
        "UTF-32": lambda: text.encode("utf-32"),
        "a BOM": lambda: codecs.BOM_UTF8 + text.encode(),
        "CRLF": lambda: text.replace("\n", "\r\n").encode(),
        "CR": lambda: text.replace("\n", "\r").encode(),
        "Latin-1": lambda: text.encode("latin-1", "replace") + b"\xe9",
        "surrogates": lambda: text.encode() + b"\xed\xa0\x80",
    }
    name = random.choice(sorted(changes))
    path.write_bytes(changes[name]())
    return f"written in {name}"


def replace_by_no_file(path: Path, random: Random) -> str:
    path.unlink()
    kind = random.choice(("nothing", "a folder", "a pipe", "a loop", "/dev/null", "/dev/zero", "/dev/full"))
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a loop":
        path.symlink_to(path.name)
    elif kind != "nothing":
        path.symlink_to(kind)
    return f"replaced by {kind}"


def forbid(path: Path, random: Random) -> str:
    target = random.choice((path, path.parent))
    target.chmod(0)
    return f"{target.name} without permission"


def change_number(path: Path, random: Random) -> str:
    """One number, or one word where there is none, of a text."""
    pieces = _pieces(path.read_text())
    places = [i for i, piece in enumerate(pieces) if _is_number(piece)] or list(range(len(pieces)))
    if not places:
        return fill_with(path, random)
    place = random.choice(places)
    number = random.choice(NUMBERS if random.random() < 0.7 else WORDS)
    pieces[place] = number
    path.write_text("".join(pieces))
    kind = "unbelievable" if number in UNBELIEVABLE else "changed"
    return f"{kind} number {place}: {number[:20]!r}"


def change_lines(path: Path, random: Random) -> str:
    lines = path.read_text().splitlines(keepends=True) or ["\n"]
    place = random.randrange(len(lines))
    how = random.choice(("dropped", "doubled", "blank", "joined", "swapped", "sorted"))
    if how == "dropped":
        del lines[place]
    elif how == "doubled":
        lines.insert(place, lines[place])
    elif how == "blank":
        lines.insert(place, "\n")
    elif how == "joined":
        lines[place] = lines[place].rstrip("\n") + " "
    else:
        random.shuffle(lines)
    path.write_text("".join(lines))
    return f"line {place} {how}"


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for character in text:
        same = pieces and character.isspace() == pieces[-1][-1].isspace() and character not in ",:[]{}\"'"
        if same and pieces[-1] not in (*",:[]{}\"'",):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in nested settings, whole mappings and lists as well."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [*([path] if path else []), *(place for key, value in inner for place in leaves(value, (*path, key)))]


def put(tree: Any, path: Sequence[Any], value: Any) -> Any:
    """A copy of nested settings with one value changed."""
    tree = copy.deepcopy(tree)
    target = tree
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return tree


def change_setting(tree: Any, random: Random, values: Sequence[Any] = VALUES) -> tuple[Any, str]:
    """Nested settings with one value changed, or one left out."""
    place = random.choice(leaves(tree))
    where = "/".join(map(str, place))
    if random.random() < 0.1:
        changed = copy.deepcopy(tree)
        target = changed
        for key in place[:-1]:
            target = target[key]
        del target[place[-1]]
        return changed, f"{where} left out"
    value = random.choice(values)
    return put(tree, place, value), f"{where} = {repr(value)[:40] if value != 10**400 else '10**400'}"


def change_yaml(path: Path, random: Random) -> str:
    changed, words = change_setting(yaml.safe_load(path.read_text()), random)
    path.write_text(as_yaml(changed))
    return words


def as_yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, allow_unicode=True, width=10**9)


def change_json(path: Path, random: Random) -> str:
    text = path.read_text()
    lines = text.splitlines()
    number = random.randrange(len(lines)) if path.suffix == ".jsonl" else None
    values = [value for value in VALUES if not isinstance(value, dict) or all(isinstance(key, str) for key in value)]
    changed, words = change_setting(json.loads(text if number is None else lines[number]), random, values)
    if number is None:
        path.write_text(json.dumps(changed))
    else:
        lines[number] = json.dumps(changed)
        path.write_text("\n".join(lines))
    return words


def change_tensors(tensors: dict[str, torch.Tensor], random: Random) -> str:
    name = random.choice(sorted(tensors))
    tensor = tensors[name]
    how = random.choice(("left out", "of NaN", "infinite", "of 1e38", "whole", "longer", "empty", "flat", "renamed"))
    if how in ("left out", "renamed"):
        del tensors[name]
        if how == "renamed":
            tensors[name + ".other"] = tensor
        return f"{name} {how}"
    number = {"of NaN": math.nan, "infinite": math.inf, "of 1e38": 1e38}.get(how)
    if number is not None:
        if not tensor.is_floating_point():
            tensors[name] = tensor - 10**9
            return f"{name} of other numbers"
        tensors[name] = torch.full_like(tensor, number)
    else:
        shapes = {"longer": torch.zeros(*tensor.shape, 2), "empty": torch.zeros(0), "flat": tensor.flatten().clone()}
        tensors[name] = tensor.to(torch.int64) if how == "whole" else shapes[how]
    return f"{name} {how}"


def change_safetensors(path: Path, random: Random) -> str:
    if random.random() < 0.6:
        tensors = load_file(path)
        words = change_tensors(tensors, random)
        save_file(tensors, path, metadata={"relo_format": "1"})
        return words
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if random.random() < 0.3:
        size = random.choice((0, 1, 2**40, 2**63, length - 1, length + 1))
        path.write_bytes(size.to_bytes(8, "little") + content[8:])
        return f"a header of {size} bytes"
    header, words = change_setting(json.loads(content[8 : 8 + length]), random, VALUES[:-2])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return f"header: {words}"


def change_checkpoint(path: Path, random: Random) -> str:
    content = torch.load(path, weights_only=True, map_location="cpu")
    key = next((name for name in ("state_dict", "net") if name in content), None)
    if key and random.random() < 0.4:
        words = change_tensors(content[key], random)
    else:
        content, words = change_setting(content, random)
    torch.save(content, path)
    return words


def change_zip(path: Path, random: Random) -> str:
    """Members broken, renamed to names that attack, or far larger than they look."""
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = random.choice(sorted(members))
    how = random.choice(("broken", "renamed", "a bomb", "left out", "twice"))
    if how == "broken":
        content = bytearray(members[name] or b"0")
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        members[name] = bytes(content)
    elif how == "a bomb":
        members[name] = b"1,1,9,9\n" * 3_000_000
    else:
        content = members.pop(name)
        other = random.choice(("../../outside.txt", "/outside.txt", "a\\b.txt", "x" * 300, "\n", "a/../b", ""))
        members |= {} if how == "left out" else {other: content} if how == "renamed" else {f"a/{name}": content}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in members.items():
            member = zipfile.ZipInfo(each)  # by its name alone, an empty one is refused
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    path.write_bytes(written.getvalue())
    return f"{name} {how}"


def change_record(path: Path, random: Random) -> str:
    """One record of a store, whose checksum is right again: its JSON, or its bytes."""
    environment = lmdb.open(str(path.parent), map_size=2**28)
    with environment.begin(write=True) as transaction:
        keys = [key for key, _ in transaction.cursor()]
        key = random.choice([b"manifest", *keys, *(each for each in keys if not each[-8:].isdigit())])
        content = transaction.get(key)[:-4]
        try:
            changed, words = change_setting(json.loads(content), random, VALUES[:-2])
            content = json.dumps(changed).encode()
        except (ValueError, IndexError):
            cut = random.randrange(len(content) + 1)
            words = random.choice((f"cut to {cut} bytes", "of NaN", "of 1e308", "longer"))
            filled = {"of NaN": math.nan, "of 1e308": 1e308}.get(words)
            if filled is not None:
                import numpy as np

                content = np.full(len(content) // 8, filled).tobytes()
            else:
                content = content[:cut] if words != "longer" else content * 2
        transaction.put(key, content + zlib.crc32(content).to_bytes(4, "little"))
    environment.close()
    return f"record {key.decode()}: {words}"


TEXT = (change_number, change_number, change_number, change_lines, recode)
OF_SUFFIX: dict[str, tuple[Callable[[Path, Random], str], ...]] = {
    **dict.fromkeys((".txt", ".csv", ".label", ".ini", ".tag", ""), TEXT),
    ".yaml": (change_yaml, change_yaml, change_yaml, change_number, recode),
    ".json": (change_json, change_json, change_json, change_number, recode),
    ".jsonl": (change_json, change_json, change_json, change_number, recode),
    ".safetensors": (change_safetensors,) * 3,
    ".ckpt": (change_checkpoint,) * 3,
    ".tar": (change_checkpoint,) * 3,
    ".zip": (change_zip,) * 3,
    ".mdb": (change_record,) * 4,
}
"""Ways to break a file by what it holds."""

ANY = (truncate, flip_bits, fill_with, replace_by_no_file, forbid)


def break_file(path: Path, others: Sequence[Path], random: Random) -> tuple[str, str]:
    """Break a file in one way; gives the way, and a sentence about it."""
    ways = (*ANY, *OF_SUFFIX.get(path.suffix, ()), *OF_SUFFIX.get(path.suffix, ()))
    way = random.choice((*ways, swap))
    if way is swap:
        return "swap", f"{path.name} {swap(path, others, random)}"
    try:
        words = way(path, random)
    except (ValueError, UnicodeDecodeError, KeyError):  # nothing of the kind is in it
        way, words = truncate, truncate(path, random)
    return way.__name__, f"{path.name} {words}"

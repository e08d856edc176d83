"""Pickles read without running anything: tensors and plain data are restored, every other object is only named.

To be given to `torch.load` as its `pickle_module`. What may be called or filled is what torch's own reader for
`weights_only=True` allows; that one stops at the first other name, this one goes on.
"""

import _compat_pickle
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
from torch._weights_only_unpickler import _get_allowed_globals


@dataclass(eq=False)
class Foreign:
    """What stands in a file for a class, a function or an object that is not restored, and for all that it makes.

    Attributes:
        name: the module and name of the class or function.
        arguments: what it was called with.
        state: what it was given afterwards.
    """

    name: str
    arguments: Sequence[Any] = ()
    state: Any = None


_Place = tuple[Any, ...]
"""A key within a place, or () for the whole: written out only for what is reported."""

_KEYS_AT_MOST, _LETTERS_AT_MOST = 20, 120
"""Of a place, and of each of its keys, in words."""


class ForeignCode(pickle.UnpicklingError):
    """Something that must be plain data is an object that only its own code could restore."""


def foreign_parts(value: Any) -> Iterator[tuple[str, str]]:
    """Every `Foreign` within dicts, lists, tuples and sets: its place, such as "settings.env", and its name."""
    waiting: list[tuple[_Place, Any]] = [((), value)]
    seen: set[int] = set()
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, Foreign):
            yield _in_words(place), part.name
        elif id(part) not in seen and isinstance(part, (Mapping, list, tuple, set, frozenset)):
            seen.add(id(part))
            named = part.items() if isinstance(part, Mapping) else enumerate(part)
            for key, item in named:
                waiting.append(((place, key), item))
                if not isinstance(key, (str, int)):
                    waiting.append((place, key))


def _in_words(place: _Place) -> str:
    keys: list[str] = []
    while place and len(keys) < _KEYS_AT_MOST:
        place, key = place
        keys.append(str(key)[:_LETTERS_AT_MOST] if isinstance(key, (str, int)) else type(key).__name__)
    return ".".join(reversed(keys))


class Unpickler(pickle._Unpickler):
    """Python's own reader, with every opcode that can call, fill or change an object replaced."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    # No checkpoint has these; extensions could bring objects that bypass `find_class`, and buffers announce any size.
    for opcode in (pickle.PERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        del dispatch[opcode[0]]

    stack: list[Any]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        """What torch admits under this name, or a stand-in; nothing is imported."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        full_name = f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
        return _get_allowed_globals().get(full_name, Foreign(full_name))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def _newobj_ex(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], (*arguments, keywords))

    def _instantiate(self, function: Any, arguments: list[Any]) -> None:  # of the opcodes INST and OBJ
        self.stack.append(_call(function, arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Foreign):
            target.state = state
            if (array := _array(target)) is not None:
                self.stack[-1] = array
                self.memo.update({key: array for key, value in self.memo.items() if value is target})
        elif type(target) is not OrderedDict:  # of which attributes, such as a state's `_metadata`, are not used
            raise pickle.UnpicklingError(f"A {type(target).__name__} takes no state.")

    def _append(self) -> None:
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def _appends(self) -> None:
        items = self.pop_mark()
        _extend(self.stack[-1], items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def _setitems(self) -> None:
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def _binpersid(self) -> None:
        identity = self.stack.pop()
        if type(identity) is tuple and identity[:1] == ("module",):  # a class, with its source in old files
            self.stack.append(identity[1])
        elif type(identity) is tuple and identity[:1] == ("storage",):
            _require_restored(identity)
            self.stack.append(self.persistent_load(identity))
        else:
            raise pickle.UnpicklingError("Only storages may lie outside of the pickle.")

    for opcode, load in (
        (pickle.REDUCE, _reduce),
        (pickle.NEWOBJ, _reduce),
        (pickle.NEWOBJ_EX, _newobj_ex),
        (pickle.BUILD, _build),
        (pickle.APPEND, _append),
        (pickle.APPENDS, _appends),
        (pickle.ADDITEMS, _appends),
        (pickle.SETITEM, _setitem),
        (pickle.SETITEMS, _setitems),
        (pickle.BINPERSID, _binpersid),
    ):
        dispatch[opcode[0]] = load
    del opcode, load


def load(file: BinaryIO, **options: Any) -> Any:
    """One pickle of the plain data that frames an old, unzipped file of torch.

    Raises:
        ForeignCode: it holds anything else.
    """
    contents = Unpickler(file, **options).load()
    _require_restored(contents)
    return contents


def _require_restored(value: Any) -> None:
    for _, name in foreign_parts(value):
        raise ForeignCode(name)


# Of these, the object that they make, or look into, says what it is.
_MAKERS = re.compile(r"copyreg\..*|builtins\.getattr|numpy\._?core\.multiarray\._reconstruct")


def _call(function: Any, arguments: Any) -> Any:
    """What torch's functions make of restored arguments; a stand-in for what involves anything foreign."""
    if not isinstance(arguments, (tuple, list)):
        arguments = (arguments,)
    foreign = [part for part in (function, *arguments) if isinstance(part, Foreign)]
    if foreign:
        number = _number(foreign[0], arguments)
        telling = next((part for part in foreign if not _MAKERS.fullmatch(part.name)), foreign[0])
        return Foreign(telling.name, arguments) if number is None else number
    if not any(function is allowed for allowed in _get_allowed_globals().values()):
        raise pickle.UnpicklingError(f"A {type(function).__name__} cannot be called.")
    return function(*arguments)


def _extend(target: Any, items: Iterable[Any]) -> None:
    if type(target) is list:
        target.extend(items)
    elif type(target) is set:
        target.update(items)
    elif not isinstance(target, Foreign):
        raise pickle.UnpicklingError(f"A {type(target).__name__} takes no items.")


def _set_items(target: Any, items: Sequence[Any]) -> None:
    if type(target) in (dict, OrderedDict, Counter):
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value
    elif not isinstance(target, Foreign):
        raise pickle.UnpicklingError(f"A {type(target).__name__} takes no items by name.")


# numpy's own functions are not called: the state of a dtype can make them read objects from raw bytes.


def _number(function: Foreign, arguments: Sequence[Any]) -> np.generic | None:
    """A numpy number, where the pickle makes one."""
    if not re.fullmatch(r"numpy\._?core\.multiarray\.scalar", function.name) or len(arguments) != 2:
        return None
    dtype, data = _number_type(arguments[0]), arguments[1]
    if dtype is None or type(data) is not bytes:
        return None
    number: np.generic = np.frombuffer(data, dtype, count=1)[0]
    return number


def _array(made: Foreign) -> np.ndarray | None:
    """A numpy array of numbers, where the pickle makes one."""
    if made.name != "numpy.ndarray" or type(made.state) is not tuple or len(made.state) != 5:
        return None
    _, shape, dtype_given, is_fortran, data = made.state
    dtype = _number_type(dtype_given)
    if dtype is None or type(data) is not bytes:
        return None
    return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C").copy(order="K")


def _number_type(value: Any) -> np.dtype | None:
    """The dtype of numbers that a stand-in describes by its code and byte order."""
    if not isinstance(value, Foreign) or value.name != "numpy.dtype" or type(value.state) is not tuple:
        return None
    code, order = next(iter(value.arguments), None), next(iter(value.state[1:2]), None)
    if type(code) is not str or not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "=", "|"):
        return None
    return np.dtype(code).newbyteorder(order)

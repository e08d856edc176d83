"""Tensors by name: read from files without running code, and loaded without leaving anything out."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from relo.errors import UserError, excerpt
from relo.inputs import require_regular
from relo.models.checkpoints import inert_pickle
from relo.models.checkpoints.inert_pickle import Foreign, ForeignCode, foreign_parts
from relo.yaml_traps import MOST_LEVELS, MOST_NODES

State = Mapping[str, Tensor]

NAMED_AT_MOST = 4
"""Tensors of one kind that an error spells out before it only counts them."""

_ZIP = b"PK\3\4"  # a zip's first bytes
_NAME_LETTERS = 120  # of a place and what is wrong with it: its end says most

_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
_NUMBERS = _FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def read_torch_file(path: Path) -> Any:
    """The contents of a file written by `torch.save`, on the CPU; no code of the file's is imported or run.

    Tensors and plain data are restored; for an object of any other class stands a `Foreign` that names it. What uses an
    entry makes sure that it is restored: `as_state`, `require_restored`.

    Raises:
        UserError: the file is missing, truncated or of another kind, or all of it is an object of another class.
    """
    try:
        require_regular(path)
        _require_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                contents = torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                # Not all is tensors and plain data. Sparse indices are checked, as torch's reader does by itself.
                with torch.sparse.check_sparse_tensor_invariants():
                    contents = torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert_pickle)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the checkpoint file in it.") from error
    except ForeignCode as error:
        raise UserError(
            f"{path} is refused: it is not a checkpoint of tensors, and reading it would run code of {error}."
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file can break torch's reader anywhere
        raise UserError(f"{path} is not a checkpoint of tensors, or is truncated; fetch it again.") from error
    if isinstance(contents, Foreign):
        require_restored(contents, str(path))
    return contents


def _require_stored(path: Path) -> None:
    """Refuse a zip whose entries are compressed, which may expand far; `torch.save` compresses nothing.

    Raises:
        UserError: an entry is compressed.
        zipfile.BadZipFile: it is a zip, but a damaged one.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP  # as torch sees it; other formats may hold one
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            compressed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        if compressed:
            raise UserError(
                f"{path} is refused: its {excerpt(compressed[0].filename)} is compressed, and may expand far."
            )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing, truncated or of another kind.
    """
    try:
        require_regular(path)
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except UserError:
        raise
    except Exception as error:  # a header that is made up can break safetensors, numpy or torch
        raise UserError(f"{path} is not a safetensors file, or is truncated ({error}).") from error


def read_state(path: Path, entries: Sequence[str]) -> State:
    """The tensors of a file of someone's weights: of safetensors, or written by `torch.save`.

    Args:
        path: the file.
        entries: names such as "model" under which the tensors may lie, also one under another.

    Raises:
        UserError: as of `read_torch_file`, `read_safetensors` and `as_state`.
    """
    contents = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    for entry in entries:
        if isinstance(contents, dict) and entry in contents:
            contents = contents[entry]
    return as_state(contents, str(path))


def require_restored(value: Any, source: str) -> None:
    """Refuse what holds objects that were not restored; `source` names it in the error.

    Raises:
        UserError: some objects were not restored; their places and classes are named.
    """
    found = [f"{place or 'it'} would run code of {name}" for place, name in foreign_parts(value)]
    if found:
        raise UserError(f"{source} is refused: reading {_listed(found)}.")


def require_settings(value: Any, source: str) -> None:
    """Refuse what is not settings, such as a network's config; `source` names it in the error.

    Raises:
        UserError: it holds something else than plain data, or stands for more than settings are: parts of a pickle may
            name one another again and again.
    """
    require_restored(value, source)
    waiting, count = [(value, 0)], 0
    while waiting:
        part, level = waiting.pop()
        count += 1
        if isinstance(part, dict) and all(isinstance(name, str) for name in part):
            waiting += [(inner, level + 1) for inner in part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += [(inner, level + 1) for inner in part]
        elif not isinstance(part, (str, int, float, NoneType)):
            raise UserError(f"{source} is refused: it holds a {type(part).__name__}, which is no setting.")
        if count + len(waiting) > MOST_NODES or level > MOST_LEVELS:
            raise UserError(f"{source} is refused: it stands for more values than settings are.")


def as_state(value: Any, source: str) -> State:
    """`value` as tensors by name, without the prefix that DistributedDataParallel gives to all of them.

    Args:
        value: an entry of a file.
        source: names it in the error.

    Raises:
        UserError: it is something else, or a tensor depends on an object that was not restored, or is not a plain array
            of real numbers.
    """
    require_restored(value, source)
    if (
        not isinstance(value, Mapping)
        or not value
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    ):
        raise UserError(f"{source} holds no tensors by name; is it a checkpoint of a network?")

    def is_plain_array(tensor: Tensor) -> bool:
        if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            return False
        # Strides of zero make a terabyte of a few bytes.
        is_stored = tensor.nbytes <= tensor.untyped_storage().nbytes()
        return is_stored and tensor.dtype in _NUMBERS

    if odd := [name for name, tensor in value.items() if not is_plain_array(tensor)]:
        raise UserError(
            f"{source} is refused: tensors must be plain arrays of real numbers, not sparse, quantized, complex, "
            f"repeated or the like: {_listed(odd)}."
        )
    while all(name.startswith("module.") for name in value):
        value = {name.removeprefix("module."): tensor for name, tensor in value.items()}
    return value


def misfit(expected: Mapping[str, torch.Size], state: State) -> str | None:
    """How a state differs from the expected names and shapes, the tensors named; None where it does not."""
    missing = [name for name in expected if name not in state]
    surplus = [name for name in state if name not in expected]
    reshaped = [
        f"{name} ({list(state[name].shape)} instead of {list(shape)})"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    found = (("missing", missing), ("surplus", surplus), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in found if names) or None


def require_fit(own: State, state: State, source: str) -> None:
    """Refuse a state that is not of the tensors `own`, whose shapes and types alone are read; `source` names it.

    Raises:
        UserError: tensors are missing, surplus or of another shape; they are named.
    """
    difference = misfit({name: tensor.shape for name, tensor in own.items()}, state)
    if difference is None:
        odd = [name for name in own if own[name].is_floating_point() != state[name].is_floating_point()]
        difference = f"{len(odd)} of whole numbers where others belong, or the reverse: {_listed(odd)}" if odd else None
    if difference is not None:
        raise UserError(f"{source} does not fit the network ({difference}).")


def load_state_strictly(module: nn.Module, state: State, source: str) -> None:
    """Load every tensor of a module; `source` names the state in the error.

    Raises:
        UserError: as of `require_fit`, or a tensor holds what is no number; the module is left as it was.
    """
    own = module.state_dict()
    require_fit(own, state, source)
    if broken := [name for name in own if not state[name].float().isfinite().all()]:
        raise UserError(f"{source} is broken: weights are not a number, or infinite: {_listed(broken)}.")
    module.load_state_dict(dict(state))


def _listed(names: list[str]) -> str:
    """Names from a file, as far as a sentence has room for them."""
    half = _NAME_LETTERS // 2
    shown = [n if len(n) <= _NAME_LETTERS else f"{n[:half]}...{n[-half:]}" for n in names[:NAMED_AT_MOST]]
    more = len(names) - NAMED_AT_MOST
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def state_hash(state: State) -> str:
    """A hash of all tensors and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

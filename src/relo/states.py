"""Tensors by name: read from files without running code, and loaded without leaving anything out."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relo.errors import UserError

State = Mapping[str, Tensor]

NAMED_AT_MOST = 4
"""Tensors of one kind that an error spells out before it only counts them."""


def read_torch_file(path: Path) -> Any:
    """The contents of a file written by `torch.save`, on the CPU; only tensors and plain data are accepted.

    Raises:
        UserError: the file is missing, truncated or of another kind, or holds objects that only code could restore.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the checkpoint file in it.") from error
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"{path} is refused: it holds objects that run code when they are read, not tensors alone."
            ) from error
        raise UserError(f"{path} is not a checkpoint of tensors, or is truncated; fetch it again.") from error
    # A damaged file can break torch's reader anywhere.
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a torch checkpoint, or is truncated; fetch it again.") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing, truncated or of another kind.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or is truncated ({error}).") from error


def as_state(value: Any, source: str) -> State:
    """`value` as tensors by name; `source` names it in the error.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise UserError(f"{source} holds no tensors by name; is it a checkpoint of a network?")
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


def load_state_strictly(module: nn.Module, state: State, source: str) -> None:
    """Load every tensor of a module; `source` names the state in the error.

    Raises:
        UserError: tensors are missing, surplus or of another shape; the module is left as it was.
    """
    difference = misfit({name: tensor.shape for name, tensor in module.state_dict().items()}, state)
    if difference is not None:
        raise UserError(f"{source} does not fit the network ({difference}).")
    module.load_state_dict(dict(state))


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")

"""Which devices can compute here, and with how many threads."""

import os
from contextlib import suppress

import torch

from relo.errors import UserError

_SMALL = 5_000_000  # parameters


def is_small(network: torch.nn.Module) -> bool:
    """Whether the operations of a network are so short that what lies between them counts."""
    count: int = sum(parameter.numel() for parameter in network.parameters())
    return count < _SMALL


def fit_threads(network: torch.nn.Module, targets: int = 1) -> None:
    """Let no more threads run a small network on the CPU than it tracks targets.

    Its operations are over before a sleeping thread is awake: for one target, one thread is nearly twice as fast as two
    that sleep, and other programs do not slow it. Nothing happens where the environment says how many threads there
    are.
    """
    is_given = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    if not is_given and is_small(network):
        torch.set_num_threads(min(max(targets, 1), torch.get_num_threads()))


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of a name such as "cpu", "cuda" or "cuda:1"; where None, the GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device here; the message names those that there are.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    accelerators = _accelerators()
    with suppress(RuntimeError):  # torch does not know the word
        device = torch.device(name)
        if f"{device.type}:{device.index or 0}" in ("cpu:0", *accelerators):
            return device
    raise UserError(f"There is no device {str(name)!r} here; give {' or '.join([*accelerators, 'cpu'])}.")


def _accelerators() -> list[str]:
    """The names of all GPUs, or accelerators of another kind, such as "cuda:0"."""
    count = torch.accelerator.device_count()
    kind = torch.accelerator.current_accelerator() if count else None
    return [] if kind is None else [f"{kind.type}:{index}" for index in range(count)]

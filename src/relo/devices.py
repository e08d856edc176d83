"""Which devices can compute here."""

from contextlib import suppress

import torch

from relo.errors import UserError


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

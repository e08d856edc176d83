"""What a checkpoint must hold for a fit to go on from it: held against the trainer before Lightning takes it up."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from lightning import Trainer

from relo.errors import UserError, excerpt

_ENTRIES = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}


def require_resumable(checkpoint: Mapping[str, Any], trainer: Trainer, source: str) -> None:
    """Refuse a checkpoint whose states of the loops and optimizers are of other types than a fit's.

    Raises:
        UserError: one is; its place is named.
    """
    for name, kind in _ENTRIES.items():
        if not isinstance(checkpoint.get(name), kind):
            raise _refusal(name, checkpoint.get(name), source)
    _require_same_types(trainer.fit_loop.state_dict(), checkpoint["loops"].get("fit_loop"), "loops/fit_loop", source)
    for number, state in enumerate(checkpoint["optimizer_states"]):
        place = f"optimizer_states/{number}"
        if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
            raise _refusal(place, state, source)
        _require_optimizer(state["state"], state["param_groups"], place, source)


def _require_same_types(expected: Mapping[str, Any], found: Any, place: str, source: str) -> None:
    """Of what both have: checkpoints of other versions of Lightning have more or less, which it knows of."""
    if not isinstance(found, dict):
        raise _refusal(place, found, source)
    for name in expected.keys() & found.keys():
        inner = f"{place}/{name}"
        if isinstance(expected[name], dict):
            _require_same_types(expected[name], found[name], inner, source)
        elif expected[name] is not None and type(found[name]) is not type(expected[name]):
            raise _refusal(inner, found[name], source)


def _require_optimizer(state: Any, groups: Any, place: str, source: str) -> None:
    """Tensors of one shape for each parameter, and numbers for each group of them."""
    if not isinstance(state, dict) or not all(isinstance(values, dict) for values in state.values()):
        raise _refusal(f"{place}/state", state, source)
    for key, values in state.items():
        shape = None
        for name, value in values.items():
            inner = f"{place}/state/{key}/{name}"
            is_number = name == "step" and type(value) is not bool and isinstance(value, Real)
            is_left_out = value is None and name != "step"
            if not isinstance(value, torch.Tensor) and not is_number and not is_left_out:
                raise _refusal(inner, value, source)
            if name != "step" and isinstance(value, torch.Tensor) and value.dim():
                if value.shape != (shape or value.shape):
                    raise _refusal(inner, list(value.shape), source)
                shape = value.shape
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise _refusal(f"{place}/param_groups", groups, source)
    for number, group in enumerate(groups):
        for name, value in group.items():
            items = value if isinstance(value, (list, tuple)) else [value]
            if name != "name" and not all(item is None or isinstance(item, (Real, torch.Tensor)) for item in items):
                raise _refusal(f"{place}/param_groups/{number}/{name}", value, source)
        members = group.get("params")
        kept = [key for key in members if state.get(key)] if isinstance(members, list) else []
        for key in kept:  # what one of a group has, all have
            if state[key].keys() != state[kept[0]].keys():
                raise _refusal(f"{place}/state/{key}", sorted(map(str, state[key])), source)


def _refusal(place: str, found: Any, source: str) -> UserError:
    return UserError(f"{source} cannot be resumed: its entry {place} is {excerpt(found)}; take an earlier checkpoint.")

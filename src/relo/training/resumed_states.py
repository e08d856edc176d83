"""What a checkpoint must hold for a fit to go on from it: held against the trainer before Lightning takes it up."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from relo.errors import UserError, excerpt
from relo.models.checkpoints.states import misfit

_ENTRIES = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}

_MOMENTS = frozenset(
    ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta")
)
"""What torch's optimizers keep of a parameter, in its shape."""

_TEXTS = ("name", "line_search_fn", "adjust_lr_fn")
"""What is a word in torch's groups of parameters."""


def require_resumable(checkpoint: Mapping[str, Any], trainer: Trainer, source: str) -> None:
    """Refuse a checkpoint whose states of the loops and optimizers are of other types than a fit's.

    Raises:
        UserError: a state is of another type; its place is named.
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


def require_same_stage(
    checkpoint: Mapping[str, Any],
    state: Mapping[str, Tensor],
    parameters: Sequence[Sequence[Tensor]] | None,
    source: str,
) -> None:
    """Refuse a checkpoint of another network or stage.

    Args:
        checkpoint: as it was read.
        state: the module's tensors, by name.
        parameters: what a fit trains at each rate; None is a validation, which takes the weights of any stage.
        source: the checkpoint's name in errors.

    Raises:
        UserError: tensors are missing, surplus or of another shape; or the checkpoint's run trained other parts.
    """
    difference = misfit({name: tensor.shape for name, tensor in state.items()}, checkpoint["state_dict"])
    if difference is not None:
        raise UserError(f"{source} is a checkpoint of another network than model.network ({difference}).")
    if parameters is None or not checkpoint.get("optimizer_states"):
        return
    trained = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
    if trained != [len(group) for group in parameters if group]:
        raise UserError(
            f"{source} is of another stage, in which other parts are trained, or at other rates: to start this "
            "stage from its weights, use --model.init_from instead of --ckpt_path."
        )


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
    """Numbers for each parameter and each group of them, and moments of the parameter's shape, or lists of numbers.

    What else optimizers keep has shapes of its own, and differs between matrices and vectors, as Adafactor's.
    """
    if not isinstance(state, dict) or not all(isinstance(values, dict) for values in state.values()):
        raise _refusal(f"{place}/state", state, source)
    for key, values in state.items():
        shape = None
        for name, value in values.items():
            inner = f"{place}/state/{key}/{name}"
            if name == "step":
                is_fit = isinstance(value, (Real, torch.Tensor)) and not isinstance(value, bool)
            else:
                is_fit = value is None or isinstance(value, torch.Tensor) if name in _MOMENTS else _is_numeric(value)
            if not is_fit:
                raise _refusal(inner, value, source)
            if name in _MOMENTS and value is not None and value.dim():
                if value.shape != (shape or value.shape):
                    raise _refusal(inner, list(value.shape), source)
                shape = value.shape
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise _refusal(f"{place}/param_groups", groups, source)
    for number, group in enumerate(groups):
        for name, value in group.items():
            if not _is_numeric(value) and not (name in _TEXTS and isinstance(value, str)):
                raise _refusal(f"{place}/param_groups/{number}/{name}", value, source)
        members = group.get("params")
        kept = [key for key in members if state.get(key)] if isinstance(members, list) else []
        kinds = {frozenset(state[key]) for key in kept}
        for key in kept:  # a moment that another has is there, or something in its place
            found = state[key].keys()
            if any(found < kind and (kind - found) & {*_MOMENTS, "step"} for kind in kinds):
                raise _refusal(f"{place}/state/{key}", sorted(map(str, found)), source)


def _is_numeric(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(item is None or isinstance(item, (Real, torch.Tensor)) for item in items)


def _refusal(place: str, found: Any, source: str) -> UserError:
    return UserError(f"{source} cannot be resumed: its entry {place} is {excerpt(found)}; take an earlier checkpoint.")

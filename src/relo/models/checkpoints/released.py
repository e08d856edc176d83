"""The public release (`xche32/RELO`): its variants, what it calls their tensors, and its checkpoints read.

A variant is one file: the network, how it tracks, and what benchmarks change.
"""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml  # type: ignore[import-untyped]

from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.states import State, as_state, load_state_strictly, misfit, read_torch_file
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.fast_itpn_names import renamed, to_published_shape
from relo.models.network import LocalizationNetwork

Variant = Literal["t256", "b256", "l256"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

FOLDER = files("relo.models") / "released"

_NAMES = {
    "propagator.learned_tokens": "encoder.body.ttokens",
    "propagator.position": "encoder.body.pos_embed_ttoken",
    "encoder.types.search": "encoder.body.search_token",
    "encoder.types.foreground": "encoder.body.template_foreground_token",
    "encoder.types.background": "encoder.body.template_background_token",
    "critic.value": "value_model.fc_val",
}

_TOWERS = {
    "policy.tower": ("policy_model", "ctr"),
    "critic.convolutions": ("value_model", "val"),
    "box.offset": ("decoder", "offset"),
    "box.size": ("decoder", "size"),
    "prior.tower": ("decoder", "ctr"),
}

# A warm-up checkpoint has none of these: they start fresh in the RL stage.
_RL_HEADS = ("policy_model.", "value_model.")


def read_variant(variant: str) -> dict[str, Any]:
    """The file of a variant.

    Returns:
        `network`: its class_path and init_args; `tracking`: settings of a `TrackingRule`; `benchmarks`: what differs
        from those, by benchmark.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UserError(f"There is no variant {variant!r}; the release has {', '.join(VARIANTS)}.")
    contents: dict[str, Any] = yaml.safe_load((FOLDER / f"{variant}.yaml").read_text())
    return contents


def released_rule(variant: str) -> dict[str, Any]:
    """A variant's tracking settings, with those of benchmarks under `benchmarks`: a file of tracking settings.

    Raises:
        UserError: there is no such variant.
    """
    contents = read_variant(variant)
    return {**contents["tracking"], "benchmarks": contents["benchmarks"]}


def resolve_reference(contents: Any) -> Any:
    """Settings as read from YAML; for `released_network: b256` or `released_rule: b256` alone, those of the variant.

    Raises:
        UserError: there is no such variant.
    """
    if isinstance(contents, dict) and len(contents) == 1:
        for key, part in (("released_network", "network"), ("released_rule", "tracking")):
            if key in contents:
                return read_variant(contents[key])[part]
    return contents


def released_network(variant: Variant) -> LocalizationNetwork:
    """The network of a released variant, with fresh weights.

    Raises:
        UserError: there is no such variant.
    """
    network = build(read_variant(variant)["network"])
    assert isinstance(network, LocalizationNetwork)
    return network


def released_names(network: LocalizationNetwork) -> dict[str, str]:
    """Our name of every tensor in the network's state -> its released name.

    Raises:
        TypeError: the network's encoder is not Fast-iTPN.
        KeyError: a tensor that no released network has.
    """
    encoder = network.encoder
    if not isinstance(encoder, FastITPN):
        raise TypeError(f"the release has Fast-iTPN encoders only, not {type(encoder).__name__}")
    of_encoder = {f"encoder.{own}": f"encoder.body.{name}" for own, name in encoder.published_names().items()}
    return {own: of_encoder.get(own) or _released_name(own) for own in network.state_dict()}


def read_released(path: Path, variant: Variant) -> tuple[LocalizationNetwork, dict[str, Any]]:
    """The network of a checkpoint of the public release, and its tracking settings as of `released_rule`.

    A warm-up checkpoint has no policy and no critic: theirs are fresh, seeded weights, and it localizes by the prior.

    Raises:
        UserError: the file is broken or another program's, or its tensors are not the variant's; they are named.
    """
    contents = read_torch_file(path)
    if not isinstance(contents, dict) or "net" not in contents:
        raise UserError(f"{path} is not a checkpoint of the release: it has no entry 'net'.")
    state = as_state(contents["net"], f"Entry 'net' of {path}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = released_network(variant)
    is_warmup = not any(name.startswith(_RL_HEADS) for name in state)
    if (difference := misfit(_released_shapes(network, is_warmup), state)) is not None:
        if (other := _fitting_variant(state, is_warmup)) is not None:
            raise UserError(f"{path} holds {other}, not {variant}: import it as {other}.")
        raise UserError(f"{path} does not hold {variant}: {difference}.")
    own = network.state_dict()
    names = released_names(network).items()
    own |= {name: state[released].reshape(own[name].shape) for name, released in names if released in state}
    load_state_strictly(network, own, str(path))
    return network, released_rule(variant) | ({"localization": "prior"} if is_warmup else {})


def _released_name(name: str) -> str:
    if layer := re.fullmatch(r"(.+?)\.(\d)\.(.+)", name):
        module, suffix = _TOWERS[layer[1]]
        return f"{module}.conv{int(layer[2]) + 1}_{suffix}.{layer[3]}"
    return renamed(name, _NAMES)


def _released_shapes(network: LocalizationNetwork, is_warmup: bool) -> dict[str, torch.Size]:
    own = network.state_dict()
    return {
        released: to_published_shape(name, own[name]).shape
        for name, released in released_names(network).items()
        if not (is_warmup and released.startswith(_RL_HEADS))
    }


def _fitting_variant(state: State, is_warmup: bool) -> Variant | None:
    """The variant whose tensors a state holds, if it is one."""
    for variant in VARIANTS:
        with torch.device("meta"):
            network = released_network(variant)
        if misfit(_released_shapes(network, is_warmup), state) is None:
            return variant
    return None

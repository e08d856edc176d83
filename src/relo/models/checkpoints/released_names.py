"""The names that the public release (`xche32/RELO`) gives to the tensors of our networks."""

import re

from torch import Tensor

from relo.models.encoders.fast_itpn import FastITPN
from relo.models.network import LocalizationNetwork

_TOKENS = {
    "propagator.learned_tokens": "encoder.body.ttokens",
    "propagator.position": "encoder.body.pos_embed_ttoken",
    "encoder.position": "encoder.body.pos_embed",
    "encoder.types.search": "encoder.body.search_token",
    "encoder.types.foreground": "encoder.body.template_foreground_token",
    "encoder.types.background": "encoder.body.template_background_token",
}

_ENCODER_PARTS = {"encoder.patch_embed": "encoder.body.patch_embed.proj", "encoder.norm": "encoder.body.fc_norm"}

_STEM_BLOCK = {"norm": "norm2", "mlp.fc1": "mlp.fc1", "mlp.norm": "mlp.ffn_ln", "mlp.fc2": "mlp.fc2"}

_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.query.weight": "attn.q_proj.weight",
    "attention.query.bias": "attn.q_bias",
    "attention.key.weight": "attn.k_proj.weight",
    "attention.value.weight": "attn.v_proj.weight",
    "attention.value.bias": "attn.v_bias",
    "attention.project.weight": "attn.proj.weight",
    "attention.project.bias": "attn.proj.bias",
    "scale1.gamma": "gamma_1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1_g.weight": "mlp.w1.weight",
    "mlp.fc1_g.bias": "mlp.w1.bias",
    "mlp.fc1_x.weight": "mlp.w2.weight",
    "mlp.fc1_x.bias": "mlp.w2.bias",
    "mlp.norm.weight": "mlp.ffn_ln.weight",
    "mlp.norm.bias": "mlp.ffn_ln.bias",
    "mlp.fc2.weight": "mlp.w3.weight",
    "mlp.fc2.bias": "mlp.w3.bias",
    "scale2.gamma": "gamma_2",
}

_TOWERS = {
    "policy.tower": ("policy_model", "ctr"),
    "critic.convolutions": ("value_model", "val"),
    "box.offset": ("decoder", "offset"),
    "box.size": ("decoder", "size"),
    "prior.tower": ("decoder", "ctr"),
}


def released_name(name: str, stage1: int, stage2: int) -> str:
    """The released name of our tensor `name`, in a network whose stem has `stage1` and `stage2` blocks.

    Raises:
        KeyError: the release has no such tensor.
    """
    if name in _TOKENS:
        return _TOKENS[name]
    part, _, leaf = name.rpartition(".")
    if part in _ENCODER_PARTS:
        return f"{_ENCODER_PARTS[part]}.{leaf}"
    if part == "critic.value":
        return f"value_model.fc_val.{leaf}"
    # The release counts stem blocks, merges and main blocks in one list.
    if match := re.fullmatch(r"encoder\.(stage1|stage2|blocks)\.(\d+)\.(.+)", name):
        stage, index, rest = match[1], int(match[2]), match[3]
        first = {"stage1": 0, "stage2": stage1 + 1, "blocks": stage1 + stage2 + 2}[stage]
        if stage != "blocks":
            inner, _, leaf = rest.rpartition(".")
            rest = f"{_STEM_BLOCK[inner]}.{leaf}"
        else:
            rest = _BLOCK[rest]
        return f"encoder.body.blocks.{first + index}.{rest}"
    if match := re.fullmatch(r"encoder\.merge([12])\.(.+)", name):
        index = stage1 if match[1] == "1" else stage1 + 1 + stage2
        return f"encoder.body.blocks.{index}.{match[2]}"
    if match := re.fullmatch(r"(.+?)\.(\d)\.(.+)", name):
        module, suffix = _TOWERS[match[1]]
        return f"{module}.conv{int(match[2]) + 1}_{suffix}.{match[3]}"
    raise KeyError(name)


def released_names(network: LocalizationNetwork) -> dict[str, str]:
    """Our name of every tensor in the network's state -> its released name.

    Raises:
        TypeError: the network's encoder is not Fast-iTPN.
        KeyError: a tensor that no released network has.
    """
    encoder = network.encoder
    if not isinstance(encoder, FastITPN):
        raise TypeError(f"the release has Fast-iTPN encoders only, not {type(encoder).__name__}")
    return {name: released_name(name, len(encoder.stage1), len(encoder.stage2)) for name in network.state_dict()}


def to_released_shape(name: str, tensor: Tensor) -> Tensor:
    """Our tensor in the shape it has in the release, where the stem's pointwise layers are 1 x 1 convolutions."""
    is_pointwise = re.fullmatch(r"encoder\.stage[12]\.\d+\.mlp\.fc[12]\.weight", name)
    return tensor[:, :, None, None] if is_pointwise else tensor

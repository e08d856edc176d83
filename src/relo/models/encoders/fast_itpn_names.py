"""What Fast-iTPN's authors, and the public release of RELO after them, call the tensors of our `FastITPN`."""

import re
from collections.abc import Mapping

from torch import Tensor

_ENCODER = {"position": "pos_embed", "patch_embed": "patch_embed.proj", "norm": "fc_norm"}

_STEM_BLOCK = {"norm": "norm2", "mlp.fc1": "mlp.fc1", "mlp.norm": "mlp.ffn_ln", "mlp.fc2": "mlp.fc2"}

_BLOCK = {
    "norm1": "norm1",
    "attention.query.weight": "attn.q_proj.weight",
    "attention.query.bias": "attn.q_bias",
    "attention.key": "attn.k_proj",
    "attention.value.weight": "attn.v_proj.weight",
    "attention.value.bias": "attn.v_bias",
    "attention.project": "attn.proj",
    "scale1.gamma": "gamma_1",
    "norm2": "norm2",
    "mlp.fc1_g": "mlp.w1",
    "mlp.fc1_x": "mlp.w2",
    "mlp.norm": "mlp.ffn_ln",
    "mlp.fc2": "mlp.w3",
    "scale2.gamma": "gamma_2",
}


def published_name(name: str, stage1: int, stage2: int) -> str:
    """The published name of our tensor `name`, in an encoder whose stem has `stage1` and `stage2` blocks.

    Raises:
        KeyError: Fast-iTPN has no such tensor.
    """
    # Stem blocks, merges and main blocks are counted in one list.
    first = {
        "stage1": 0,
        "merge1": stage1,
        "stage2": stage1 + 1,
        "merge2": stage1 + stage2 + 1,
        "blocks": stage1 + stage2 + 2,
    }
    stage, _, rest = name.partition(".")
    if stage not in first:
        return renamed(name, _ENCODER)
    if stage in ("merge1", "merge2"):
        return f"blocks.{first[stage]}.{rest}"
    index, _, rest = rest.partition(".")
    return f"blocks.{first[stage] + int(index)}.{renamed(rest, _BLOCK if stage == 'blocks' else _STEM_BLOCK)}"


def renamed(name: str, names: Mapping[str, str]) -> str:
    """The other name of a tensor, by an entry of its own or that of the module that it belongs to.

    Raises:
        KeyError: there is neither.
    """
    if name in names:
        return names[name]
    module, _, leaf = name.rpartition(".")
    return f"{names[module]}.{leaf}"


def to_published_shape(name: str, tensor: Tensor) -> Tensor:
    """Our tensor in its published shape: there, the stem's pointwise layers are 1 x 1 convolutions."""
    is_pointwise = re.search(r"\bstage[12]\.\d+\.mlp\.fc[12]\.weight$", name)
    return tensor[:, :, None, None] if is_pointwise else tensor

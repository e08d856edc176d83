"""Fast-iTPN's attention and MLPs with fewer and larger steps, for networks that nobody trains any more.

Each is made of a trained layer and computes what that computes, but for rounding. A GPU that tracks one target waits
for the number of steps, not for their size; one that tracks many, for the memory that passes between them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp, SwiGLU
from torch import Tensor, nn

from relo.models.encoders.fast_itpn import Attention


class FusedAttention(nn.Module):
    """`Attention` with one product for query, key and value; it runs in its weights' precision."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.query_key_value = _side_by_side(attention.query, attention.key, attention.value)
        self.project = attention.project

    def forward(self, tokens: Tensor, outputs: int) -> Tensor:
        """Tokens [B, L, C] -> what the first `outputs` of them gather from all [B, outputs, C]."""
        projected = self.query_key_value(tokens.to(self.project.weight.dtype))
        query, key, value = rearrange(projected, "b l (n h c) -> n b h l c", n=3, h=self.heads)
        gathered = F.scaled_dot_product_attention(query[:, :, :outputs], key, value)
        return self.project(rearrange(gathered, "b h l c -> b l (h c)"))


class FusedMlp(nn.Module):
    """`Mlp` or `SwiGLU` with a normalisation of its hidden channels; it runs in its weights' precision.

    Gate and value are one product, and the normalisation's scale and shift lie in the product behind it.
    """

    def __init__(self, mlp: Mlp | SwiGLU) -> None:
        super().__init__()
        self.gated = isinstance(mlp, SwiGLU)
        self.inward = _side_by_side(mlp.fc1_g, mlp.fc1_x) if isinstance(mlp, SwiGLU) else mlp.fc1
        self.activation = mlp.act
        norm, after = mlp.norm, mlp.fc2
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(after, nn.Linear)
        self.epsilon = norm.eps
        self.outward = nn.Linear(after.in_features, after.out_features).to(after.weight)
        with torch.no_grad():
            self.outward.weight.copy_(after.weight * norm.weight)
            self.outward.bias.copy_(after.bias + after.weight @ norm.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        hidden = self.inward(tokens.to(self.inward.weight.dtype))
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * hidden
        else:
            hidden = self.activation(hidden)
        # Statistics are float32 in any precision; autocast would write all the hidden channels in float32.
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=self.epsilon)
        return self.outward(hidden)


def _side_by_side(*layers: nn.Linear) -> nn.Linear:
    """One linear layer whose outputs are those of all the layers; layers without a bias get zeros."""
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers)).to(layers[0].weight)
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [
        torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in layers
    ]
    with torch.no_grad():
        joined.weight.copy_(torch.cat(weights))
        joined.bias.copy_(torch.cat(biases))
    return joined

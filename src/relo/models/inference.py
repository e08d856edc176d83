"""Make a trained network faster where nobody trains it any more."""

import copy
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import BatchNormAct2d, LayerScale, Mlp, SwiGLU
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from relo.errors import UserError, excerpt
from relo.models.encoders.fast_itpn import Attention, Block, StemBlock
from relo.models.encoders.timm_cnn import TimmCNN
from relo.models.network import LocalizationNetwork

Precision = Literal["float32", "bfloat16", "float16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]

WORTHWHILE = 1.5
"""Reduced precision is taken where it makes a matrix product at least so many times as fast."""

TRIALS = 25


def check_precision(precision: str) -> None:
    """Refuse what is no precision of a network's layers.

    Raises:
        UserError: there is no such precision.
    """
    if precision not in get_args(Precision):
        raise UserError(f"There is no precision {excerpt(precision)}; give {', '.join(get_args(Precision))}.")


def optimize_for_inference(network: LocalizationNetwork, precision: Precision = "float32") -> LocalizationNetwork:
    """A copy of a network that computes the same with less work.

    BatchNorm is folded into the convolution before it, and layer scale into the projection before it; products of the
    same tokens become one. In reduced precision the weights of convolutions and linear layers are stored reduced, so
    that autocast has none to convert on each frame; tokens and normalisations stay float32, but for those of an MLP's
    hidden channels, and so does the last convolution of each head's tower: rounded, logits of neighbouring cells would
    tie and boxes would move by half a pixel.

    Args:
        network: the network; left as it is.
        precision: of products. Other than float32, the result must run under `torch.autocast` of this precision.

    Raises:
        UserError: there is no such precision.

    Returns:
        The copy, in evaluation mode and without gradients. It is for running, not for saving: its tensors are no longer
        those that its config describes. In float32 its outputs are the network's but for rounding.
    """
    check_precision(precision)
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(network.encoder, TimmCNN):
        network.encoder.stem = _folded_stem(network.encoder)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
        elif isinstance(module, Block):
            _fuse_block(module)
        elif isinstance(module, StemBlock) and isinstance(module.mlp, Mlp):
            module.mlp = FusedMlp(module.mlp)
    for head in (network.policy, network.box, network.prior):
        for tower in head.modules() if head is not None else ():
            if isinstance(tower, nn.Sequential) and isinstance(tower[-1], nn.Conv2d):
                tower[-1] = _InFloat32(tower[-1])
    exact = {module.layer for module in network.modules() if isinstance(module, _InFloat32)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in exact:
            module.to(getattr(torch, precision))
    return network.requires_grad_(False)


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each BatchNorm among the children of a module into the convolution that stands before it."""
    for (name, convolution), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if convolution.out_channels == norm.num_features:
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
            setattr(module, norm_name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


@torch.no_grad()
def _folded_stem(encoder: TimmCNN) -> nn.Module:
    """The stem with its BatchNorms folded, if that leaves it the same."""
    stem = copy.deepcopy(encoder.stem)
    for module in list(stem.modules()):
        _fold_batch_norms(module)
    # timm says which parts a network has, but not in which order they run.
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(next(stem.parameters()))
    try:
        pairs = list(zip(stem(image), encoder.stem(image), strict=True))
    except RuntimeError:
        return encoder.stem
    return stem if all(torch.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in pairs) else encoder.stem


def _fuse_block(block: Block) -> None:
    attention, mlp = block.attention, block.mlp
    if not (isinstance(attention, Attention) and isinstance(mlp, SwiGLU)):
        return  # done already
    for scale, projection in ((block.scale1, attention.project), (block.scale2, mlp.fc2)):
        if isinstance(scale, LayerScale):
            projection.weight.mul_(scale.gamma[:, None])
            projection.bias.mul_(scale.gamma)
    block.scale1, block.attention = nn.Identity(), FusedAttention(attention)
    block.scale2, block.mlp = nn.Identity(), FusedMlp(mlp)


class FusedAttention(nn.Module):
    """Fast-iTPN's attention with one product for query, key and value; it runs in its weights' precision."""

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
    with torch.no_grad():
        joined.weight.copy_(torch.cat([layer.weight for layer in layers]))
        joined.bias.zero_()
        for bias, layer in zip(joined.bias.split([len(layer.weight) for layer in layers]), layers, strict=True):
            if layer.bias is not None:
                bias.copy_(layer.bias)
    return joined


class _InFloat32(nn.Module):
    """A layer that autocast leaves alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            output: Tensor = self.layer(values.float())
        return output


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute in a precision: reduced ones under autocast, and float32 as float32.

    Whatever the process allows elsewhere, products and convolutions of float32 tensors are not rounded to TF32 (or to
    bfloat16, on CPUs): cuDNN would do so by default, and boxes would move.
    """
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        reduced = precision != "float32"
        with torch.autocast(device.type, getattr(torch, precision) if reduced else None, enabled=reduced):
            yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def fastest_precision(device: torch.device | str = "cpu") -> Precision:
    """bfloat16 where a short trial shows the device to compute clearly faster in it, else float32."""
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    # In turn, and the shortest of many: other work on the machine comes in bursts.
    for _ in range(TRIALS):
        for dtype, shortest in seconds.items():
            seconds[dtype] = min(shortest, _product_seconds(dtype, torch.device(device)))
    return "bfloat16" if seconds[torch.float32] >= WORTHWHILE * seconds[torch.bfloat16] else "float32"


def _product_seconds(dtype: torch.dtype, device: torch.device) -> float:
    """The time of a product of the size that networks have."""
    # A GPU is done with one frame's tokens before the next product is launched: there, as many as a batch has.
    tokens = torch.ones(448 if device.type == "cpu" else 64 * 448, 512, dtype=dtype, device=device)
    weight = torch.ones(1536, 512, dtype=dtype, device=device)

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    wait()
    start = time.perf_counter()
    F.linear(tokens, weight)
    wait()
    return time.perf_counter() - start

"""Fast-iTPN (Tian et al., TPAMI 2024) as a one-stream encoder: a stem without attention, then joint attention."""

import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, LayerNorm, LayerScale, Mlp, SwiGLU, trunc_normal_
from torch import Tensor, nn

from relo.errors import UserError
from relo.geometry import xywh_to_xyxy, xyxy_to_xywh
from relo.models.checkpoints.states import load_state_strictly, misfit, read_state
from relo.models.encoders.base import Encoder, Templates
from relo.models.encoders.fast_itpn_names import published_name, to_published_shape
from relo.models.encoders.layers import TokenTypes, check_blocks, check_sizes
from relo.settings import LARGEST_DEPTH, check_number, check_whole

logger = logging.getLogger(__name__)

PATCH = 4
"""Stride of the first convolution; the stem's two merges halve the grid twice more."""

TOKEN_STRIDE = 16


class StemBlock(nn.Module):
    """x + MLP(LN(x)) at every position of a grid [B, H, W, C]; no attention, no layer scale."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.mlp: nn.Module = Mlp(width, int(width * mlp_ratio), norm_layer=LayerNorm)
        self.drop_path = DropPath(drop_path)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, H, W, C] -> the same shape."""
        return grid + self.drop_path(self.mlp(self.norm(grid)))


class Merge(nn.Module):
    """Halve a grid [B, H, W, C]: layer normalisation, then a 2 x 2 convolution of stride 2."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.reduction = nn.Conv2d(width, out_width, kernel_size=2, stride=2)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H / 2, W / 2, out_width]."""
        # The permuted view is what torch calls channels-last: the convolution takes it as it lies in memory.
        return self.reduction(self.norm(grid).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head attention with separate projections and no bias on the keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor, outputs: int) -> Tensor:
        """Tokens [B, L, C] -> what the first `outputs` of them gather from all [B, outputs, C]."""
        query, key, value = (
            rearrange(projected, "b l (h c) -> b h l c", h=self.heads)
            for projected in (self.query(tokens[:, :outputs]), self.key(tokens), self.value(tokens))
        )
        return self.project(rearrange(F.scaled_dot_product_attention(query, key, value), "b h l c -> b l (h c)"))


class Block(nn.Module):
    """Attention and a SwiGLU MLP, each after a layer normalisation, scaled by channel and added to its input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attention: nn.Module = Attention(width, heads)
        self.scale1: nn.Module = LayerScale(width, layer_scale)
        self.norm2 = LayerNorm(width)
        self.mlp: nn.Module = SwiGLU(width, int(width * mlp_ratio), norm_layer=LayerNorm)
        self.scale2: nn.Module = LayerScale(width, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, outputs: int) -> Tensor:
        """Tokens [B, L, C] -> the first `outputs` of them after the block [B, outputs, C]."""
        gathered = self.attention(self.norm1(tokens), outputs)
        tokens = tokens[:, :outputs] + self.drop_path(self.scale1(gathered))
        return tokens + self.drop_path(self.scale2(self.mlp(self.norm2(tokens))))


class FastITPN(Encoder):
    """Fast-iTPN tiny, base or large: search, template and temporal tokens of stride 16 in joint attention.

    | | width | depth | heads | stage1 | stage2 |
    |---|---|---|---|---|---|
    | tiny | 384 | 12 | 6 | 1 | 1 |
    | base | 512 | 24 | 8 | 3 | 3 |
    | large | 768 | 40 | 12 | 2 | 2 |
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        stage1: int,
        stage2: int,
        search_size: int = 256,
        template_size: int = 128,
        mlp_ratio: float = 3.0,
        layer_scale: float = 0.1,
        drop_path: float = 0.1,
        pretrained: str | None = None,
    ) -> None:
        """Build the encoder.

        Args:
            width: channels of a token.
            depth: blocks with attention.
            heads: attention heads of a block.
            stage1: stem blocks at stride 4, of width / 4 channels.
            stage2: stem blocks at stride 8, of width / 2 channels.
            search_size: side of the search crop, in pixels.
            template_size: side of a template crop, in pixels.
            mlp_ratio: hidden channels of every MLP, as a multiple of its width.
            layer_scale: initial value of the layer scales.
            drop_path: stochastic depth of the last block; it grows linearly from 0 over stem and main blocks.
            pretrained: a pretraining file (`fast_itpn_*.pt`) to start from.

        Raises:
            UserError: a size or width that does not divide; a pretraining file that does not fit.
        """
        super().__init__()
        check_sizes(TOKEN_STRIDE, search_size, template_size)
        check_blocks(width, depth, heads)
        check_whole("The encoder", 0, LARGEST_DEPTH, stage1=stage1, stage2=stage2)
        check_number("The encoder", 0, 1, drop_path=drop_path)
        check_number("The encoder", 0.01, 64, mlp_ratio=mlp_ratio)
        if width % 4:
            raise UserError(f"Fast-iTPN's width {width} must be a multiple of 4.")
        self.width, self.depth, self.channels = width, depth, width
        self.search_size, self.template_size = search_size, template_size
        self.map_size = search_size // TOKEN_STRIDE
        self.template_cells = template_size // TOKEN_STRIDE
        rates = torch.linspace(0, drop_path, stage1 + stage2 + depth, device="cpu").tolist()

        def stem_blocks(channels: int, stage_rates: list[float]) -> nn.Sequential:
            return nn.Sequential(*(StemBlock(channels, mlp_ratio, rate) for rate in stage_rates))

        self.patch_embed = nn.Conv2d(3, width // 4, kernel_size=PATCH, stride=PATCH)
        self.stage1 = stem_blocks(width // 4, rates[:stage1])
        self.merge1 = Merge(width // 4, width // 2)
        self.stage2 = stem_blocks(width // 2, rates[stage1 : stage1 + stage2])
        self.merge2 = Merge(width // 2, width)
        # Rows of the search grid, then rows of the template grid.
        self.position = nn.Parameter(torch.zeros(1, self.map_size**2 + self.template_cells**2, width))
        self.types = TokenTypes(width)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, layer_scale, rate) for rate in rates[stage1 + stage2 :]
        )
        self.norm = LayerNorm(width)
        trunc_normal_(self.position, std=0.02)
        self.apply(_initialise)
        if pretrained is not None:
            unused = load_pretraining(self, Path(pretrained))
            level = logging.WARNING if unused else logging.INFO
            logger.log(level, "%s: %d tensors not used: %s", pretrained, len(unused), ", ".join(unused) or "none")

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz], boxes [B, N, 4] (shares of the crop's side) -> tokens [B, N * cells, width]."""
        tokens = self.stem(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # [B, N, cells, width]
        # The released networks count a pixel where its upper left corner lies inside the box.
        snapped_xyxy = (xywh_to_xyxy(boxes_xywh) * self.template_size).ceil() / self.template_size
        types = self.types.of_templates(xyxy_to_xywh(snapped_xyxy), self.template_cells, tokens.dtype)
        return Templates((tokens + self.position[:, self.map_size**2 :] + types).flatten(1, 2))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, S * S, width]; nothing bypasses the blocks."""
        return self.stem(images) + self.position[:, : self.map_size**2] + self.types.search, None

    def run_layer(self, index: int, tokens: Tensor, static: int, needed: int) -> Tensor:
        """Tokens [B, L, width] -> the first `needed` of them after main block `index` [B, needed, width]."""
        return self.blocks[index](tokens, needed)

    def stem(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> tokens of stride 16 [B, H / 16 * W / 16, width], row by row."""
        grid = self.patch_embed(images).permute(0, 2, 3, 1)  # [B, H / 4, W / 4, width / 4]
        grid = self.merge1(self.stage1(grid))  # [B, H / 8, W / 8, width / 2]
        grid = self.merge2(self.stage2(grid))  # [B, H / 16, W / 16, width]
        return grid.flatten(1, 2)

    def published_names(self) -> dict[str, str]:
        """Our name of every tensor but the token types -> its name in the files of Fast-iTPN, which have no types."""
        return {
            name: published_name(name, len(self.stage1), len(self.stage2))
            for name in self.state_dict()
            if not name.startswith("types.")
        }


def load_pretraining(encoder: FastITPN, path: Path) -> list[str]:
    """Load an encoder pretraining file of Fast-iTPN (`fast_itpn_*.pt`) into an encoder.

    Its state may lie under `module`, under `model` or at the top. Token types keep what they have, and so does the
    final normalisation where the file lacks it.

    Returns:
        The names in the file that were not used.

    Raises:
        UserError: the file is broken or another program's, or lacks tensors of the encoder; they are named.
    """
    state = dict(read_state(path, ("module", "model")))
    names = {
        own: name
        for own, name in encoder.published_names().items()
        if name in state or own not in ("norm.weight", "norm.bias")
    }
    if (positions := state.get("pos_embed")) is not None:
        grids = [_fit_positions(positions, cells) for cells in (encoder.map_size, encoder.template_cells)]
        state["pos_embed"] = torch.cat(grids, dim=1)
    weights = encoder.state_dict()
    shapes = {name: to_published_shape(own, weights[own]).shape for own, name in names.items()}
    if (difference := misfit(shapes, {name: state[name] for name in shapes if name in state})) is not None:
        raise UserError(f"{path} does not fit the encoder: {difference}.")
    weights |= {own: state[name].reshape(weights[own].shape) for own, name in names.items()}
    load_state_strictly(encoder, weights, str(path))
    return [name for name in state if name not in shapes]


def _fit_positions(positions: Tensor, cells: int) -> Tensor:
    """Learned positions of one square grid for another: its top left corner, or all of it widened bicubically.

    [1, n * n, width], rows first -> [1, cells * cells, width]. Widened, the corners keep their positions, as in the
    public release.

    Raises:
        UserError: the positions are not those of a square grid.
    """
    side = math.isqrt(positions.shape[1]) if positions.dim() == 3 else 0
    if not side or positions.shape[:2] != (1, side * side):
        raise UserError(f"Positions of shape {list(positions.shape)} do not form a square grid.")
    grid = rearrange(positions, "b (h w) c -> b c h w", h=side)
    if side < cells:
        grid = F.interpolate(grid, size=(cells, cells), mode="bicubic", align_corners=True)
    return rearrange(grid[:, :, :cells, :cells], "b c h w -> b (h w) c")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

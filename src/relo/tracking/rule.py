"""The rule by which a tracker turns a network's maps into boxes: every setting is visible here."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor

from relo.errors import EXCERPT, UserError, excerpt
from relo.files import read_yaml
from relo.geometry import CropRule
from relo.models.checkpoints.released import released_rule
from relo.models.checkpoints.weights import RULE_FILE, read_checkpoint, resolve
from relo.models.exported import TrackableNetwork, exported_metadata, is_onnx
from relo.models.heads import Localization
from relo.models.network import LocalizationMaps
from relo.settings import LARGEST, described, is_of

Window = Literal["logits", "probabilities"]


def _within(least: float, most: float, words: str, default: float | None) -> Any:
    """A setting with its default, whose numbers lie from `least` to `most`, as `words` say in errors."""
    return field(default=default, metadata={"range": (least, most, words)})


@dataclass(frozen=True)
class TrackingRule:
    """How a target is followed from frame to frame.

    The defaults are one setting for everything; `configs/tracking` has them as a file, and those of the public release,
    which change from benchmark to benchmark.

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
        template_update_presence: and if the frame's own presence exceeds this, for a network with a presence head; None
            is always.
        presence_stays: the probability that a right box is still right one frame later; with it, presence is that of
            all frames until now (`relo.tracking.presence_filter`), else of each frame by itself (None).
        presence_returns: the probability that a wrong box is right one frame later.
        presence_evidence: how much a frame counts beside those before it; 1 is that frames err independently.
        lost_after: a target is lost after so many frames in a row that are not sure of it, and searched for
            (`relo.tracking.lost_and_found`); None is never: presence then changes no box. It needs a presence head.
        sure_presence: a frame is sure of its box where its own presence is at least this.
        found_presence: a lost target is taken back where the frame's own presence is at least this.
        search_growth: a lost target is searched for in an area whose side grows by this factor each frame.
        search_window: the largest crop of that area, as a multiple of the usual search region's side; larger areas are
            scanned, a crop per frame. None is the whole area, ever smaller in the crop.

    Raises:
        UserError: a value of another type, or out of its range.
    """

    localization: Localization = "policy"
    window: Window = "probabilities"
    window_exponent: float = _within(0, 1000, "from 0 to 1000", default=1.0)
    template_factor: float = _within(0.1, 100, "from 0.1 to 100", default=2.0)
    search_factor: float = _within(0.1, 100, "from 0.1 to 100", default=4.0)
    template_size: int | None = _within(2, LARGEST, "greater than 1", default=None)
    search_size: int | None = _within(2, LARGEST, "greater than 1", default=None)
    released: bool = False
    margin_px: float = _within(0, LARGEST, "at least 0", default=10.0)
    templates: int = _within(1, 64, "from 1 to 64", default=1)
    template_update_interval: int | None = _within(1, LARGEST, "at least 1, or none", default=None)
    template_update_threshold: float = 0.0
    template_update_presence: float | None = _within(0, 1, "from 0 to 1", default=None)
    presence_stays: float | None = _within(0.01, 0.9999, "from 0.01 to 0.9999, or none", default=None)
    presence_returns: float = _within(0.0001, 0.99, "from 0.0001 to 0.99", default=0.1)
    presence_evidence: float = _within(0.01, 1, "from 0.01 to 1", default=0.35)
    lost_after: int | None = _within(1, LARGEST, "at least 1, or none", default=None)
    sure_presence: float = _within(0, 1, "from 0 to 1", default=0.5)
    found_presence: float = _within(0, 1, "from 0 to 1", default=0.5)
    search_growth: float = _within(1.01, 100, "from 1.01 to 100", default=1.25)
    search_window: float | None = _within(1, 100, "from 1 to 100, or none", default=None)

    def __post_init__(self) -> None:
        hints = get_type_hints(TrackingRule)
        for setting in fields(self):
            name, hint, value = setting.name, hints[setting.name], getattr(self, setting.name)
            if not is_of(value, hint):
                raise UserError(
                    f"The tracking rule has {name} = {excerpt(value)}, which is of the wrong kind; it must be "
                    f"{described(hint)}{_advice(value)}."
                )
            if "range" in setting.metadata and value is not None:
                least, most, words = setting.metadata["range"]
                if not least <= value <= most:
                    raise UserError(f"The tracking rule has {name} = {value!r}; it must be {words}.")
        if self.template_update_interval is not None and self.templates < 2:
            raise UserError(
                f"The tracking rule has templates = {self.templates!r}; it must be at least 2 where templates are "
                "updated."
            )

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

    def windowed(self, maps: LocalizationMaps, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a cell is chosen from.

        Args:
            maps: of B targets.
            windows: those of `window_map` [B, S, S], or [S, S].

        Returns:
            The cells' boxes_cxcywh [B, S, S, 4] and scores [B, S, S], and the windowed map [B, S, S], whose greatest
            value has the chosen cell.
        """
        boxes_cxcywh = maps.cells_cxcywh(self.localization)
        if self.localization == "prior":
            assert maps.prior_scores is not None
            # A head with boxes of its own has chosen by itself: nothing is left to a window.
            response = maps.prior_scores * windows if maps.prior_boxes_cxcywh is None else maps.prior_scores
            return boxes_cxcywh, maps.prior_scores, response
        logits = maps.policy_logits
        assert logits is not None
        probabilities = logits.flatten(1).softmax(1).view_as(logits)
        return boxes_cxcywh, probabilities, (logits if self.window == "logits" else probabilities) * windows


LOST_AND_FOUND = "lost_and_found"
"""The name of a rule that comes with the package: a lost target is given up, searched for, and taken back."""


@dataclass(frozen=True)
class RuleFile:
    """A file of tracking settings: the common rule, and what differs on benchmarks.

    Attributes:
        rule: the common rule.
        benchmarks: the settings that differ, by the name that the file gives to the benchmark.
    """

    rule: TrackingRule
    benchmarks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def on(self, benchmark: str) -> TrackingRule:
        """The rule on a benchmark: the common one, with what its entry changes."""
        return replace(self.rule, **self.benchmarks.get(benchmark, {}))

    def settings(self) -> dict[str, Any]:
        """Every setting by its name, as such a file holds them."""
        benchmarks = {"benchmarks": {name: dict(entry) for name, entry in self.benchmarks.items()}}
        return asdict(self.rule) | (benchmarks if self.benchmarks else {})


def read_rule_file(path: Path, model: str | Path | None = None) -> RuleFile:
    """Read tracking settings from YAML: the attributes of `TrackingRule`, and under `benchmarks` what differs on each.

    A file may also say `released_rule: b256`, for all settings of a variant of the public release.

    Args:
        path: the file, or `LOST_AND_FOUND`.
        model: a model's name, folder, checkpoint or exported graphs. Settings that the file leaves out are this
            model's own. Those that it names hold on benchmarks, too; `benchmarks` in it take the place of the model's.
            Where None, settings that the file leaves out are the default ones.

    Raises:
        UserError: the file is missing, is not YAML, or names a setting or value that does not exist, in whichever part;
            or the model's own settings cannot be read.
    """
    if str(path) == LOST_AND_FOUND:
        path = Path(__file__).with_name(f"{LOST_AND_FOUND}.yaml")
    settings = read_yaml(path, "The tracking rule")
    if not isinstance(settings, dict):
        raise UserError(f"The tracking rule {path} must hold settings as `name: value`.")
    if settings.keys() == {"released_rule"}:
        try:
            settings = released_rule(settings["released_rule"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    elif model is not None:
        own = own_rules(resolve(model))
        others = {
            name: {setting: value for setting, value in entry.items() if setting not in settings}
            for name, entry in own.benchmarks.items()
        }
        benchmarks = {name: entry for name, entry in others.items() if entry}
        settings = asdict(own.rule) | {"benchmarks": benchmarks} | settings
    return rules_from_settings(settings, path)


def rules_from_settings(settings: Mapping[str, Any], path: Path) -> RuleFile:
    """The rules of plain data as `RuleFile.settings` gives them; `path` names their file in errors.

    Raises:
        UserError: as of `read_rule_file`.
    """
    common = {name: value for name, value in settings.items() if name != "benchmarks"}
    benchmarks = settings.get("benchmarks") or {}
    if not isinstance(benchmarks, dict) or not all(isinstance(entry, dict) for entry in benchmarks.values()):
        raise UserError(f"In the tracking rule {path}, `benchmarks` must hold settings by the benchmarks' names.")
    for benchmark, entry in benchmarks.items():
        rule_from_settings({**common, **entry}, f"{path}, benchmark {benchmark}")
    return RuleFile(rule_from_settings(common, str(path)), {str(name): entry for name, entry in benchmarks.items()})


def own_rules(path: Path) -> RuleFile:
    """The tracking settings of a model folder, checkpoint or exported graphs; the default ones where it has none."""
    if is_onnx(path):
        return rules_from_settings(exported_metadata(path).tracking, path)
    if path.is_file():
        return RuleFile(rule_from_settings(read_checkpoint(path).get("relo_rule", {}), str(path)))
    # What is there but cannot be read, such as a link to nothing, is refused by its name.
    return read_rule_file(path / RULE_FILE) if os.path.lexists(path / RULE_FILE) else RuleFile(TrackingRule())


def check_heads(rule: TrackingRule, network: TrackableNetwork) -> None:
    """Refuse a rule for a network that lacks a head which it needs.

    Raises:
        UserError: the rule localizes by a prior, or reads a presence, and the network has no head for it.
    """
    if rule.localization == "prior" and network.prior is None:
        raise UserError("The network has no prior head to localize by; use localization 'policy'.")
    settings = [name for name in ("lost_after", "template_update_presence") if getattr(rule, name) is not None]
    if settings and not has_presence(network, rule.localization):
        head = network.presence
        has = "no presence head" if head is None else f"a presence head for localization {head.localization!r}"
        raise UserError(
            f"The tracking rule sets {settings[0]} and localization {rule.localization!r}, but the network has {has}: "
            f"leave {settings[0]} out, or take a network with a presence head for this localization."
        )


def has_presence(network: TrackableNetwork, localization: Localization) -> bool:
    """Whether the network has a presence head for the map that picks the cell."""
    return network.presence is not None and network.presence.localization == localization


def rule_from_settings(settings: Any, origin: str) -> TrackingRule:
    """A tracking rule from plain data; `origin` names the file in errors.

    Raises:
        UserError: settings that are not given by name, one that does not exist, or a value of the wrong kind or out of
            its range.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"{origin}: a tracking rule must hold settings by name, not {excerpt(settings)}.")
    known = [setting.name for setting in fields(TrackingRule)]
    for name in settings:
        if name not in known:
            nearest = get_close_matches(str(name), known, n=1)
            advice = f"did you mean {nearest[0]}" if nearest else f"known are {', '.join(known)}"
            raise UserError(f"{origin}: unknown setting {str(name)[:EXCERPT]}; {advice}.")
    try:
        return TrackingRule(**settings)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _advice(value: Any) -> str:
    """How to write what was meant, where that is clear."""
    if isinstance(value, float) and value.is_integer():
        return f": write {int(value)}"
    if not isinstance(value, str):
        return ""
    with suppress(ValueError):
        if len(value) > EXCERPT:
            return ""
        return f": YAML reads {value} as text, write {float(value):g}"
    return f": write {value.lower()}, without quotation marks" if value.lower() in ("true", "false", "null") else ""

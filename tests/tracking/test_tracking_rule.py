from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relo.errors import UserError
from relo.models.checkpoints.weights import SHIPPED_FOLDER
from relo.tracking.rule import TrackingRule, own_rules, read_rule_file, rule_from_settings

CONFIGS = Path(__file__).parents[2] / "configs" / "tracking"


def test_default_file_is_the_default_rule():
    assert read_rule_file(CONFIGS / "default.yaml").rule == TrackingRule()


@pytest.mark.parametrize(
    ("variant", "benchmark", "exponent", "interval", "threshold"),
    [
        ("t256", None, 2.0, None, 0.0),
        ("t256", "lasot_ext", 1.7, None, 0.0),
        ("t256", "got10k", 3.2, None, 0.0),
        ("b256", "uav123", 1.0, None, 0.0),
        ("b256", "trackingnet", 2.0, 25, 25.0),
        ("b256", "otb100", 3.0, None, 0.0),
        ("l256", "got10k", 2.7, 3, 46.0),
        ("l256", "trackingnet", 2.0, 25, 20.0),
    ],
)
def test_released_settings(variant, benchmark, exponent, interval, threshold):
    rule = read_rule_file(CONFIGS / f"{variant}.yaml").on(benchmark)
    assert (rule.window_exponent, rule.template_update_interval, rule.template_update_threshold) == (
        exponent,
        interval,
        threshold,
    )
    assert rule.released
    assert rule.window == "logits"
    assert rule.templates == (1 if variant == "t256" else 2)


def test_window_is_the_outer_product_of_hann_windows():
    window = TrackingRule(window_exponent=2.0).window_map(3)
    hann = torch.tensor([0.5, 1.0, 0.5])  # 0.5 (1 - cos(2 pi k / 4))
    torch.testing.assert_close(window, torch.outer(hann, hann) ** 2)
    torch.testing.assert_close(TrackingRule(window_exponent=0.0).window_map(5), torch.ones(5, 5))


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ("windw: logits", "windw; did you mean window"),
        ("templates: 2001-13-45", "no YAML"),
        ("templates: !!int x", "no YAML"),
        ("templates: " + "[" * 3000, "no YAML"),
        ("window_exponent: " + "9" * 400, "a number of over 300 digits"),
        ("0x" + "f" * 4000 + ": 1", "a number of over 300 digits"),
        ("window_exponent: " + "9" * 299, "window_exponent.*up to 1e\\+12"),
        ("search_factor: 1.0e+5", "search_factor.*from 0.1 to 100"),
        ("templates: 100000", "templates = 100000.*from 1 to 64"),
        ('released: "false"', r"released = 'false'.*true or false: write false, without quotation marks"),
        ("released: 1", "released = 1.*true or false"),
        ("released: null", "released = None.*true or false"),
        ("released: [true]", "released"),
        ("templates: 2.0", r"templates = 2\.0.*a whole number: write 2"),
        ("templates: true", "templates = True.*a whole number"),
        ('templates: "2"', "templates = '2'.*write 2"),
        ("search_size: 256.5", r"search_size = 256\.5.*a whole number or null"),
        ("templates: 2\ntemplate_update_threshold: 5e-1", r"template_update_threshold = '5e-1'.*write 0\.5"),
        ("template_update_interval: 3.0\ntemplates: 2", "template_update_interval.*write 3"),
        ("window_exponent: .nan", "window_exponent = nan.*finite"),
        ("margin_px: .inf", "margin_px = inf.*finite"),
        ("margin_px: true", "margin_px = True"),
        ("window_exponent: null", "window_exponent = None"),
        ("window: [logits]", "window = "),
        ("localization: true", "localization = True"),
        ("1: 2", "unknown setting 1"),
        ('benchmarks: {lasot: {released: "false"}}', "benchmark lasot.*released = 'false'"),
        ("benchmarks: {lasot: {windw: 1}}", "benchmark lasot.*windw"),
        ("benchmarks: [lasot]", "benchmarks"),
        ("released_rule: b512", "no variant 'b512'"),
        ("window: hann", "window"),
        ("search_factor: -1", "search_factor"),
        ("search_factor: wide", "wrong kind"),
        ("template_update_interval: 5", "templates"),
        ("lost_after: 0", "lost_after = 0.*at least 1, or none"),
        ("lost_after: 2.5", r"lost_after = 2\.5.*a whole number or null"),
        ("sure_presence: 1.5", r"sure_presence = 1\.5.*from 0 to 1"),
        ("found_presence: -0.1", r"found_presence = -0\.1.*from 0 to 1"),
        ("found_presence: null", "found_presence = None"),
        ("template_update_presence: 2", "template_update_presence = 2.*from 0 to 1"),
        ("search_growth: 1", "search_growth = 1; .*from 1.01 to 100"),
        ("search_growth: .inf", "search_growth = inf.*finite"),
        ("search_window: 0.5", r"search_window = 0\.5.*from 1 to 100, or none"),
        ("lost_afer: 3", "lost_afer; did you mean lost_after"),
        ("- 1", "name: value"),
        ("a: [", "no YAML"),
        ("benchmarks: {lasot: 3}", "benchmarks"),
    ],
)
def test_broken_file_is_named(tmp_path, settings, culprit):
    path = tmp_path / "rule.yaml"
    path.write_text(settings)
    with pytest.raises(UserError, match=culprit) as error:
        read_rule_file(path)
    assert str(path) in str(error.value)


def test_whole_numbers_and_numpys_are_numbers():
    rule = TrackingRule(window_exponent=2, templates=np.int64(2), margin_px=np.float32(1.5))
    assert rule == TrackingRule(window_exponent=2.0, templates=2, margin_px=1.5)


@pytest.mark.parametrize("settings", [None, [1], "window", {"window": 3}, {1: 2}])
def test_settings_of_another_kind_are_refused_whatever_their_origin(settings):
    with pytest.raises(UserError, match=r"^last\.ckpt: "):
        rule_from_settings(settings, "last.ckpt")


def test_lost_and_found_has_a_name(tmp_path, monkeypatch):
    """It changes four settings of the model's own rule, whatever lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lost_and_found").write_text("lost_after: 3")
    own = own_rules(SHIPPED_FOLDER).rule
    rule = read_rule_file(Path("lost_and_found"), "relo-small").rule
    assert rule == replace(own, lost_after=10, search_window=1.5, sure_presence=0.3, found_presence=0.3)
    assert own.lost_after is None


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_rule_file(tmp_path / "none.yaml")


def test_size_of_another_network_is_refused():
    with pytest.raises(UserError, match=r"search_size = 256.*128"):
        TrackingRule(search_size=256).search_crop(128)

from pathlib import Path

import pytest
import torch

from relo.errors import UserError
from relo.tracking.rule import TrackingRule, load_rule

CONFIGS = Path(__file__).parents[2] / "configs" / "tracking"


def test_default_file_is_the_default_rule():
    assert load_rule(CONFIGS / "default.yaml") == TrackingRule()


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
    rule = load_rule(CONFIGS / f"{variant}.yaml", benchmark)
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
        ("windw: logits", "windw"),
        ("window: hann", "window"),
        ("search_factor: -1", "search_factor"),
        ("search_factor: wide", "wrong kind"),
        ("template_update_interval: 5", "templates"),
        ("- 1", "name: value"),
        ("a: [", "not YAML"),
        ("benchmarks: {lasot: 3}", "benchmarks"),
    ],
)
def test_broken_file_is_named(tmp_path, settings, culprit):
    path = tmp_path / "rule.yaml"
    path.write_text(settings)
    with pytest.raises(UserError, match=culprit) as error:
        load_rule(path)
    assert str(path) in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_rule(tmp_path / "none.yaml")


def test_size_of_another_network_is_refused():
    with pytest.raises(UserError, match=r"search_size = 256.*128"):
        TrackingRule(search_size=256).search_crop(128)

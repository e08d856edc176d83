"""Every rule on frames whose scores can be worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from relo.errors import UserError
from relo.evaluation.rules import RULES, find_rule
from relo.evaluation.scoring import ScoringRule, SequenceScore, SequenceTruth

NAN = math.nan
BOX = (10.0, 20.0, 30.0, 40.0)
AWAY = (200.0, 200.0, 30.0, 40.0)
PERFECT = 20 / 21  # no overlap exceeds the threshold 1


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


def truth(*rows: tuple[float, ...], absent: list[int] | None = None, **facts) -> SequenceTruth:
    flags = None if absent is None else torch.tensor(absent, dtype=torch.bool)
    return SequenceTruth("sequence", boxes(*rows), flags, **facts)


def score(rule: str, annotation: SequenceTruth, *rows: tuple[float, ...]) -> SequenceScore:
    return find_rule(rule).score(annotation, [boxes(*rows)])


def values(rule: str, annotation: SequenceTruth, *rows: tuple[float, ...]) -> list[float]:
    result = score(rule, annotation, *rows).values
    return [result["auc"], result["precision"], result["normalized_precision"]]


CURVE_RULES = [name for name in RULES if name not in ("got10k", "trackingnet")]


@pytest.mark.parametrize("rule", CURVE_RULES)
def test_a_perfect_result(rule):
    annotation = truth(BOX, BOX, BOX, absent=[0, 0, 0])
    assert values(rule, annotation, BOX, BOX, BOX) == pytest.approx([PERFECT, 1, 1])


@pytest.mark.parametrize("rule", CURVE_RULES)
def test_a_lost_target(rule):
    annotation = truth(BOX, BOX, BOX, BOX, absent=[0, 0, 0, 0])
    assert values(rule, annotation, BOX, AWAY, AWAY, AWAY) == pytest.approx([PERFECT / 4, 1 / 4, 1 / 4])


def test_overlap_on_a_threshold_is_no_success_and_error_on_a_threshold_is_a_hit():
    # Overlap 20 x 40 of 40 x 40 = 0.5; the centre is 10 px off, 1/3 of the width.
    annotation = truth(BOX, BOX)
    result = score("otb", annotation, BOX, (20.0, 20.0, 30.0, 40.0))
    assert result.curves["success"][[9, 10]].tolist() == [1, 0.5]
    assert result.curves["precision"][[9, 10]].tolist() == [0.5, 1]
    assert result.curves["normalized_precision"][[33, 34]].tolist() == [0.5, 1]


class TestAbsentFrames:
    """The last two of four frames are absent: one has a box, one has zeros. The tracker is right where it can be."""

    annotation = truth(BOX, BOX, BOX, (0, 0, 0, 0), absent=[0, 0, 1, 1])
    result = (BOX, BOX, BOX, BOX)

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            # Removed, but the denominator stays.
            ("lasot", [PERFECT / 2, 2 / 4, 2 / 4]),
            ("lasot_ext", [PERFECT / 2, 2 / 4, 2 / 4]),
            ("lasot_released", [PERFECT / 2, 2 / 4, 2 / 4]),
            # The release counts both absent frames as hits of the normalized precision.
            ("lasot_ext_released", [PERFECT / 2, 2 / 4, 4 / 4]),
            # No flags: the box says whether there is a truth, and zeros are a hit in precision.
            ("otb", [PERFECT * 3 / 4, 4 / 4, 4 / 4]),
            ("pytracking", [PERFECT * 3 / 4, 3 / 4, 4 / 4]),
            ("tnl2k_released", [PERFECT * 3 / 4, 3 / 4, 4 / 4]),
            ("uav_released", [PERFECT * 3 / 4, 4 / 4, 4 / 4]),
        ],
    )
    def test_rules(self, rule, expected):
        assert values(rule, self.annotation, *self.result) == pytest.approx(expected)

    @pytest.mark.parametrize("rule", ["tnl2k", "vasttrack", "vasttrack_python"])
    def test_zeros_are_absent_where_there_are_no_flags(self, rule):
        annotation = truth(BOX, BOX, BOX, (0, 0, 0, 0))
        assert values(rule, annotation, *self.result) == pytest.approx([PERFECT * 3 / 4, 3 / 4, 3 / 4])


class TestInvalidTruth:
    """The second frame's truth has x = -2: a box that reaches out of the image."""

    annotation = truth(BOX, (-2, 20, 30, 40), absent=[0, 0])
    result = (BOX, (-2, 20, 30, 40))

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ("lasot", [PERFECT / 2, 1, 1]),
            ("otb", [PERFECT / 2, 1, 1]),
            ("tnl2k", [PERFECT / 2, 1, 1]),
            ("vasttrack", [PERFECT / 2, 1, 1]),
            ("pytracking", [PERFECT / 2, 1 / 2, 1]),
            ("pytracking_uav", [PERFECT / 2, 1, 1]),
            ("pytracking_lasot", [PERFECT / 2, 1 / 2, 1]),
            # Only the size matters.
            ("released", [PERFECT, 1, 1]),
            ("vasttrack_python", [PERFECT, 1, 1]),
        ],
    )
    def test_rules(self, rule, expected):
        assert values(rule, self.annotation, *self.result) == pytest.approx(expected)

    def test_nan_truth_is_a_miss_and_a_precision_hit_for_uav(self):
        annotation = truth(BOX, (NAN, NAN, NAN, NAN))
        assert values("otb", annotation, BOX, AWAY) == pytest.approx([PERFECT / 2, 1, 1])
        assert values("released", annotation, BOX, AWAY) == pytest.approx([PERFECT / 2, 1 / 2, 1])


class TestInvalidPredictions:
    annotation = truth(BOX, BOX, BOX, BOX, absent=[0, 0, 0, 0])

    @pytest.mark.parametrize("rule", ["lasot", "otb", "tnl2k", "vasttrack"])
    @pytest.mark.parametrize("broken", [(NAN, NAN, NAN, NAN), (5, 5, 0, 9), (5, 5, -3, 9)])
    def test_the_row_before_is_repeated(self, rule, broken):
        result = score(rule, self.annotation, BOX, BOX, broken, broken)
        assert result.values["auc"] == pytest.approx(PERFECT)
        assert [(remark.kind, remark.text[:6]) for remark in result.remarks] == [("invalid", "2 rows")]

    def test_the_first_row_is_repeated_as_written(self):
        # The first row becomes the truth only after rows were repeated.
        result = score("lasot", self.annotation, AWAY, (0, 0, 0, 0), BOX, BOX)
        assert result.values["auc"] == pytest.approx(PERFECT * 3 / 4)

    def test_pytracking_repeats_zero_sizes_only(self):
        assert score("released", self.annotation, BOX, BOX, (5, 5, 0, 9), BOX).values["auc"] == pytest.approx(PERFECT)
        with pytest.raises(UserError, match="Row 3"):
            score("released", self.annotation, BOX, BOX, (NAN, 5, 5, 9), BOX)

    def test_pysot_keeps_them(self):
        result = score("pysot", self.annotation, BOX, BOX, (NAN, NAN, NAN, NAN), BOX)
        assert result.values["auc"] == pytest.approx(PERFECT * 3 / 4)


class TestFirstFrame:
    def test_is_the_truth(self):
        assert values("otb", truth(BOX, BOX), AWAY, BOX) == pytest.approx([PERFECT, 1, 1])

    def test_is_as_predicted_in_pysot(self):
        assert values("pysot", truth(BOX, BOX), AWAY, BOX) == pytest.approx([PERFECT / 2, 1 / 2, 1 / 2])


class TestNumberOfRows:
    annotation = truth(BOX, BOX, BOX, BOX, absent=[0, 0, 0, 0])

    @pytest.mark.parametrize("rule", ["lasot", "otb", "tnl2k", "released", "trackingnet"])
    def test_long_results_are_cut(self, rule):
        result = score(rule, self.annotation, BOX, BOX, BOX, BOX, AWAY)
        assert result.values["precision"] == 1
        assert result.remarks[0].kind == "long"

    @pytest.mark.parametrize("rule", ["lasot", "lasot_released", "tnl2k", "vasttrack", "vasttrack_python", "got10k"])
    def test_short_results_are_refused(self, rule):
        with pytest.raises(UserError, match="sequence has 3 rows, but the sequence has 4 frames"):
            score(rule, self.annotation, BOX, BOX, BOX)

    @pytest.mark.parametrize(("rule", "share"), [("otb", 1.0), ("pytracking", 0.5), ("released", 0.5)])
    def test_short_results_are_filled(self, rule, share):
        result = score(rule, self.annotation, BOX, BOX)
        assert result.values["auc"] == pytest.approx(PERFECT * share)
        assert result.remarks[0].kind == "short"

    @pytest.mark.parametrize("rule", [name for name in RULES if name != "trackingnet"])
    def test_empty_results_are_refused(self, rule):
        with pytest.raises(UserError, match="0 rows"):
            score(rule, self.annotation)


class TestTrackingNet:
    def test_perfect(self):
        assert values("trackingnet", truth(BOX, BOX), BOX, BOX) == pytest.approx([1, 1, 1])

    def test_boxes_are_rounded_half_to_even(self):
        # 10.5 -> 10, 11.5 -> 12: the overlap of the second is (28 * 40) / (32 * 40).
        result = score("trackingnet", truth(BOX, BOX, BOX), BOX, (10.5, 20, 30, 40), (11.5, 20, 30, 40))
        assert result.curves["success"].tolist() == pytest.approx([1] * 18 + [2 / 3] * 3)

    def test_areas_are_trapezoids(self):
        # One of two frames is 10 px off, 10/30 of the width: at 10 px (threshold 4 of 20) and at 0.35 (14 of 20) it
        # is reached.
        result = values("trackingnet", truth(BOX, BOX), BOX, (20, 20, 30, 40))
        assert result[0] == pytest.approx(0.5 + 0.5 * (10.5 / 20))  # overlap 0.5 reaches thresholds 0 .. 0.5
        assert result[1] == pytest.approx(0.5 + 0.5 * (16.5 / 20))
        assert result[2] == pytest.approx(0.5 + 0.5 * (6.5 / 20))

    def test_missing_rows_are_misses_even_at_threshold_0(self):
        result = score("trackingnet", truth(BOX, BOX), BOX)
        assert result.curves["success"].tolist() == [0.5] * 21
        assert result.values["coverage"] == 0.5

    def test_zeros_reach_threshold_0(self):
        result = score("trackingnet", truth(BOX, BOX), BOX, (0, 0, 0, 0))
        assert result.curves["success"].tolist() == [1] + [0.5] * 20

    def test_coverage_is_of_all_frames(self):
        rule = find_rule("trackingnet")
        long = rule.score(truth(*[BOX] * 9), [boxes(*[BOX] * 9)])
        short = rule.score(truth(BOX, BOX, BOX), [boxes(BOX)])
        summary = rule.summarize([long, short])
        assert summary.values["coverage"] == pytest.approx(10 / 12)
        assert summary.values["auc"] == pytest.approx((1 + 1 / 3) / 2)


class TestGot10k:
    def test_first_and_covered_frames_do_not_count(self):
        # Overlaps: dropped, 1, 0.5, covered.
        annotation = truth(BOX, BOX, BOX, BOX, absent=[0, 0, 0, 1])
        result = score("got10k", annotation, AWAY, BOX, (20, 20, 30, 40), AWAY)
        assert result.values == pytest.approx({"ao": 0.75, "sr_0.5": 0.5, "sr_0.75": 0.5})
        assert result.weight == 2

    def test_frames_are_pooled_over_sequences_and_repetitions(self):
        rule = find_rule("got10k")
        first = rule.score(truth(BOX, BOX), [boxes(BOX, BOX), boxes(BOX, AWAY)])
        second = rule.score(truth(*[BOX] * 7), [boxes(*[AWAY] * 7)])
        assert rule.summarize([first, second]).values["ao"] == pytest.approx(1 / 8)

    def test_boxes_are_bounded_by_the_image(self):
        # In an image 30 wide, the truth keeps 20 of its 30 px of width; the prediction covers just these.
        annotation = truth(BOX, BOX, image_size=(30, 100))
        assert score("got10k", annotation, BOX, (10, 20, 20, 40)).values["ao"] == 1
        assert score("got10k", truth(BOX, BOX), BOX, (10, 20, 20, 40)).values["ao"] == pytest.approx(2 / 3)

    def test_rows_without_a_box_are_misses_and_listed(self):
        result = score("got10k", truth(BOX, BOX, BOX), BOX, (NAN, NAN, NAN, NAN), BOX)
        assert result.values["ao"] == 0.5
        assert result.remarks[0].kind == "invalid"


class TestSummary:
    def test_sequences_count_alike(self):
        rule = find_rule("otb")
        good = rule.score(truth(*[BOX] * 2), [boxes(*[BOX] * 2)])
        bad = rule.score(truth(*[BOX] * 50), [boxes(BOX, *[AWAY] * 49)])
        summary = rule.summarize([good, bad])
        assert summary.values["precision"] == pytest.approx((1 + 1 / 50) / 2)
        assert summary.standard_errors["precision"] == pytest.approx((1 - 1 / 50) / 2)

    @given(st.lists(st.floats(0, 60), min_size=2, max_size=20), st.sampled_from(sorted(set(RULES) - {"got10k"})))
    def test_curves_are_monotone_and_bounded(self, shifts, rule):
        annotation = truth(*[BOX] * len(shifts), absent=[0] * len(shifts))
        result = score(rule, annotation, *[(10 + shift, 20, 30, 40) for shift in shifts])
        for name, curve in result.curves.items():
            assert (curve >= 0).all()
            assert (curve <= 1).all()
            steps = curve.diff()
            assert (steps <= 0).all() if name == "success" else (steps >= 0).all()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("LaSOT-Ext", "lasot_ext"),
        ("LaSOT ext", "lasot_ext"),
        ("GOT-10k", "got10k"),
        ("UAV123@10fps", "otb"),
        ("otb_100", "otb"),
    ],
)
def test_rules_are_found_by_their_names_and_those_of_benchmarks(name, rule):
    assert find_rule(name) is RULES[rule]


def test_rules_have_names_and_sources():
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.source


class AlwaysRight(ScoringRule):
    name = "always right"
    source = "a test"
    scores = ("auc",)

    @property
    def thresholds(self):
        return {}

    def score(self, truth, predictions_xywh):
        return SequenceScore(truth.name, len(truth), 1.0, {"auc": 1.0}, {})


def test_a_rule_of_ones_own_is_a_class_path():
    rule = find_rule(f"{__name__}.AlwaysRight")
    assert rule.score(truth(BOX), []).values == {"auc": 1.0}


@pytest.mark.parametrize("name", ["nothing", "os.path", "relo.errors.UserError"])
def test_unknown_rule(name):
    with pytest.raises(UserError, match=name):
        find_rule(name)

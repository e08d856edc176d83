"""Every rule by its name."""

from dataclasses import replace

from relo.errors import UserError
from relo.evaluation.scoring.base import ScoringRule
from relo.evaluation.scoring.curves import CurveRule
from relo.evaluation.scoring.got10k import Got10kRule
from relo.evaluation.scoring.trackingnet import TrackingNetRule
from relo.models.checkpoints.plugin import build

_NORMALIZED = frozenset({"normalized_precision"})
_BOTH = frozenset({"precision", "normalized_precision"})

_LASOT = CurveRule(
    name="lasot",
    source="HengLan/LaSOT_Evaluation_Toolkit, utils/calc_seq_err_robust.m and eval_tracker.m (Fan et al., CVPR 2019)",
    uses_absent=True,
)
_OTB = CurveRule(
    name="otb",
    source="the OTB toolkit, calcSeqErrRobust.m, and jwlim/tracker_benchmark (Wu et al., CVPR 2013, PAMI 2015), which "
    "UAV123, NFS and DTB70 took over",
    short="last row",
)
# pytracking and its descendants refuse NaN and negative sizes, and fill short results with zeros.
_PYTRACKING = CurveRule(
    name="pytracking",
    source="visionml/pytracking, analysis/extract_results.py",
    invalid_hits=_NORMALIZED,
    invalid_prediction="refuse",
    short="zeros",
)
_RELEASED = replace(
    _PYTRACKING,
    name="released",
    source="the public release of RELO, lib/test/analysis (as OSTrack and SUTrack)",
    valid_truth="positive size",
)

_RULES: tuple[ScoringRule, ...] = (
    _LASOT,
    replace(_LASOT, name="lasot_ext", source="LaSOT's toolkit on the extension subset (Fan et al., IJCV 2021)"),
    _OTB,
    replace(
        _OTB,
        name="pysot",
        source="STVIR/pysot, toolkit/evaluation/ope_benchmark.py: the first row and invalid rows as predicted",
        first_frame_is_truth=False,
        invalid_prediction="keep",
    ),
    replace(
        _LASOT,
        name="tnl2k",
        source="wangxiao5791509/TNL2K_evaluation_toolkit, utils/calc_seq_err_robust.m (Wang et al., CVPR 2021)",
        zero_box_is_absent=True,
    ),
    replace(
        _LASOT,
        name="vasttrack",
        source="HengLan/VastTrack, MatlabEvaluationToolkit (Peng et al., NeurIPS 2024)",
        zero_box_is_absent=True,
    ),
    replace(
        _RELEASED,
        name="vasttrack_python",
        source="HengLan/VastTrack, PythonEvaluationToolkit/extract_results.py",
        uses_absent=True,
        zero_box_is_absent=True,
        short="refuse",
        long="refuse",
    ),
    TrackingNetRule(),
    Got10kRule(),
    _PYTRACKING,
    replace(_PYTRACKING, name="pytracking_uav", invalid_hits=_BOTH),
    replace(_PYTRACKING, name="pytracking_lasot", uses_absent=True, short="refuse"),
    # NFS, OTB and TNL2K: an absent frame of TNL2K is a truth of zeros, and so a hit for the normalized precision.
    _RELEASED,
    replace(_RELEASED, name="uav_released", invalid_hits=_BOTH),
    replace(_RELEASED, name="lasot_released", uses_absent=True, short="refuse"),
    replace(_RELEASED, name="lasot_ext_released", uses_absent=True, absent_hits=_NORMALIZED),
    replace(_RELEASED, name="tnl2k_released"),
)
RULES = {rule.name: rule for rule in _RULES}


def find_rule(name: str) -> ScoringRule:
    """The rule called `name` (whatever its case and separators), or an instance of the class that a dotted name
    points to.

    Raises:
        UserError: there is no such rule.
    """
    rule = RULES.get(name.lower().replace("-", "_"))
    if rule is not None:
        return rule
    if "." in name:
        rule = build({"class_path": name})
        if isinstance(rule, ScoringRule):
            return rule
    raise UserError(
        f"There is no scoring rule {name!r}; the rules are {', '.join(RULES)}, or name a class by its dotted path."
    )

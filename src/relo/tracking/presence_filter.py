"""The probability that a target's box is right, by all frames until now instead of the last one alone."""

import math

from relo.tracking.rule import TrackingRule

_CERTAIN = 1e-6
"""Probabilities are kept this far from 0 and 1."""


def filtered_presence(rule: TrackingRule, before: float | None, found: float | None) -> float | None:
    """The forward step of a hidden Markov model whose state is whether the box is right.

    A right box stays right with the probability `presence_stays`, and a wrong one becomes right with
    `presence_returns`. What the network says of a frame counts `presence_evidence` times, less than fully, since it is
    mistaken about neighbouring frames in the same way.

    Args:
        rule: without `presence_stays`, each frame stands for itself.
        before: the presence after the frame before; None is that of the given frame, whose box is right.
        found: what the network says of this frame alone; None where it has no presence head.
    """
    if rule.presence_stays is None or found is None:
        return found
    right = 1.0 if before is None else before
    predicted = right * rule.presence_stays + (1 - right) * rule.presence_returns
    share = rule.presence_returns / (rule.presence_returns + 1 - rule.presence_stays)  # of right boxes in the long run
    evidence = rule.presence_evidence * (_log_odds(found) - _log_odds(share))
    return 1 / (1 + math.exp(-_log_odds(predicted) - evidence))


def _log_odds(probability: float) -> float:
    inside = min(max(probability, _CERTAIN), 1 - _CERTAIN)
    return math.log(inside / (1 - inside))

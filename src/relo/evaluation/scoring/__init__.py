"""Scoring rules, one a benchmark, each with its source; the contract is in `base`, the table in `rules`."""

from relo.evaluation.scoring.base import BenchmarkScore, Remark, ScoringRule, SequenceScore, SequenceTruth
from relo.evaluation.scoring.rules import RULES, find_rule

__all__ = ["RULES", "BenchmarkScore", "Remark", "ScoringRule", "SequenceScore", "SequenceTruth", "find_rule"]

"""Scoring results, running benchmarks, reports."""

"""The examples in the docstrings of geometry and metrics run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["geometry", "metrics.functional", "metrics.scores"])
def test_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"relo.{module}"))
    assert results.failed == 0
    assert results.attempted > 5

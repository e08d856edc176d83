"""The examples in the docstrings of geometry and metrics run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    ["geometry", "metrics.functional", "metrics.overlap", "metrics.precision", "metrics.success"],
)
def test_examples(module):
    assert doctest.testmod(importlib.import_module(f"relo.{module}")).failed == 0


def test_geometry_has_examples():
    assert doctest.testmod(importlib.import_module("relo.geometry")).attempted > 10

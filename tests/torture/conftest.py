"""What the torture tests share: a seed that repeats a run, and how long or how many."""

import os
import random

import pytest

SEED = int(os.environ.get("SEED") or 0)


def pytest_report_header() -> str:
    return f"torture: SEED={SEED}"


@pytest.fixture
def seed() -> int:
    """The run's seed; a failing test shows it."""
    print(f"repeat with SEED={SEED}")
    return SEED


@pytest.fixture
def generator(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test, whatever other tests draw."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def minutes() -> float:
    """For how long a test whose length is free may go on (`make test-torture MINUTES=n` is shared among them)."""
    return float(os.environ.get("MINUTES") or 60)

"""Mutated inputs end in the right answer, a remark, or one sentence and exit code 2, whatever the command."""

from collections import Counter

import pytest
from mutations import GOOD_VERDICTS, Mutations
from targets import TARGETS

_SHORT = ("evaluate lasot", "pack got10k", "pack coco", "verify", "track a model", "track by files", "fit 0", "ablate")


def _run(folder, seed, targets, cases):
    verdicts = list(Mutations(folder, seed, targets).run(range(cases)))
    counts = Counter(verdict.verdict for verdict in verdicts)
    print(f"seed {seed}: {dict(counts.most_common())}")
    wrong = [str(verdict) for verdict in verdicts if verdict.verdict not in GOOD_VERDICTS]
    assert not wrong, f"{len(wrong)} of {cases} with seed {seed}:\n" + "\n".join(wrong)
    assert counts["refused"] > cases / 4


def test_some_mutated_inputs(tmp_path):
    _run(tmp_path, 0, {name: TARGETS[name] for name in _SHORT}, 30)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_thousand_mutated_inputs(tmp_path, seed):
    _run(tmp_path, seed, TARGETS, 1000)

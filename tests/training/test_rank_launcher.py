"""Starting the ranks of a fit on several devices."""

import os

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from relo.processes import PARENT
from relo.training.ranks import RankLauncher


def test_ranks_that_cannot_be_started_leave_nothing_that_would_end_this_process(monkeypatch):
    """A later command in it would take the variable for an order to end with a process that is not its parent."""

    def fail(_):
        raise OSError("no process can be started")

    monkeypatch.setattr(RankLauncher, "_call_children_scripts", fail)
    with pytest.raises(OSError, match="no process"):
        RankLauncher(LightningEnvironment(), num_processes=2, num_nodes=1).launch(print)
    assert PARENT not in os.environ

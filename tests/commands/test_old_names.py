"""What launch scripts and saved configs name stays within reach."""

import subprocess
import sys

import relo
from training_runs import environment


def test_the_command_line_runs_under_its_old_module_name():
    done = subprocess.run(
        [sys.executable, "-m", "relo.cli", "--version"], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == relo.__version__

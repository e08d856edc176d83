"""Commands that refuse what they are given."""

import pytest

from relo.commands.main import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence that a command ends with; its exit code is 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured
    (sentence,) = [line for line in captured.err.splitlines() if line.startswith("relo: error: ")]
    assert len(sentence) < 700
    return sentence

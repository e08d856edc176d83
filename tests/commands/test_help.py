"""What `--help` says of a command's options, and what is said of words that belong to none."""

import pytest

from relo.commands.main import main


def shown(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return ended.value.code, " ".join((printed.out + printed.err).split())


def test_help_names_what_is_required_and_defaults_but_no_types(capsys):
    code, text = shown(capsys, "test", "--help")
    assert code == 0
    assert "the dataset's folder. (required)" in text
    assert "(default: 16)" in text
    assert "this one is, from 0. (default: 0)" in text
    assert "the rule's if not given. --batch_size" in text
    assert "type:" not in text
    assert "null" not in text


def test_a_pattern_that_the_shell_has_resolved_is_recognised(capsys, tmp_path):
    files = [str(tmp_path / f"{i}.png") for i in range(60)]
    for file in files:
        open(file, "w").close()
    code, text = shown(capsys, "track", *files, "--box", "1,2,3,4")
    assert code == 2
    assert "1.png' and 58 more files are one source too many" in text
    assert 'put a pattern such as "*.png" in quotation marks' in text
    code, text = shown(capsys, "track", files[0], "surplus", "--box", "1,2,3,4")
    assert code == 2
    assert "quotation" not in text

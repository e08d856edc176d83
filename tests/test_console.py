"""What is printed is what was meant: a name is no markup, and no emoji."""

import io
import re

from rich.table import Table
from rich.text import Text

import relo.models.checkpoints.weights
from relo.commands.import_released import import_released
from relo.console import make_console
from relo.progress import progress_bar
from small_networks import make_network
from test_imports import modules

NAME = "a:x:b [v2] [/v2] 10:100:3"


def printed(thing, **settings):
    text = io.StringIO()
    make_console(file=text, width=200, **settings).print(thing)
    return text.getvalue()


def test_names_are_printed_as_they_are():
    table = Table("", title=NAME)
    table.add_row(NAME)
    assert printed(NAME) == f"{NAME}\n"
    assert printed(table).count(NAME) == 2


def test_styles_are_kept():
    assert printed(Text("failed", "red"), force_terminal=True, color_system="standard") == "\x1b[31mfailed\x1b[0m\n"
    text = io.StringIO()
    console = make_console(file=text, width=100, force_terminal=True, color_system="standard")
    with progress_bar(console) as bar:
        bar.advance(bar.add_task(NAME, total=2))
    assert NAME in text.getvalue()
    assert re.search(r"\x1b\[\d+m━", text.getvalue())


def test_consoles_are_made_in_one_place():
    makers = {name for name, path in modules().items() if re.search(r"\bConsole\(", path.read_text(encoding="utf-8"))}
    assert makers == {"relo.console"}


def test_an_imported_model_s_folder_is_printed_whole(monkeypatch, capsys):
    monkeypatch.setattr(relo.models.checkpoints.weights, "import_released", lambda *_, **settings: make_network())
    import_released("a.pth.tar", variant="b256", output="models/[/v2]:x:")
    assert capsys.readouterr().out.endswith(" is in models/[/v2]:x:; track with `--model models/[/v2]:x:`.\n")

"""Imports point one way: a package knows those below it, and no two modules import each other, not even in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import relo

ROOT = Path(relo.__file__).parent
LAYERS = (
    {"console", "errors", "files", "geometry", "images", "inputs", "processes", "progress", "settings", "yaml_traps"},
    {"metrics"},
    {"data", "models"},
    {"learning", "tracking"},
    {"evaluation"},
    {"training", "studies"},
    {"app"},
    {"commands"},
)
LIGHTNING = {"training", "commands", "data.datamodule"}


def modules():
    return {
        ".".join(("relo", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }


def imported_names(path):
    """Every module, or name in a module, that a file imports, but for those that only types need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph():
    """The modules of the package that each module imports."""
    known = modules()

    def module_of(name):
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {found for imported in imported_names(path) if (found := module_of(imported)) not in ("", "relo", name)}
        for name, path in known.items()
    }


def layer_of(module):
    room = module.split(".")[1]
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def test_no_circle():
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(f"These import each other in a circle: {' <- '.join(error.args[1])}")


def test_imports_point_down():
    facades = {"relo", "relo.__main__", "relo.cli", "relo.opencv", "relo.weights"}
    upward = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if module not in facades and layer_of(other) > layer_of(module)
    ]
    assert not upward, "\n".join(upward)


def test_lightning_is_needed_for_training_alone():
    users = {
        name
        for name, path in modules().items()
        if any(imported.split(".")[0] == "lightning" for imported in imported_names(path))
    }
    beside = {name for name in users if not name.removeprefix("relo.").startswith(tuple(LIGHTNING))}
    assert not beside

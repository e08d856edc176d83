"""Exported graphs that are broken, or of which the parts disagree."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from graph_files import change, edited, renamed, with_metadata, without_output
from relo import Tracker
from relo.errors import UserError

pytestmark = [pytest.mark.filterwarnings("ignore")]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


MISTAKES = {
    "no sibling": (lambda folder: (folder / "templates.onnx").unlink(), r"There is no templates\.onnx in "),
    "no ONNX": (lambda folder: (folder / "step.onnx").write_text("hello"), "is not a graph that onnxruntime"),
    "empty": (lambda folder: (folder / "step.onnx").write_bytes(b""), "is not a graph that|does not say"),
    "truncated": (lambda folder: truncate(folder / "step.onnx"), "or is truncated"),
    "of something else": (lambda folder: with_metadata(folder / "step.onnx", None), "does not say how to track"),
    "no JSON": (lambda folder: with_metadata(folder / "step.onnx", "{"), "broken metadata"),
    "a list": (lambda folder: with_metadata(folder / "step.onnx", "[]"), "broken metadata"),
    "a size that is none": (lambda folder: change(folder / "step.onnx", map_size="x"), "broken metadata"),
    "a head that is none": (lambda folder: change(folder / "step.onnx", heads=["tail"]), "broken metadata"),
    "newer": (lambda folder: change(folder / "step.onnx", format=2), r"is a graph of format 2, and relo .* reads fo"),
    "of another network": (lambda folder: change(folder / "step.onnx", weights="00"), "not of one network"),
    "twice the same": (
        lambda folder: shutil.copy(folder / "templates.onnx", folder / "step.onnx"),
        "is not a graph of the step",
    ),
    "a setting that does not exist": (
        lambda folder: [change(folder / name, tracking={"windo": 1}) for name in ("step.onnx", "templates.onnx")],
        "unknown setting windo; did you mean window",
    ),
}

DESCRIBED = {
    "search_size": 128,
    "template_size": 64,
    "map_size": 4,
    "templates": 1,
    "batch": 3,
    "heads": ["box", "critic", "policy", "presence", "prior"],
}
OUT_OF_RANGE = {
    "search_size": 10**5,
    "map_size": 10**6,
    "templates": 65,
    "batch": 10**9,
    "parameters": 10**30,
    "heads": ["box", "presence"],
    "presence_localization": None,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({name: value}, "not a graph that its metadata describe") for name, value in DESCRIBED.items()]
    + [({name: value}, "broken metadata") for name, value in OUT_OF_RANGE.items()],
)
def test_metadata_that_do_not_fit_the_graphs(copied, changes, words):
    for name in ("step.onnx", "templates.onnx"):
        change(copied / name, **changes)
    with pytest.raises(UserError, match=words):
        Tracker.from_onnx(copied)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("step.onnx", "next_memory"),
        ("step.onnx", "presence"),
        ("step.onnx", "prior_scores"),
        ("step.onnx", "boxes_cxcywh"),
        ("templates.onnx", "kernel"),
    ],
)
def test_an_output_that_is_missing(copied, file, name):
    without_output(copied / file, name)
    with pytest.raises(UserError, match="not a graph that its metadata describe"):
        Tracker.from_onnx(copied)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("step.onnx", "policy_logits"),
        ("step.onnx", "memory"),
        ("step.onnx", "is_first"),
        ("step.onnx", "images"),
        ("templates.onnx", "boxes_xywh"),
        ("templates.onnx", "tokens"),
    ],
)
def test_a_tensor_of_another_name(copied, file, name):
    renamed(copied / file, name, "other")
    with pytest.raises(UserError, match=rf"{file} is not a graph that its metadata describe: export the model again"):
        Tracker.from_onnx(copied)


@pytest.mark.parametrize(
    ("operator", "kind", "words"),
    [
        ("Compress", onnx.TensorProto.BOOL, r"step\.onnx gives policy_logits of shape \[0, 8, 8\], but declares"),
        ("Gather", onnx.TensorProto.INT64, r"step\.onnx breaks off \(.*: export the model again"),
    ],
)
def test_a_graph_that_gives_something_else_than_it_declares(copied, operator, kind, words):
    with edited(copied / "step.onnx") as graph:
        for node in graph.node:
            node.output[:] = ["all" if name == "policy_logits" else name for name in node.output]
        graph.node.append(onnx.helper.make_node("Not", ["is_first"], ["is_later"]))
        rows = "is_first" if kind == onnx.TensorProto.BOOL else "is_later"
        graph.node.append(onnx.helper.make_node("Cast", [rows], ["rows"], to=kind))
        graph.node.append(onnx.helper.make_node(operator, ["all", "rows"], ["policy_logits"], axis=0))
    tracker = Tracker.from_onnx(copied, localization="policy")
    frame = np.zeros((64, 64, 3), np.uint8)
    states = tracker.step([frame], tracker.initialize([frame], [(10, 10, 20, 20)]))
    with pytest.raises(UserError, match=words):
        tracker.step([frame], states)


def test_metadata_that_are_nested_deeply(copied):
    with_metadata(copied / "step.onnx", "[" * 100_000)
    with pytest.raises(UserError, match="broken metadata"):
        Tracker.from_onnx(copied)


@pytest.mark.parametrize(("spoil", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_bad_files_are_one_sentence(copied, spoil, words):
    spoil(copied)
    for path in (copied, copied / "step.onnx"):
        with pytest.raises(UserError, match=words) as raised:
            Tracker.from_onnx(path)
        assert str(copied) in str(raised.value)

"""The tensors that go into exported graphs and come out of them, as far as the graphs' metadata determine them."""

from collections.abc import Iterable, Mapping
from typing import Any

from relo.models.graph_metadata import GraphMetadata
from relo.models.network import Head

NEXT_MEMORY = "next_memory"

HEAD_OF: Mapping[str, Head] = {
    "policy_logits": "policy",
    "boxes_cxcywh": "box",
    "value": "critic",
    "prior_scores": "prior",
    "prior_boxes_cxcywh": "prior",
    "presence": "presence",
}
"""The head that gives an output of a step."""

GraphTensor = tuple[str, list[Any]]
"""Type, in the words of onnxruntime, and shape; an open number of targets is None."""

_FLOAT = "tensor(float)"


def batch_axis(name: str) -> int:
    """The first axis of everything but the memory, where the batch follows the layers."""
    return 1 if name in ("memory", NEXT_MEMORY) else 0


def graph_tensors(entries: Iterable[Any]) -> dict[str, GraphTensor]:
    """The inputs or outputs of a session of onnxruntime by name."""
    return {e.name: (e.type, [size if isinstance(size, int) else None for size in e.shape]) for e in entries}


def are_of_templates(
    metadata: GraphMetadata, inputs: Mapping[str, GraphTensor], outputs: Mapping[str, GraphTensor]
) -> bool:
    """Whether inputs and outputs are those of a graph of the templates: `relo.models.export.TemplateEncoder`."""
    batch, count, side = metadata.batch, metadata.templates, metadata.template_size
    return (
        inputs == {"images": (_FLOAT, [batch, count, 3, side, side]), "boxes_xywh": (_FLOAT, [batch, count, 4])}
        and {"tokens"} <= outputs.keys() <= {"tokens", "kernel"}
        and all(_has_batch(name, tensor, batch) for name, tensor in outputs.items())
    )


def are_of_step(
    metadata: GraphMetadata,
    encoded: Mapping[str, GraphTensor],
    inputs: Mapping[str, GraphTensor],
    outputs: Mapping[str, GraphTensor],
) -> bool:
    """Whether inputs and outputs are those of a graph of the step: `relo.models.export.TrackingStep`.

    Args:
        metadata: of both graphs.
        encoded: the outputs of the graph of the templates, which the step reads.
        inputs, outputs: of the graph in question.
    """
    batch, side, cells = metadata.batch, metadata.search_size, metadata.map_size
    scores, boxes = [batch, cells, cells], [batch, cells, cells, 4]
    shapes: dict[str, list[Any]] = {
        "policy_logits": scores,
        "boxes_cxcywh": boxes,
        "value": [batch],
        "prior_scores": scores,
        "prior_boxes_cxcywh": boxes,
        "presence": scores,
    }
    # A presence head brings the map that it reads; not every prior has boxes of its own; a network may give more.
    heads = {*metadata.heads, metadata.presence_localization}
    needed = {name for name, head in HEAD_OF.items() if head in heads and name != "prior_boxes_cxcywh"}
    given = {"images": (_FLOAT, [batch, 3, side, side]), **encoded}
    expected = {name: (_FLOAT, shape) for name, shape in shapes.items() if name in needed or name in outputs}
    if memory := inputs.get("memory"):
        if not _has_batch("memory", memory, batch):
            return False
        given |= {"memory": memory, "is_first": ("tensor(bool)", [batch])}
        expected[NEXT_MEMORY] = memory
    return inputs == given and outputs == expected


def _has_batch(name: str, tensor: GraphTensor, batch: int | None) -> bool:
    """Whether a tensor of floats has the batch in its place, and a known size beside it."""
    kind, shape = tensor
    axis = batch_axis(name)
    rest = shape[:axis] + shape[axis + 1 :]
    return kind == _FLOAT and len(shape) > axis + 1 and shape[axis] == batch and None not in rest

"""`relo export`: a network as ONNX graphs, or a checkpoint as a model folder."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from relo.console import make_console
from relo.errors import UserError
from relo.models.checkpoints.plugin import trust as trust_modules
from relo.models.checkpoints.weights import load_network, resolve, save_network
from relo.models.export import TOLERANCE, example_crops, export_onnx, largest_difference
from relo.models.graph_metadata import FILES, MOST_TARGETS, MOST_TEMPLATES
from relo.settings import check_whole
from relo.tracking.localizer import tracking_heads
from relo.tracking.rule import own_rules


def export(
    *,
    model: str,
    format: Literal["onnx", "safetensors"] = "onnx",
    output: str | None = None,
    templates: int | None = None,
    batch: int | None = None,
    trust: list[str] | None = None,
) -> None:
    """Export a network to ONNX, or a checkpoint to a model folder.

    ONNX is two graphs, checked in onnxruntime: `templates.onnx` (once per target) and `step.onnx` (once per frame),
    which gives the maps that the model's tracking rule reads, and the policy's; their metadata hold the rule and all
    else that tracking needs, so `--model` takes their folder. A model folder has weights, config and
    tracking rule, and nothing of the training.

    Args:
        model: a model's name, its folder, or a checkpoint.
        format: "onnx", or "safetensors" for a model folder.
        output: the folder to write; by default one named as the format, beside the model.
        templates: of ONNX, how many templates a target has; the tracking rule's number by default.
        batch: of ONNX, how many targets a step has; any number by default.
        trust: modules whose classes the model's config may name; otherwise it may name relo's alone.

    Raises:
        UserError: the model cannot be read or exported, or the folder cannot be written.
    """
    if templates is not None:
        check_whole("The export", 1, MOST_TEMPLATES, templates=templates)
    if batch is not None:
        check_whole("The export", 1, MOST_TARGETS, batch=batch)
    trust_modules(trust or ())
    network = load_network(model)
    path = Path(model)
    folder = Path(output) if output else (path if path.is_dir() else path.parent) / format
    rules = own_rules(resolve(model))
    if format == "safetensors":
        save_network(network, folder, rules.settings())
        make_console().print(f"{folder}: a model folder; track with `--model {folder}`.", soft_wrap=True)
        return
    templates = rules.rule.templates if templates is None else templates
    rules = replace(rules, rule=replace(rules.rule, templates=templates))
    heads = tracking_heads(network, rules.rule.localization)
    outputs = export_onnx(network, folder, templates, batch, heads, rules.settings())
    difference = largest_difference(network, folder, *example_crops(network, templates, batch or 1, frames=3))
    if not difference <= TOLERANCE:
        raise UserError(f"The graphs in {folder} differ from the network by {difference:.2g}; do not use them.")
    make_console().print(
        f"{folder}: {' and '.join(FILES.values())}, within {difference:.1g} of the network over 3 frames. "
        f"A step gives {', '.join(outputs)}. Track with `--model {folder}`.",
        soft_wrap=True,
    )

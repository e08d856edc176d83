"""Write the step graphs of a model into the package, so that onnxruntime runs it where nothing can export it.

    python data_prep/pack_step_graph.py MODEL

There is one for the policy and one for the prior. They hold for every model of this structure, whatever its weights.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import sys
from collections.abc import Sequence

from relo.errors import UserError
from relo.models.checkpoints.weights import load_network, resolve
from relo.models.export import step_graph
from relo.models.inference import optimize_for_inference
from relo.tracking.engine import PACKAGED, StepGraph, graph_name, write_graph
from relo.tracking.localizer import tracking_heads
from relo.tracking.rule import own_rules


def pack_step_graphs(model: str) -> None:
    """Write the graphs of what `resolve` takes, for the tracking rule that belongs to it."""
    path = resolve(model)
    network, templates = optimize_for_inference(load_network(path)), own_rules(path).rule.templates
    for localization in ("policy", "prior") if network.prior is not None else ("policy",):
        heads = tracking_heads(network, localization)
        file = PACKAGED / graph_name(network, templates, heads)
        write_graph(file, StepGraph(*step_graph(network, templates, heads)))
        print(f"{localization}: {file}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the graphs; a mistake is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name, its folder, or a checkpoint")
    options = parser.parse_args(arguments)
    try:
        pack_step_graphs(options.model)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""What benchmarks share: their parsers, clocks, networks and tables."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from relo.errors import UserError
from relo.files import read_yaml
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.released import resolve_reference
from relo.models.checkpoints.weights import load_network
from relo.models.network import LocalizationNetwork

MODELS = Path(__file__).parents[1] / "configs" / "model"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring as it stands."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def print_table(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    tabulate: Callable[[argparse.Namespace], Table],
) -> None:
    """Print the table of what was asked for; a `UserError` ends as a mistake in the arguments does."""
    options = parser.parse_args(arguments)
    try:
        Console().print(tabulate(options))
    except UserError as error:
        parser.error(str(error))


def number_table(title: str, *columns: str, **settings: object) -> Table:
    """A table of numbers behind a name."""
    name, *numbers = columns
    columns = (Column(name, no_wrap=True), *(Column(n, justify="right", no_wrap=True) for n in numbers))
    return Table(*columns, title=title, box=SIMPLE_HEAD, **settings)


def config_of(model: str) -> Path:
    """The file of a model that is given by its settings: one of configs/model, by its name, or another."""
    return Path(model) if model.endswith((".yaml", ".yml")) else MODELS / f"{model}.yaml"


def open_network(model: str) -> LocalizationNetwork:
    """A network that is given by its settings, with random weights, or one with weights.

    Raises:
        UserError: it cannot be read.
    """
    path = config_of(model)
    if path.is_file() or path == Path(model):
        return build(resolve_reference(read_yaml(path, "The model")))
    return load_network(model)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, to its end on the device."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return 1e3 * (time.perf_counter() - start)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long it takes, by the clock and of the processor's time."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]

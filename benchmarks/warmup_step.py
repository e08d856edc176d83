"""What a step of the warm-up takes: clips per second and memory, by network, precision and batch.

    python benchmarks/warmup_step.py [--models t256 b256] [--batches 16 64] [--precisions bf16-mixed] [--device cuda]

Forward, backward, clipping and AdamW of everything that the recipe trains, on random clips: what a fit can do whose
loader keeps up. Times are medians. On a GPU, one whose time hardly grows with the batch waits for the processor, which
starts its kernels one by one: there a larger batch costs little. "GiB" is the most that was allocated.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import statistics
from collections.abc import Sequence

import torch
from rich.table import Table
from rl_step import random_clips
from tables import milliseconds, open_network, parser_of, print_table

from relo.data.clip_batch import ClipBatch
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.devices import find_device
from relo.models.network import LocalizationNetwork

PRECISIONS = ("bf16-mixed", "32-true")


class Step:
    """A network that is trained."""

    def __init__(self, network: LocalizationNetwork, precision: str, device: torch.device) -> None:
        self._network, self._device = network.train(), device
        self._casts = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        self._objective = WarmupObjective(prior=GaussianPrior(released=True), box_cell="prior")
        for part, module in network.named_children():
            module.requires_grad_(part in self._objective.trained_parts)
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-6)

    def __call__(self, clip: ClipBatch) -> None:
        """One step on the clips."""
        with self._casts:
            (result,) = self._objective.losses(self._network, clip, torch.Generator(self._device))
        self._optimizer.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 0.1)
        self._optimizer.step()


def tabulate(options: argparse.Namespace) -> Table:
    """A row per network, precision and batch.

    Raises:
        UserError: there is no such device.
    """
    device = find_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    title = f"{options.frames} search frames, {where}"
    table = Table("model", "precision", "clips", "ms", "clips/s", "GiB", title=title)
    for model in options.models:
        for precision in options.precisions:
            torch.manual_seed(0)
            step = Step(network := open_network(model).to(device), precision, device)
            for batch in options.batches:
                clip = random_clips(network, batch, options.frames, device)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                times = [milliseconds(lambda step=step, clip=clip: step(clip), device) for _ in range(options.rounds)]
                median = statistics.median(times[options.rounds // 4 :])
                most = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else "-"
                table.add_row(model, precision, str(batch), f"{median:.0f}", f"{1e3 * batch / median:.1f}", most)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", default=["t256", "b256"], help="files of configs/model, without .yaml")
    parser.add_argument("--batches", nargs="+", type=int, default=[2], help="clips; more on a GPU, such as 16 64")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--frames", type=int, default=2, help="search frames of a clip")
    parser.add_argument("--rounds", type=int, default=12, help="of which the first quarter does not count")
    parser.add_argument("--device", help="such as cpu or cuda:1; the GPU if there is one")
    print_table(parser, arguments, tabulate)


if __name__ == "__main__":
    main()

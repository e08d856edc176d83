"""What a step of reinforcement learning costs beside a pure inference pass over the same frames.

    python benchmarks/rl_step.py [--model b256] [--objective actor-critic expected ...] [--batch 2] [--frames 4]

With encoder and boxes frozen, a step should be little more than the inference that the rollout needs: no gradients of
frozen parts, nothing kept of the encoder's graph. "ratio" is the time of forward, backward and optimizer step over that
of the inference pass (templates, then policy and boxes of every frame, without gradients), measured in turn; medians.
The limit is 1.15, for one update a batch; nano, whose heads cost nearly as much as its encoder, is above it.
"kept" is what the step's graph holds when its backward pass begins, in MB (tensors saved for it, each counted once).
Clips are random; they do not change the time. PPO's and GRPO's figures are of one rollout with all its updates.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from rich.table import Table
from tables import milliseconds, open_network, parser_of, print_table

from relo.data.clip_batch import ClipBatch
from relo.learning.base import Objective
from relo.learning.clipped import GRPO, PPO
from relo.learning.expected import ExpectedGradient, RewardAugmentedLikelihood
from relo.learning.policy import ActorCritic
from relo.learning.rollout import unroll
from relo.models.devices import find_device
from relo.models.network import LocalizationNetwork

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "actor-critic": ActorCritic,
    "expected": ExpectedGradient,
    "reward-augmented": RewardAugmentedLikelihood,
    "ppo": PPO,
    "grpo": GRPO,
}


def random_clips(network: LocalizationNetwork, batch: int, frames: int, device: torch.device) -> ClipBatch:
    """Noise with a target in the middle."""
    search, template = network.encoder.search_size, network.encoder.template_size
    return ClipBatch(
        template_images=torch.randn(batch, 1, 3, template, template, device=device),
        template_boxes_xywh=torch.tensor([0.25, 0.25, 0.5, 0.5], device=device).expand(batch, 1, 4),
        search_images=torch.randn(batch, frames, 3, search, search, device=device),
        search_boxes_xywh=torch.tensor([0.4, 0.4, 0.25, 0.25], device=device).expand(batch, frames, 4),
        present=torch.ones(batch, frames, dtype=torch.bool, device=device),
        sequence_id=["noise"] * batch,
        frame_index=torch.zeros(batch, frames, dtype=torch.long, device=device),
    )


@torch.inference_mode()
def infer(network: LocalizationNetwork, clip: ClipBatch) -> None:
    """What tracking these frames takes, by the plain network: without `relo.tracking`'s fused layers and graphs."""
    trained = [part for part in network.children() if part.training]
    network.eval()
    for _ in unroll(network, clip, ("policy", "box")):
        pass
    for part in trained:
        part.train()


def train(
    network: LocalizationNetwork, clip: ClipBatch, objective: Objective, optimizer: torch.optim.Optimizer
) -> None:
    """Every update that the batch gives."""
    for result in objective.losses(network, clip, torch.Generator(clip.present.device)):
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()


def kept_bytes(network: LocalizationNetwork, objective: Objective, clip: ClipBatch) -> int:
    """The bytes of all tensors that the graph of a loss has saved, parameters left out."""
    held = {parameter.data_ptr() for parameter in network.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next(iter(objective.losses(network, clip, torch.Generator(clip.present.device))))
    return sum(saved.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="b256", help="a file of configs/model, without .yaml")
    parser.add_argument("--objective", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--batch", type=int, default=2, help="clips; more on a GPU, such as 16")
    parser.add_argument("--frames", type=int, default=4, help="search frames of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", help="such as cpu or cuda:1; the GPU if there is one")
    print_table(parser, arguments, tabulate)


def tabulate(options: argparse.Namespace) -> Table:
    """A row per objective.

    Raises:
        UserError: there is no such device or model.
    """
    device = find_device(options.device)
    torch.manual_seed(0)
    network = open_network(options.model).to(device)
    clip = random_clips(network, options.batch, options.frames, device)
    table = Table(
        "objective",
        *(f"{name} (ms)" for name in ("inference", "step")),
        "ratio",
        "kept (MB)",
        title=f"{options.model}, {options.batch} clips of {options.frames} frames, {device}",
    )
    for name in options.objective:
        objective = OBJECTIVES[name]()
        for part, module in network.named_children():
            is_trained = part in (objective.trained_parts or ())
            module.requires_grad_(is_trained).train(is_trained)
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6)
        step = partial(train, network, clip, objective, optimizer)
        rounds = []
        for _ in range(options.rounds + 1):
            rounds.append((milliseconds(lambda: infer(network, clip), device), milliseconds(step, device)))
        inference, training = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
        ratio = statistics.median(training / inference for inference, training in rounds[1:])
        kept = kept_bytes(network, objective, clip) / 1e6
        table.add_row(name, f"{inference:.0f}", f"{training:.0f}", f"{ratio:.2f}", f"{kept:.0f}")
    return table


if __name__ == "__main__":
    main()

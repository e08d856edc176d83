"""What is normalised or averaged over the batches of all ranks."""

import torch
from torch import distributed, multiprocessing

from relo.learning.base import mean_loss
from relo.learning.policy import normalise

torch.manual_seed(0)
ADVANTAGES = 3 + 2 * torch.randn(4, 3)
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, False, False], [False, True, False]])


def normalise_half(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    torch.save(
        [normalise(ADVANTAGES[half], PRESENT[half], released) for released in (False, True)], f"{folder}/{rank}.pt"
    )
    distributed.destroy_process_group()


def test_two_ranks_normalise_as_one(tmp_path):
    """With 5 frames that count on one rank, and 1 on the other."""
    multiprocessing.spawn(normalise_half, (str(tmp_path),), nprocs=2)
    shared, alone = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)), strict=True)
    halves = torch.cat(shared)
    torch.testing.assert_close(halves, normalise(ADVANTAGES, PRESENT))
    counted = halves[PRESENT]
    torch.testing.assert_close(counted.mean(), torch.zeros(()), rtol=0, atol=1e-6)
    torch.testing.assert_close(counted.std(correction=0), torch.ones(()), rtol=0, atol=1e-6)
    for half, own in ((slice(0, 2), alone[0]), (slice(2, 4), alone[1])):  # the release's, each rank by itself
        assert torch.equal(own, normalise(ADVANTAGES[half], PRESENT[half], released=True))
    torch.testing.assert_close(alone[0][PRESENT[:2]].std(), torch.ones(()), rtol=0, atol=1e-6)


def learn_half(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    torch.save(gradient(ADVANTAGES[half], PRESENT[half]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def gradient(values, present):
    factor = torch.ones((), requires_grad=True)
    mean_loss(factor.exp() * values, present).backward()
    return factor.grad


def test_gradients_averaged_over_two_ranks_are_those_of_one(tmp_path):
    """With 5 frames that count on one rank, and 1 on the other."""
    multiprocessing.spawn(learn_half, (str(tmp_path),), nprocs=2)
    averaged = torch.stack([torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]).mean()
    torch.testing.assert_close(averaged, gradient(ADVANTAGES, PRESENT))
    assert gradient(ADVANTAGES, PRESENT[:2].repeat(2, 1)) != averaged

"""What is normalised or averaged over the batches of all ranks."""

import pytest
import torch
from torch import distributed, multiprocessing

from relo.learning.base import mean_loss
from relo.learning.policy import normalise

torch.manual_seed(0)
ADVANTAGES = 3 + 2 * torch.randn(4, 3)
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, False, False], [False, True, False]])


def gradient(values, present):
    factor = torch.ones((), requires_grad=True)
    mean_loss(factor.exp() * values, present).backward()
    return factor.grad


def work_on_half(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    values, present = ADVANTAGES[half], PRESENT[half]
    found = {
        "shared": normalise(values, present),
        "alone": normalise(values, present, released=True),
        "gradient": gradient(values, present),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What two ranks have found, with 5 frames that count on one of them, and 1 on the other."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work_on_half, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_two_ranks_normalise_as_one(halves):
    shared = torch.cat([half["shared"] for half in halves])
    torch.testing.assert_close(shared, normalise(ADVANTAGES, PRESENT))
    counted = shared[PRESENT]
    torch.testing.assert_close(counted.mean(), torch.zeros(()), rtol=0, atol=1e-6)
    torch.testing.assert_close(counted.std(correction=0), torch.ones(()), rtol=0, atol=1e-6)
    alone = [half["alone"] for half in halves]
    for half, own in ((slice(0, 2), alone[0]), (slice(2, 4), alone[1])):  # the release's, each rank by itself
        assert torch.equal(own, normalise(ADVANTAGES[half], PRESENT[half], released=True))
    torch.testing.assert_close(alone[0][PRESENT[:2]].std(), torch.ones(()), rtol=0, atol=1e-6)


def test_gradients_averaged_over_two_ranks_are_those_of_one(halves):
    averaged = torch.stack([half["gradient"] for half in halves]).mean()
    torch.testing.assert_close(averaged, gradient(ADVANTAGES, PRESENT))
    assert gradient(ADVANTAGES, PRESENT[:2].repeat(2, 1)) != averaged

import pytest
import torch

from relo.errors import UserError
from relo.models.devices import find_device
from relo.tracking.tracker import Tracker


@pytest.fixture
def gpus(monkeypatch):
    """Let the machine have so many GPUs."""

    def have(count):
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))

    return have


@pytest.mark.parametrize(
    "name", ["cuda", "cuda:0", "cuda:7", "mps", "xpu", "xyz", "", " ", "CPU", "cpu:3", "meta", "cuda:"]
)
def test_a_device_that_is_not_there_is_named_with_those_that_are(gpus, name):
    gpus(0)
    with pytest.raises(UserError, match=f"There is no device '{name}' here; give cpu."):
        find_device(name)


def test_gpus_that_are_there(gpus):
    gpus(2)
    for name in ("cuda", "cuda:1", "cpu", "cpu:0", torch.device("cuda", 1)):
        assert find_device(name) == torch.device(name)
    for name in ("cuda:2", "mps", torch.device("cuda", 2)):
        with pytest.raises(UserError, match=f"'{name}' here; give cuda:0 or cuda:1 or cpu."):
            find_device(name)


def test_the_gpu_is_taken_where_there_is_one(monkeypatch):
    for there, kind in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert find_device().type == kind


def test_a_tracker_looks_for_its_device_before_its_model(network, tmp_path, gpus):
    gpus(0)
    with pytest.raises(UserError, match="no device 'cuda' here"):
        Tracker(network, device="cuda")
    with pytest.raises(UserError, match="no device 'meta' here"):
        Tracker.from_pretrained(tmp_path / "none", device="meta")

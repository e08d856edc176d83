"""A tracker of each kind of model on disk: its weights, its rule and its precision."""

import copy

import lightning
import numpy as np
import pytest
import torch
import yaml

import relo
import relo.models.checkpoints.weights
from relo.learning.policy import ActorCritic
from relo.learning.priors import GaussianPrior
from relo.learning.rewards import IoUReward
from relo.learning.warmup import WarmupObjective
from relo.models.checkpoints.released import released_names, released_network
from relo.models.checkpoints.weights import import_released, save_network
from relo.models.encoders.fast_itpn_names import to_published_shape
from relo.models.encoders.timm_vit import TimmViT
from relo.models.heads import ConvBox, ConvPolicy
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.tracking.rule import TrackingRule
from relo.training.module import RELOModule

PRECISIONS = ["float32", "bfloat16", "float16"]


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def next_state(tracker):
    states = tracker.initialize([noise(0)], [[40, 30, 30, 40]])
    return tracker.step([noise(1)], states, keep_response=True)[0]


def small_timm_network() -> LocalizationNetwork:
    torch.manual_seed(0)
    encoder = TimmViT("vit_tiny_patch16_224", search_size=64, template_size=32, depth=2)
    width, channels = encoder.width, encoder.channels
    return LocalizationNetwork(encoder, LayerAligned(width, 2, 2), ConvPolicy(channels, [8]), ConvBox(channels, [8]))


@pytest.mark.parametrize("make", ["nano", "timm"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_runs_in_every_precision_like_the_network(network, tmp_path, make, precision):
    made = network if make == "nano" else small_timm_network()
    save_network(made, tmp_path)
    tracker = relo.Tracker.from_pretrained(tmp_path, device="cpu", precision=precision)
    assert next(tracker.network.box.parameters()).dtype == getattr(torch, precision)
    found, expected = next_state(tracker), next_state(relo.Tracker(made))
    tolerance = 1e-5 if precision == "float32" else 0.02 * float(expected.response.max())
    torch.testing.assert_close(found.response, expected.response, rtol=0, atol=tolerance)
    assert found.memory.dtype == torch.float32


def test_without_a_model_it_is_the_one_that_comes_with_the_package(network, tmp_path, monkeypatch):
    save_network(network, tmp_path, {"window_exponent": 0.5})
    monkeypatch.setattr(relo.models.checkpoints.weights, "SHIPPED_FOLDER", tmp_path)
    tracker = relo.Tracker.from_pretrained(device="cpu")
    assert tracker.rule == TrackingRule(window_exponent=0.5)
    torch.testing.assert_close(next_state(tracker).box_xywh, next_state(relo.Tracker(network, tracker.rule)).box_xywh)


@pytest.mark.parametrize("fastest", ["float32", "bfloat16"])
def test_auto_takes_what_the_trial_says(network, tmp_path, monkeypatch, fastest):
    save_network(network, tmp_path)
    asked = []
    monkeypatch.setattr("relo.tracking.tracker.fastest_precision", lambda device: asked.append(device) or fastest)
    assert relo.Tracker.from_pretrained(tmp_path, device="cpu", precision="auto").precision == fastest
    assert asked == [torch.device("cpu")]


def test_a_network_under_training_is_tracked_with_as_it_is(network):
    before = copy.deepcopy(network.state_dict())
    tracker = relo.Tracker(network)
    next_state(tracker)
    assert tracker.network is network
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.state_dict().keys() == before.keys()


@pytest.mark.parametrize(
    ("objective", "localizations", "expected"),
    [
        (WarmupObjective(prior=GaussianPrior()), ["prior"], "prior"),
        (ActorCritic([IoUReward()]), ["policy", "prior"], "policy"),
    ],
    ids=["warm-up", "RL"],
)
def test_a_checkpoint_tracks_by_the_map_that_its_stage_has_trained(
    network, tmp_path, objective, localizations, expected
):
    rule = TrackingRule(window="logits", window_exponent=3.0)
    module = RELOModule(network, objective, rule=rule, localizations=localizations)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.save_checkpoint(tmp_path / "stage.ckpt", weights_only=True)
    tracker = relo.Tracker.from_pretrained(tmp_path / "stage.ckpt", device="cpu")
    assert tracker.rule == TrackingRule(localization=expected, window="logits", window_exponent=3.0)


def write_release(path, is_warmup):
    network = released_network("b256")
    own = network.state_dict()
    state = {
        released: to_published_shape(name, own[name]).clone() for name, released in released_names(network).items()
    }
    if is_warmup:
        state = {name: t for name, t in state.items() if not name.startswith(("policy_model.", "value_model."))}
    torch.save({"net": state}, path)


@pytest.mark.usefixtures("small_release")
@pytest.mark.parametrize(("is_warmup", "localization"), [(False, "policy"), (True, "prior")], ids=["RL", "warm-up"])
def test_an_imported_folder_has_the_rule_of_the_release(tmp_path, is_warmup, localization):
    write_release(tmp_path / "ep0090.pth.tar", is_warmup)
    import_released(tmp_path / "ep0090.pth.tar", variant="b256", output=tmp_path / "model")
    tracker = relo.Tracker.from_pretrained(tmp_path / "model", device="cpu")
    assert tracker.rule == TrackingRule(
        localization=localization, window="logits", window_exponent=3.0, released=True, templates=2
    )


@pytest.mark.usefixtures("small_release")
def test_a_name_has_the_rule_of_the_release(tmp_path, monkeypatch):
    write_release(tmp_path / "ep0090.pth.tar", is_warmup=False)
    monkeypatch.setattr(
        relo.models.checkpoints.weights, "hf_hub_download", lambda *args: str(tmp_path / "ep0090.pth.tar")
    )
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "cache"))
    tracker = relo.Tracker.from_pretrained("relo-b256", device="cpu")
    assert tracker.rule.released
    assert (tracker.rule.window_exponent, tracker.rule.templates) == (3.0, 2)
    assert next_state(tracker).templates.tokens.shape[1] == 2 * 64


@pytest.mark.usefixtures("small_release")
def test_a_folder_may_have_a_rule_of_its_own(tmp_path):
    save_network(released_network("b256"), tmp_path)
    (tmp_path / "tracking.yaml").write_text(yaml.safe_dump({"window_exponent": 0.5}))
    assert relo.Tracker.from_pretrained(tmp_path, device="cpu").rule == TrackingRule(window_exponent=0.5)

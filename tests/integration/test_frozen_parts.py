"""The RL stage changes the policy and the critic, and no bit of anything else."""

import lightning
import torch
from lightning import Callback
from timm.layers import DropPath
from torch import nn

from relo.data.clip_dataset import StoreSource
from relo.data.datamodule import TrackingDataModule
from relo.data.sampler import OrderSampler
from relo.learning.policy import ActorCritic
from relo.models.checkpoints.weights import load_network, save_network
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.training.module import RELOModule
from training_runs import ACTOR_CRITIC, config, relo_here, write_config

LEARNING = ("policy", "critic")


def part(name):
    return name.removeprefix("network.").partition(".")[0]


def test_frozen_parts_stay_the_same_to_the_bit(data, network, tmp_path, monkeypatch):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_network(network, tmp_path / "start")
    path = write_config(tmp_path / "config.yaml", config(data, ACTOR_CRITIC, init_from=str(tmp_path / "start")))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    after = load_network(tmp_path / "run/checkpoints/last.ckpt").state_dict()
    assert any("running_var" in name and part(name) == "box" for name in after)
    for name, tensor in after.items():
        if part(name) not in LEARNING:
            assert torch.equal(tensor, before[name]), name
    for learned in LEARNING:
        names = [name for name in after if part(name) == learned and name.endswith("weight")]
        assert all(not torch.equal(after[name], before[name]) for name in names)
        # Their batch normalisation follows the data.
        assert any(not torch.equal(after[n], before[n]) for n in after if part(n) == learned and "running_mean" in n)


class Modes(Callback):
    """Notes which layers are in training mode in a step."""

    def __init__(self):
        self.training = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_index):
        self.training = {name: (type(layer), layer.training) for name, layer in pl_module.network.named_modules()}


def modes_of_a_step(data, folder, frozen_stochastic_depth):
    heads = {"channels": 32, "hidden": (8, 8)}
    encoder = FastITPN(width=32, depth=2, heads=2, stage1=1, stage2=1, search_size=64, template_size=32, drop_path=0.5)
    network = LocalizationNetwork(
        encoder, LayerAligned(32, 2, 2), ConvPolicy(**heads), ConvBox(**heads), ConvCritic(**heads), ConvPrior(**heads)
    )
    module = RELOModule(network, ActorCritic(), frozen_stochastic_depth=frozen_stochastic_depth)
    clips = TrackingDataModule(
        train=[StoreSource(str(data.train))],
        template_crop=module.template_crop,
        search_crop=module.search_crop,
        sampler=OrderSampler(templates=1, search_frames=2),
        clips_per_epoch=4,
        batch_size=2,
        workers=0,
    )
    modes = Modes()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=1,
        callbacks=[modes],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, clips)
    return modes.training


def test_frozen_parts_keep_their_stochastic_depth(data, tmp_path):
    for frozen_stochastic_depth in (True, False):
        training = modes_of_a_step(data, tmp_path, frozen_stochastic_depth)
        drops = [on for name, (kind, on) in training.items() if kind is DropPath and part(name) == "encoder"]
        assert drops
        assert all(on is frozen_stochastic_depth for on in drops)
        norms = {name: on for name, (kind, on) in training.items() if issubclass(kind, nn.BatchNorm2d)}
        assert {part(name) for name, on in norms.items() if on} == set(LEARNING)
        assert {part(name) for name, on in norms.items() if not on} == {"box", "prior"}

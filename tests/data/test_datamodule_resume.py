"""A run resumed from any checkpoint sees exactly the clips that it had not seen."""

import errno
import os

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from relo.data.clip_dataset import StoreSource
from relo.data.datamodule import SequenceSource, TrackingDataModule
from relo.data.sampler import OrderSampler
from relo.errors import UserError
from relo.geometry import CropRule

BATCHES, EPOCHS, BATCH = 4, 3, 2


class Recorder(lightning.LightningModule):
    """Trains nothing, and notes the clips of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple] = []

    def training_step(self, batch, batch_index):
        self.seen.append(tuple(zip(batch.sequence_id, map(tuple, batch.frame_index.tolist()), strict=True)))
        return self.weight.sum() + batch.search_images.mean()

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(store, **changes):
    settings = {
        "train": [StoreSource(str(store.path))],
        "validation": [SequenceSource(str(store.path))],
        "template_crop": CropRule(2.0, 8),
        "search_crop": CropRule(4.0, 16),
        "sampler": OrderSampler(templates=1, search_frames=2),
        "clips_per_epoch": BATCHES * BATCH,
        "batch_size": BATCH,
        "workers": 0,
    }
    return TrackingDataModule(**(settings | changes))


def fit(folder, datamodule, callbacks=(), resume=None, **settings):
    module = Recorder()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume)
    return module.seen


def checkpoints(folder, **settings):
    return ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, **settings)


@pytest.mark.parametrize("val_check_interval", [1.0, 2])
@pytest.mark.parametrize(
    "saved",
    [
        {"every_n_train_steps": 1, "save_on_train_epoch_end": False},
        {"save_on_train_epoch_end": False},  # after each validation
        {"save_on_train_epoch_end": True},
    ],
)
def test_resumed_runs_see_the_rest(store, tmp_path, saved, val_check_interval):
    settings = {"val_check_interval": val_check_interval}
    whole = fit(tmp_path, data(store), [checkpoints(tmp_path, **saved)], **settings)
    assert len(whole) == BATCHES * EPOCHS == len(set(whole))
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) >= EPOCHS
    for path in paths:
        step = int(path.stem.rpartition("step=")[2])
        if step < len(whole):
            assert fit(tmp_path, data(store), resume=path, **settings) == whole[step:], path.name


def test_workers_prefetch_the_rest(store, tmp_path):
    whole = fit(tmp_path, data(store), [checkpoints(tmp_path, every_n_train_steps=1)])
    middle = BATCHES + 1
    (path,) = tmp_path.glob(f"*step={middle}.ckpt")
    assert fit(tmp_path, data(store, workers=2), resume=path) == whole[middle:]


def test_other_settings_within_an_epoch_are_refused(store, tmp_path):
    fit(tmp_path, data(store), [checkpoints(tmp_path, every_n_train_steps=1)])
    (middle,) = tmp_path.glob("*step=5.ckpt")
    with pytest.raises(UserError, match="middle of an epoch, with clips_per_step 2 \\(now 1\\)"):
        fit(tmp_path, data(store, batch_size=1), resume=middle)


def test_overfitting_sees_the_same_clips_in_every_epoch_and_can_be_resumed(store, tmp_path):
    settings = {"overfit_batches": 2}
    whole = fit(tmp_path, data(store), [checkpoints(tmp_path, every_n_train_steps=1)], **settings)
    assert whole == whole[:2] * EPOCHS
    (path,) = tmp_path.glob("*step=4.ckpt")
    assert fit(tmp_path, data(store), resume=path, **settings) == whole[4:]


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSYS, r"\(.*\): set data\.workers to 0"), (errno.EMFILE, r"\(.*\): lower data\.workers")],
)
def test_processes_of_a_loader_that_cannot_be_started_are_one_sentence(store, monkeypatch, number, told):
    def refuse(*_, **__):  # as where there is no usable /dev/shm
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    module = data(store, workers=1)
    module.setup("fit")
    with pytest.raises(UserError, match=f"No process could be started {told}"):
        next(iter(module.train_dataloader()))

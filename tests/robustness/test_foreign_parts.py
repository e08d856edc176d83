"""Parts of Lightning, torch and albumentations whose settings they refuse late or not at all: one sentence, in time."""

import copy

import pytest
import torch

from relo.data.datamodule import SequenceDataset, SequenceSource
from relo.data.photometric import compose
from relo.errors import UserError
from relo.training.checkpoints import InertCheckpointIO
from training_runs import WARMUP, config, refused, relo_here, write_config

CALLBACKS = "lightning.pytorch.callbacks"
SCHEDULERS = "torch.optim.lr_scheduler"


def part(class_path: str, /, **settings: object) -> dict:
    return {"class_path": class_path, "init_args": settings}


@pytest.mark.parametrize(
    ("section", "settings", "word"),
    [
        ("trainer", {"logger": part("lightning.pytorch.loggers.CSVLogger", save_dir="nope://x")}, "nope"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.GradientAccumulationScheduler", scheduling={})]}, "Empty dict"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.ModelCheckpoint")] * 2}, "more than one stateful callback"),
        ("trainer", {"max_time": {"days": 10**12}}, "too large"),
        ("trainer", {"limit_train_batches": 0}, "nothing would be trained"),
        ("trainer", {"check_val_every_n_epoch": 0}, "check_val_every_n_epoch = 0"),
        ("trainer", {"val_check_interval": 0}, "val_check_interval = 0"),
        ("trainer", {"limit_val_batches": 1, "val_check_interval": 1000}, "val_check_interval"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.EarlyStopping", monitor="nope")]}, "metric `nope`"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.BackboneFinetuning")]}, "no attribute 'backbone'"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.ModelCheckpoint", filename="{epoch:zz}")]}, "'{epoch:zz}'"),
        ("trainer", {"callbacks": [part(f"{CALLBACKS}.ModelCheckpoint", filename="{epoch")]}, "'{epoch'"),
        ("model", {"optimizer": part("torch.optim.SparseAdam")}, "dense gradients"),
        ("model", {"optimizer": part("torch.optim.Adam", weight_decay=1e308)}, "overflow"),
        ("model", {"scheduler": part(f"{SCHEDULERS}.StepLR", step_size=0)}, "ZeroDivisionError"),
        (
            "model",
            {"scheduler_interval": "step", "scheduler": part(f"{SCHEDULERS}.OneCycleLR", max_lr=0.1, total_steps=1)},
            "Tried to step 2 times",
        ),
        ("data", {"photometric": [part("albumentations.Blur", p=2.0)]}, "less than or equal to 1"),
        ("data", {"photometric": [part("albumentations.Normalize", p=0.01)]}, "Normalize gives float32"),
    ],
)
def test_one_sentence(section, settings, word, data, tmp_path, monkeypatch, capsys):
    content = copy.deepcopy(config(data, WARMUP))
    content[section] |= settings
    path = write_config(tmp_path / "config.yaml", content)
    assert word in refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)


def test_an_error_of_a_users_own_part_keeps_its_traceback(data, tmp_path, monkeypatch):
    (tmp_path / "faulty_callback.py").write_text(
        "from lightning import Callback\n"
        "class Faulty(Callback):\n"
        "    def on_train_batch_start(self, *_):\n"
        "        raise ValueError('mine')\n"
    )
    content = config(data, WARMUP)
    content["trainer"]["callbacks"] += [part("faulty_callback.Faulty")]
    path = write_config(tmp_path / "config.yaml", content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="mine"):
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)


@pytest.mark.parametrize(
    ("module", "content", "said"),
    [
        ("unfinished", "class Mine(:", r"SyntaxError: 'invalid syntax (unfinished.py, line 1)'"),
        ("undefined", "import relo\nx = undefined", "undefined.py, line 2)"),
    ],
)
def test_a_module_of_a_users_own_that_cannot_be_imported(module, content, said, data, tmp_path, monkeypatch, capsys):
    (tmp_path / f"{module}.py").write_text(content)
    settings = config(data, WARMUP)
    settings["model"]["objective"] = part(f"{module}.Mine")
    path = write_config(tmp_path / "config.yaml", settings)
    monkeypatch.syspath_prepend(tmp_path)
    sentence = refused(monkeypatch, capsys, tmp_path, "fit", "--config", path)
    assert "A part that the config names cannot be imported: " in sentence
    assert said in sentence


@pytest.mark.parametrize("word", ["best", "hpc"])
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_checkpoints_that_only_lightning_knows(command, word, data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP))
    said = refused(monkeypatch, capsys, tmp_path, command, "--config", path, "--ckpt_path", word)
    assert f"no checkpoint '{word}'" in said


def test_nothing_to_validate_on(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    for change in ("--data.validation=[]", "--trainer.limit_val_batches=0"):
        arguments = ("validate", "--config", path, "--ckpt_path=last", "--trainer.limit_val_batches=1.0", change)
        assert "nothing to validate on" in refused(monkeypatch, capsys, tmp_path, *arguments)


def test_a_split_without_a_dataset(data):
    with pytest.raises(UserError, match="names the split 'val'"):
        SequenceDataset([SequenceSource(str(data.train), split="val")])


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    path = tmp_path / "last.ckpt"
    writer = InertCheckpointIO(None)
    writer.save_checkpoint({"state_dict": {"network.weight": torch.zeros(3)}}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"since network\.weight is no number"):
        writer.save_checkpoint({"state_dict": {"network.weight": torch.tensor([0, torch.nan])}}, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ToFloat", {}),
        ("ToGray", {"num_output_channels": 1}),
        ("FDA", {}),
        ("ChannelDropout", {"channel_drop_range": (1, 3), "p": 0.01}),
        ("Downscale", {"scale_range": (1e-4, 1e-4)}),
        ("ImageOnlyTransform", {}),
    ],
)
def test_a_transform_that_gives_no_image_back(name, settings):
    import albumentations

    with pytest.raises(UserError, match=rf"data\.photometric: {name} "):
        compose([getattr(albumentations, name)(**settings)])

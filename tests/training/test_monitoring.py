"""What a training shows: clips per step, the table, the figures; and that looking changes nothing."""

import copy
from dataclasses import replace
from io import StringIO
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from relo.learning.policy import ActorCritic
from relo.learning.rollout import Rollout
from relo.models.heads import CornerPrior
from relo.training.figures import seen_frames
from relo.training.monitoring import health_row
from small_networks import make_clip, make_network
from training_runs import ACTOR_CRITIC, WARMUP, config, losses, relo_here, write_config


class LikeWandb(CSVLogger):
    """A logger that takes pictures as files do."""

    taken: ClassVar = []

    def log_image(self, key, images, step):
        self.taken.append((key, images, step))


class LikeTensorboard(CSVLogger):
    """A logger whose experiment takes figures."""

    taken: ClassVar = []

    @property
    def experiment(self):
        experiment = super().experiment
        experiment.add_figure = lambda tag, figure, global_step: self.taken.append((tag, len(figure.axes), global_step))
        return experiment


def watched(data, objective, table=2, figures=2, **model):
    content = config(data, objective, **model)
    content["trainer"]["callbacks"] += [
        {"class_path": "relo.training.monitoring.HealthTable", "init_args": {"every_n_steps": table}},
        {"class_path": "relo.training.monitoring.PolicyFigures", "init_args": {"every_n_steps": figures, "frames": 3}},
    ]
    return content


def made_rollout(samples=1, network=None, absent=()) -> Rollout:
    network = network or make_network()
    for part in network.children():
        part.requires_grad_(False)
    clip = make_clip(batch=3)
    for place in absent:
        clip.present[place] = False
    objective = ActorCritic()
    objective.samples = samples
    return objective.collect(network, clip, torch.Generator().manual_seed(1)).detach()


def test_table_figures_and_batch_of_a_run(data, tmp_path, monkeypatch, capsys):
    content = watched(data, ACTOR_CRITIC)
    content["trainer"]["logger"] = [
        {"class_path": f"test_monitoring.{name}", "init_args": {"save_dir": "run", "name": name, "version": ""}}
        for name in ("LikeWandb", "LikeTensorboard")
    ] + [content["trainer"]["logger"]]
    path = write_config(tmp_path / "config.yaml", content)
    plain = write_config(tmp_path / "plain.yaml", config(data, ACTOR_CRITIC))
    relo_here(monkeypatch, "fit", "--config", plain, "--trainer.accumulate_grad_batches=2", cwd=tmp_path / "plain")
    printed = capsys.readouterr().out
    assert "4 clips per step: 2 per process x 1 process x 2 accumulated" in printed
    assert "greedy" not in printed
    relo_here(monkeypatch, "fit", "--config", plain, cwd=tmp_path / "unwatched")
    capsys.readouterr()
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    printed = capsys.readouterr().out

    assert "2 clips per step" in printed
    told = yaml.safe_load((tmp_path / "run/log/hparams.yaml").read_text())
    assert told == {
        "clips_per_step": 2, "batch_size": 2, "ranks": 1, "accumulate_grad_batches": 1, "updates_per_batch": 1
    }  # fmt: skip

    learned = losses(tmp_path / "run")
    assert learned == losses(tmp_path / "unwatched/run"), "looking must change nothing"
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] in (["2"], ["4"]) and "step" not in line]
    assert [int(row[0]) for row in rows] == [2, 4]
    assert [float(row[1]) for row in rows] == [
        pytest.approx((learned[step] + learned[step + 1]) / 2, abs=6e-4) for step in (0, 2)
    ]
    assert printed.count("explained") == 1, "one header for all rows"

    pictures = sorted((tmp_path / "run/figures").iterdir())
    assert [picture.name for picture in pictures] == ["step_000002.png", "step_000004.png"]
    first, second = (cv2.imread(str(picture)) for picture in pictures)
    assert min(first.shape[:2]) > 500
    assert (first != second).any()
    assert [(key, step) for key, _, step in LikeWandb.taken] == [("policy", 2), ("policy", 4)]
    # Three frames with policy and prior, the histogram, and a scale for each kind of map.
    assert LikeTensorboard.taken == [("policy", 3 * 3 + 1 + 3, 2), ("policy", 3 * 3 + 1 + 3, 4)]


def test_figures_of_what_has_no_policy(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", watched(data, WARMUP))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert stop.value.code == 2
    assert "WarmupObjective trains no policy to draw" in capsys.readouterr().err


@pytest.mark.parametrize("callback", ["HealthTable", "PolicyFigures"])
def test_every_no_steps(data, callback, tmp_path, monkeypatch, capsys):
    steps = {"HealthTable": {"table": 0}, "PolicyFigures": {"figures": 0}}[callback]
    path = write_config(tmp_path / "config.yaml", watched(data, ACTOR_CRITIC, **steps))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert stop.value.code == 2
    assert f"{callback} has every_n_steps = 0; it must be a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize("samples", [1, 4])
def test_frames_show_what_was_done(samples):
    rollout, network = made_rollout(samples), make_network()
    before = copy.deepcopy(network.state_dict())
    network.train()  # as in a run where the prior learns
    frames = seen_frames(rollout, network.prior, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.prior.training
    assert len(frames) == 4
    network.eval()
    for frame in frames:
        walk = next(
            (r, t) for r in range(0, len(rollout.actions), samples) for t in range(2)
            if np.array_equal(rollout.truth_xyxy[r, t].numpy(), frame.truth_xyxy)
        )  # fmt: skip
        cell = int(rollout.actions[walk])
        np.testing.assert_array_equal(frame.chosen_xyxy, rollout.cells_xyxy[walk].flatten(0, 1)[cell])
        assert frame.policy.sum() == pytest.approx(1, abs=1e-5)
        assert np.log(frame.policy.flatten()[cell]) == pytest.approx(float(rollout.log_probs[walk]), abs=1e-4)
        scores, _ = network.prior(rollout.features[walk][None])
        np.testing.assert_allclose(frame.prior, scores[0].detach(), atol=1e-6)
        best = int(frame.prior.argmax())
        np.testing.assert_array_equal(frame.prior_xyxy, rollout.cells_xyxy[walk].flatten(0, 1)[best])
        assert frame.image.dtype == np.uint8
    assert len({frame.image.tobytes() for frame in frames}) == 4, "of different frames"


def test_absent_frames_come_last():
    rollout = made_rollout(absent=[(0, 0), (1, 0), (1, 1), (2, 1)])
    assert [frame.truth_xyxy is None for frame in seen_frames(rollout, None, 2)] == [False, False]
    assert [frame.truth_xyxy is None for frame in seen_frames(rollout, None, 4)] == [False, False, True, True]
    assert seen_frames(rollout, None, 1)[0].prior is None


def test_priors_with_boxes_of_their_own():
    prior = CornerPrior(channels=16, hidden=(8, 8)).eval()
    rollout = made_rollout()
    frame = seen_frames(rollout, prior, 1)[0]
    _, boxes_cxcywh = prior(rollout.features[0, :1])
    center, size = boxes_cxcywh[0, 0, 0, :2], boxes_cxcywh[0, 0, 0, 2:]
    np.testing.assert_allclose(frame.prior_xyxy, torch.cat([center - size / 2, center + size / 2]).detach(), atol=1e-6)
    scored = replace(rollout, prior_scores=torch.rand(3, 2, 8, 8))
    np.testing.assert_array_equal(seen_frames(scored, prior, 1)[0].prior, scored.prior_scores[0, 0])


def test_columns_are_those_with_values():
    values = {"grad_norm": 2.0, "reward": 0.5, "reward_IoUReward": 0.25, "reward_MineReward": 0.25, "loss": -1e-5}
    table = health_row(7, values, with_header=True)
    titles = [str(column.header).replace("\n", " ") for column in table.columns]
    assert titles == ["step", "loss", "reward", "reward IoU", "reward Mine", "gradient norm"]
    console = Console(file=StringIO(), width=20)
    console.print(table, crop=False)
    assert console.file.getvalue().split()[-6:] == ["7", "-1e-05", "0.500", "0.250", "0.250", "2.000"], "none cut off"

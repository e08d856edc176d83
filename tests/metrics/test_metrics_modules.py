import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from relo.metrics import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate

METRICS = (SuccessAUC, Precision, NormalizedPrecision, AverageOverlap, SuccessRate)


def make_sequences(count: int = 5) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sequences = []
    for index in range(count):
        frames = 10 + 7 * index
        truth_xywh = torch.rand(frames, 4, generator=generator, dtype=torch.float64) * 50 + 20
        noise = torch.randn(frames, 4, generator=generator, dtype=torch.float64) * (2 + 3 * index)
        sequences.append((truth_xywh + noise, truth_xywh, torch.rand(frames, generator=generator) > 0.2))
    return sequences


def iou_xywh(first: np.ndarray, second: np.ndarray) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    intersection = max(width, 0) * max(height, 0)
    return intersection / (first[2] * first[3] + second[2] * second[3] - intersection)


def reference_scores(sequences: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    aucs, precisions, normalized, pooled = [], [], [], []
    for predicted_xywh, truth_xywh, present in sequences:
        overlaps, hits, normalized_hits = [], [], []
        for index, (box, truth) in enumerate(zip(predicted_xywh.numpy(), truth_xywh.numpy(), strict=True)):
            if not present[index]:
                continue
            overlap = iou_xywh(box, truth)
            offset = box[:2] + box[2:] / 2 - truth[:2] - truth[2:] / 2
            overlaps.append(overlap)
            hits.append(np.hypot(*offset) <= 20)
            normalized_hits.append(np.hypot(*(offset / truth[2:])) <= 0.2)
            if index > 0:
                pooled.append(overlap)
        aucs.append(np.mean([np.mean(np.array(overlaps) > step / 20) for step in range(21)]))
        precisions.append(np.mean(hits))
        normalized.append(np.mean(normalized_hits))
    return {
        "SuccessAUC": np.mean(aucs),
        "Precision": np.mean(precisions),
        "NormalizedPrecision": np.mean(normalized),
        "AverageOverlap": np.mean(pooled),
        "SuccessRate": np.mean(np.array(pooled) > 0.5),
        "standard_error": np.std(aucs, ddof=1) / np.sqrt(len(aucs)),
    }


def test_against_plain_numpy():
    expected = reference_scores(make_sequences())
    for kind in METRICS:
        metric = kind()
        for sequence in make_sequences():
            metric.update(*sequence)
        assert metric.compute().item() == pytest.approx(expected[kind.__name__], abs=1e-12), kind.__name__
        if kind is SuccessAUC:
            assert metric.standard_error().item() == pytest.approx(expected["standard_error"], abs=1e-12)
            assert metric.curve().mean().item() == pytest.approx(expected["SuccessAUC"], abs=1e-12)


def test_sequences_count_alike_and_frames_do_in_got10k():
    box = torch.tensor([[0.0, 0, 10, 10]])
    away = torch.tensor([[100.0, 0, 10, 10]])
    auc, overlap = SuccessAUC(), AverageOverlap()
    for metric in (auc, overlap):
        metric.update(box.repeat(3, 1), box.repeat(3, 1))
        metric.update(away.repeat(9, 1), box.repeat(9, 1))
    assert auc.compute().item() == pytest.approx(20 / 21 / 2)
    assert overlap.compute().item() == pytest.approx(2 / 10)  # the first frames are dropped


def test_first_frame_can_be_kept():
    box = torch.tensor([[0.0, 0, 10, 10]])
    metric = SuccessRate(drop_first=False)
    metric.update(box, box)
    assert metric.compute() == 1


def test_states_have_a_fixed_size():
    for kind in METRICS:
        metric = kind()
        before = {name: state.shape for name, state in metric.metric_state.items()}
        metric.update(*make_sequences(1)[0])
        assert {name: state.shape for name, state in metric.metric_state.items()} == before


def test_reset_forgets():
    metric = SuccessAUC()
    metric.update(*make_sequences(1)[0])
    metric.reset()
    assert metric.sequences == 0
    assert metric.curve_sum.sum() == 0


def test_sequence_without_a_frame_that_counts_is_left_out():
    predicted_xywh, truth_xywh, present = make_sequences(1)[0]
    with_it, without = SuccessAUC(), SuccessAUC()
    for metric in (with_it, without):
        metric.update(predicted_xywh, truth_xywh, present)
    with_it.update(predicted_xywh, truth_xywh, torch.zeros_like(present))
    assert with_it.compute() == without.compute()


def test_integration_is_a_named_option():
    box = torch.tensor([[0.0, 0, 10, 10]])
    metric = SuccessAUC(integration="trapezoid")
    metric.update(box, box)
    assert metric.compute().item() == pytest.approx(0.975)


def test_unknown_precision_threshold():
    with pytest.raises(ValueError, match=r"20\.5"):
        Precision(threshold=20.5)


def test_plot(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    metric = SuccessAUC()
    metric.update(*make_sequences(1)[0])
    figure, axes = metric.plot()
    assert axes.lines or axes.collections
    figure.clear()


def _score_a_shard(rank: int, shards: list[list[int]], folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(shards))
    sequences = make_sequences()
    results = {}
    for kind in METRICS:
        metric = kind()
        for index in shards[rank]:
            metric.update(*sequences[index])
        results[kind.__name__] = metric.compute()
        if kind is SuccessAUC:
            results["standard_error"] = metric.standard_error()
            results["curve"] = metric.curve()
            results["own"] = metric.sequences  # the local state is whole again after a sync
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "shards",
    [
        pytest.param([[0, 1, 2, 3], [4]], id="uneven", marks=pytest.mark.slow),
        pytest.param([[0, 1, 2, 3, 4], []], id="one is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_score_as_one(shards, tmp_path):
    mp.spawn(_score_a_shard, args=(shards, tmp_path), nprocs=2)
    expected = reference_scores(make_sequences())
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            assert results[name].item() == pytest.approx(value, abs=1e-12), (rank, name)
        assert results["curve"].mean().item() == pytest.approx(expected["SuccessAUC"], abs=1e-12)
        assert results["own"] == len(shards[rank])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("short", range(3))
def test_one_box_or_flag_does_not_stand_for_many(metric, short):
    values = list(make_sequences(1)[0])
    values[short] = values[short][:1]
    with pytest.raises(ValueError, match="do not belong together"):
        metric().update(*values)

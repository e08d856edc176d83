import argparse

import numpy as np
import pytest
import torch

from relo.geometry import CropRule, cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.models.checkpoints.weights import save_network
from small_networks import make_network

OPTIONS = {"start": 0, "stop": None, "clips": 24, "frames": 2, "batch": 8, "seed": 5}
WORDS = ["--clips", "24", "--frames", "2", "--batch", "8"]


@pytest.fixture
def cell_choice(script):
    return script("cell_choice")


@pytest.fixture
def model(tmp_path):
    save_network(make_network(), tmp_path / "model")
    return tmp_path / "model"


def cells_by_hand(loader, network, is_policy):
    """IoU of the chosen box, of the best of its neighbourhood and of the best, of every frame, by sequence."""
    rows = {}
    for clip in loader:
        templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
        memory = None
        for t in range(2):
            maps, memory = network(clip.search_images[:, t], templates, memory)
            scores = maps.policy_logits if is_policy else maps.prior_scores
            for b in np.flatnonzero(clip.present[:, t]):
                truth_xyxy = xywh_to_xyxy(clip.search_boxes_xywh[b, t]).clamp(0, 1)
                ious = iou(cxcywh_to_xyxy(maps.boxes_cxcywh[b]), truth_xyxy).numpy()
                r, c = np.unravel_index(scores[b].numpy().argmax(), ious.shape)
                near = ious[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
                rows.setdefault(clip.sequence_id[b], []).append((ious[r, c], near.max(), ious.max()))
    return [100 * np.array(of_sequence) for of_sequence in rows.values()]


@torch.no_grad()
def test_the_table_has_what_each_map_chose_and_could_have_chosen(cell_choice, model, data, capsys):
    cell_choice.main([f"policy:{model}", f"prior:{model}", "--store", str(data.train), *WORDS])
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if str(model) in line]
    options = argparse.Namespace(store=str(data.train), **OPTIONS)
    assert len(lines) == 2
    chosen = []
    for line, is_policy in zip(lines, (True, False), strict=True):
        loader = cell_choice.clip_loader((CropRule(2.0, 32), CropRule(4.0, 64)), options)
        rows = cells_by_hand(loader, make_network().eval(), is_policy)
        found = [frames[:, 0][frames[:, 0] >= 10] for frames in rows]
        assert float(line[2]) == pytest.approx(np.mean([frames[:, 0].mean() for frames in rows]), abs=0.051)
        assert float(line[4]) == pytest.approx(
            np.mean([100 * (frames[:, 0] < 10).mean() for frames in rows]), abs=0.051
        )
        assert float(line[5]) == pytest.approx(np.mean([ious.mean() for ious in found if len(ious)]), abs=0.051)
        assert float(line[6]) == pytest.approx(np.mean([frames[:, 1].mean() for frames in rows]), abs=0.051)
        assert float(line[7]) == pytest.approx(np.mean([frames[:, 2].mean() for frames in rows]), abs=0.051)
        chosen.append(np.array([frames[:, 0].mean() for frames in rows]))
    assert not lines[0][3].strip()
    difference, error = map(float, lines[1][3].split("±"))
    assert difference == pytest.approx((chosen[1] - chosen[0]).mean(), abs=0.0051)
    assert error == pytest.approx((chosen[1] - chosen[0]).std(ddof=1) / len(chosen[0]) ** 0.5, abs=0.0051)


def test_a_map_beside_itself_makes_no_difference(cell_choice, model, data, capsys):
    cell_choice.main([f"policy:{model}", f"policy:{model}", "--store", str(data.train), *WORDS])
    assert "+0.00 ± 0.00" in capsys.readouterr().out


@pytest.mark.parametrize("told", ["heat:MODEL", "MODEL", "policy:nowhere"])
def test_what_is_no_map_ends_in_a_sentence(cell_choice, model, data, told, capsys):
    with pytest.raises(SystemExit) as stop:
        cell_choice.main([told.replace("MODEL", str(model)), "--store", str(data.train)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "is not policy:MODEL or prior:MODEL." in error or "There is no model nowhere" in error

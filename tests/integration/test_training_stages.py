"""From data to a tracked video: both stages, validation and tracking, each in a process of its own."""

import json
import re
import shutil
import time

import numpy as np
import pytest

from relo.data.clip_store import ClipStore
from relo.data.sequences.parsing import read_boxes
from relo.tracking.boxes_file import box_line
from relo.tracking.sources import open_frames
from training_runs import ACTOR_CRITIC, WARMUP, config, losses, relo, write_config


def test_warmup_then_policy_then_validation_then_tracking(data, tmp_path):
    warmup = write_config(tmp_path / "warmup" / "config.yaml", config(data, WARMUP))
    printed = relo("fit", "--config", warmup, cwd=warmup.parent)
    assert "Traceback" not in printed
    assert not re.search("Tip:|LeafSpec|FLOPs", printed)
    assert len(losses(warmup.parent / "run")) == 4

    weights = warmup.parent / "run/checkpoints/last.ckpt"
    settings = config(data, ACTOR_CRITIC, init_from=str(weights), fresh_parts=["policy", "critic"])
    policy = write_config(tmp_path / "policy" / "config.yaml", settings)
    relo("fit", "--config", policy, cwd=policy.parent)
    assert len(losses(policy.parent / "run")) == 4

    checkpoint = policy.parent / "run/checkpoints/last.ckpt"
    relo(
        "validate", "--config", policy, "--ckpt_path", checkpoint, "--trainer.limit_val_batches=1.0", cwd=policy.parent
    )
    assert len(losses(policy.parent / "run")) == 4, "validation must leave the log of the fit alone"
    validation = policy.parent / "run/validation"
    _check_validation(validation, data)

    name = ClipStore(data.test).names[0]
    truth_xywh = ClipStore(data.test)[0].boxes_xywh
    frames = next(path for path in data.test_root.rglob("img") if path.parent.name == name)
    boxes, video = tmp_path / "boxes.txt", tmp_path / "video.mp4"
    given = ("--box", box_line(truth_xywh[0].tolist()), "--model", checkpoint, "--device", "cpu")
    relo("track", frames, *given, "--save", boxes, "--render", video, cwd=tmp_path)
    # The tracker of the command line is the one that was validated.
    np.testing.assert_allclose(read_boxes(boxes), read_boxes(validation / "policy/lasot" / f"{name}.txt"), atol=0.05)
    assert len(list(open_frames(video))) == 12
    _check_report(tmp_path / "demo", warmup.parent / "run", policy.parent / "run", data)


def _check_report(demo, warmup, policy, data):
    """`relo report` on the two runs, laid out as `make demo` leaves them."""
    shutil.copytree(warmup, demo / "warmup")
    shutil.copytree(policy, demo / "rl")
    shutil.copy(policy / "checkpoints/last.ckpt", demo / "rl/rl.ckpt")
    relo("report", demo, "--sequences", data.test, "--started", time.time() - 100, cwd=demo)
    validated = json.loads((demo / "rl/validation/scores.json").read_text())
    scores = json.loads((demo / "scores.json").read_text())
    assert scores["policy"]["auc"] == validated["policy"]["auc"]
    assert 100 <= scores["seconds"] < 400
    page = (demo / "report.html").read_text()
    shown = [f"{100 * validated[name]['auc']:.2f} ± " for name in ("policy", "prior")]
    assert all(figure in page for figure in shown)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(list(open_frames(demo / "demo.mp4"))) == 3 * 12
    assert "data:video/mp4;base64," in page


def _check_validation(folder, data):
    scores = json.loads((folder / "scores.json").read_text())
    store = ClipStore(data.test)
    assert scores["sequences"] == 3
    for localization in ("policy", "prior"):
        assert 0 <= scores[localization]["auc"] <= 1
        per_sequence = scores["per_sequence"][localization]
        assert set(per_sequence) == {f"lasot/{name}" for name in store.names}
        assert np.mean(list(per_sequence.values())) == pytest.approx(scores[localization]["auc"], abs=1e-6)
        for number, name in enumerate(store.names):
            boxes_xywh = read_boxes(folder / localization / "lasot" / f"{name}.txt")
            assert boxes_xywh.shape == (12, 4)
            np.testing.assert_allclose(boxes_xywh[0], store[number].boxes_xywh[0], atol=1e-3)
            assert (boxes_xywh[1:] % 1 > 0).any(), "boxes must not be rounded to whole pixels"
    assert (folder / "success.png").read_bytes().startswith(b"\x89PNG")

"""No state leaks from one target to the next: the order of sequences changes no box."""

import json
from pathlib import Path

import numpy as np
import pytest

from relo.data.clip_store import ClipStore
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.sequences.parsing import read_boxes
from relo.data.synthetic.command import synthesize
from relo.evaluation.one_pass import run_one_pass
from relo.models.checkpoints.weights import save_network
from training_runs import WARMUP, config, relo_here, write_config


def boxes(folder):
    files = sorted(path for path in (folder / "run/validation").rglob("*.txt") if "_" not in path.stem)
    return {str(path.relative_to(folder)): read_boxes(path) for path in files}


def test_order_of_sequences_changes_no_box(data, network, tmp_path, monkeypatch):
    save_network(network, tmp_path / "model")
    names = ClipStore(data.test).names
    found = {}
    for order, batch in (((0, 1, 2), 1), ((2, 1, 0), 1), ((1,), 1), ((2, 0, 1), 3)):  # one by one, and side by side
        content = config(data, WARMUP, init_from=str(tmp_path / "model"))
        content["trainer"]["limit_val_batches"] = 1.0
        content["data"]["validation"] = [{"path": str(data.test), "start": i, "stop": i + 1} for i in order]
        content["data"]["validation_batch"] = batch
        folder = tmp_path / f"{order}-{batch}"
        path = write_config(folder / "config.yaml", content)
        relo_here(monkeypatch, "validate", "--config", path, cwd=folder)
        found[order, batch] = boxes(folder)
    first = found.pop(((0, 1, 2), 1))
    assert len(first) == 2 * len(names)
    for (order, batch), others in found.items():
        assert len(others) == 2 * len(order)
        for name, boxes_xywh in others.items():
            rounding = 0 if batch == 1 else 0.02  # px; a batch's sums are rounded otherwise
            np.testing.assert_allclose(boxes_xywh, first[name], rtol=0, atol=rounding)


def test_the_scores_of_one_sequence_are_json(data, network, tmp_path, monkeypatch):
    """There is no standard error of one."""
    save_network(network, tmp_path / "model")
    content = config(data, WARMUP, init_from=str(tmp_path / "model"))
    content["trainer"]["limit_val_batches"] = 1.0
    content["data"]["validation"] = [{"path": str(data.test), "stop": 1}]
    path = write_config(tmp_path / "config.yaml", content)
    relo_here(monkeypatch, "validate", "--config", path, cwd=tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    scores = json.loads((tmp_path / "run/validation/scores.json").read_text(), parse_constant=refuse)
    assert scores["policy"]["auc_standard_error"] is None


def test_scores_do_not_depend_on_earlier_validations(data, network, tmp_path, monkeypatch):
    save_network(network, tmp_path / "model")
    content = config(data, WARMUP, init_from=str(tmp_path / "model"))
    content["trainer"]["limit_val_batches"] = 1.0
    path = write_config(tmp_path / "config.yaml", content)
    scores = []
    for _ in range(2):
        relo_here(monkeypatch, "validate", "--config", path, cwd=tmp_path)
        scores.append(json.loads((tmp_path / "run/validation/scores.json").read_text()))
    assert scores[0] == scores[1]
    assert scores[0]["policy"]["auc"] != pytest.approx(scores[0]["prior"]["auc"], abs=1e-9)


def test_a_validation_that_was_stopped_goes_on(data, network, tmp_path, monkeypatch):
    save_network(network, tmp_path / "model")
    content = config(data, WARMUP, init_from=str(tmp_path / "model"))
    content["trainer"]["limit_val_batches"] = 1.0
    content["data"]["validation_batch"] = 1
    path = write_config(tmp_path / "config.yaml", content)
    tracked = []

    def track(tracker, batch, **settings):
        if len(tracked) == stop_after:
            raise KeyboardInterrupt
        tracked.extend((tracker.rule.localization, sequence.name) for sequence in batch)
        return run_one_pass(tracker, batch, **settings)

    def validate(folder, *more):
        tracked.clear()
        folder.mkdir(exist_ok=True)
        relo_here(monkeypatch, "validate", "--config", path, *more, cwd=folder)
        files = sorted(file for file in (folder / "run/validation").rglob("*") if file.suffix in (".txt", ".json"))
        return {file.relative_to(folder): file.read_bytes() for file in files if not file.stem.endswith("_time")}

    monkeypatch.setattr("relo.training.validation.run_one_pass", track)
    stop_after = None
    whole = validate(tmp_path / "whole")
    assert len(tracked) == 6
    stop_after = 4
    with pytest.raises(SystemExit):
        validate(tmp_path / "stopped")
    stop_after = None
    assert validate(tmp_path / "stopped") == whole
    assert len(tracked) == 2  # those that were not done
    assert validate(tmp_path / "stopped") == whole
    assert len(tracked) == 6  # a finished validation is repeated
    stop_after = 4
    with pytest.raises(SystemExit):
        validate(tmp_path / "stopped")
    stop_after = None
    validate(tmp_path / "stopped", "--model.rule.window_exponent=0.5")
    assert len(tracked) == 6  # of another rule nothing is taken


def test_sequences_of_one_name_are_scored_by_themselves(data, network, tmp_path, monkeypatch):
    save_network(network, tmp_path / "model")
    content = config(data, WARMUP, init_from=str(tmp_path / "model"))
    content["trainer"]["limit_val_batches"] = 1.0
    other = tmp_path / "other"
    size = {"width": 160, "height": 120, "workers": 0}
    synthesize(other / "raw", layout="lasot", split="test", sequences=3, frames=12, seed=5, **size)
    stores = [str(data.test), str(other / "store")]
    pack(open_reader("lasot", other / "raw", "test"), Path(stores[1]), split="test")
    assert ClipStore(Path(stores[1])).names == ClipStore(data.test).names
    aucs = []
    for paths, batch in (([stores[0]], 1), ([stores[1]], 1), (stores, 1), (stores, 16)):
        content["data"] |= {"validation": [{"path": path} for path in paths], "validation_batch": batch}
        path = write_config(tmp_path / "config.yaml", content)
        relo_here(monkeypatch, "validate", "--config", path, cwd=tmp_path)
        scores = json.loads((tmp_path / "run/validation/scores.json").read_text())
        aucs.append(scores["policy"]["auc"])
        assert scores["sequences"] == 3 * len(paths)
        assert np.mean(list(scores["per_sequence"]["policy"].values())) == pytest.approx(aucs[-1], abs=1e-6)
    assert len({path.split("/", 1)[1] for path in boxes(tmp_path)}) == 2 * 6  # of two maps
    assert aucs[2] == pytest.approx((aucs[0] + aucs[1]) / 2, abs=1e-6)
    assert aucs[3] == pytest.approx(aucs[2], abs=1e-3)

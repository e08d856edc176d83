"""Configs as `relo fit` reads them."""

import pytest
import yaml

from relo.training.callbacks import AveragedWeights
from relo.training.monitoring import HealthTable, PolicyFigures
from relo.training.presence_calibration import CalibratePresence
from training_runs import WARMUP, config, relo_here, write_config


def test_classes_may_have_the_paths_of_saved_configs(data, tmp_path, monkeypatch, capsys):
    saved = {
        "relo.callbacks.AveragedWeights": AveragedWeights,
        "relo.monitoring.HealthTable": HealthTable,
        "relo.monitoring.PolicyFigures": PolicyFigures,
        "relo.presence_calibration.CalibratePresence": CalibratePresence,
    }
    content = config(data, WARMUP)
    content["trainer"]["callbacks"] += [{"class_path": class_path} for class_path in saved]
    path = write_config(tmp_path / "config.yaml", content)
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, "--print_config", cwd=tmp_path)
    assert stop.value.code == 0
    callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    found = [callback["class_path"] for callback in callbacks[1:]]
    assert found == [f"{kind.__module__}.{kind.__qualname__}" for kind in saved.values()]

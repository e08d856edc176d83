import csv
import os

import cv2
import numpy as np
import pytest


@pytest.fixture
def training_curves(script):
    return script("training_curves")


def write_log(folder, stage, when, name="metrics", first_step=0, **columns):
    path = folder / stage / f"log/{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", *(f"train/{name}" for name in columns)])
        for step, values in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow([0, first_step + 20 * step, *values])
    os.utime(path, (when, when))


def test_a_panel_per_stage_in_the_order_in_which_they_ended(training_curves, tmp_path):
    write_log(tmp_path, "warmup", 1, loss=[4, 2, 1], iou=[0.1, 0.4, ""])
    write_log(tmp_path, "presence", 3, loss=[0.4, 0.3], accuracy=[0.5, 0.8])
    write_log(tmp_path, "cooldown", 2, loss=[0.5, 0.4], iou=[0.5, 0.6], other=[7, 7])
    training_curves.main([str(tmp_path), "--output", str(tmp_path / "curves.png")])
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10
    stages = training_curves.stage_logs(tmp_path).items()
    figure = training_curves.draw({stage: training_curves.read_training(paths) for stage, paths in stages}, 0.5)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["warmup", "cooldown", "presence"]
    drawn, mean = panels[0].get_lines()
    assert drawn.get_xydata().tolist() == [[0, 4], [20, 2], [40, 1]]
    np.testing.assert_allclose(mean.get_ydata(), [4, (2 + 2) / 1.5, (1 + 1 + 1) / 1.75])


def test_a_training_that_was_stopped_is_one_curve(training_curves, tmp_path):
    write_log(tmp_path, "warmup", 1, "metrics_1", loss=[4, 3, 9], iou=[0.1, 0.2, 0.9])
    write_log(tmp_path, "warmup", 3, first_step=40, loss=[2, 1], iou=["", 0.4])
    write_log(tmp_path, "cooldown", 2, loss=[0.5, 0.4])
    stages = training_curves.stage_logs(tmp_path)
    assert list(stages) == ["cooldown", "warmup"]
    log = training_curves.read_training(stages["warmup"])
    assert log["train/loss"].tolist() == [[0, 4], [20, 3], [40, 2], [60, 1]]
    assert log["train/iou"].tolist() == [[0, 0.1], [20, 0.2], [60, 0.4]]


@pytest.mark.parametrize(
    ("log", "said"), [(None, "holds no <stage>"), ("step\n1,2", "is no log"), ("a,b\nx,", "no log")]
)
def test_what_is_no_log_is_one_sentence(training_curves, tmp_path, log, said, capsys):
    if log is not None:
        (tmp_path / "warmup/log").mkdir(parents=True)
        (tmp_path / "warmup/log/metrics.csv").write_text(log)
    with pytest.raises(SystemExit) as stop:
        training_curves.main([str(tmp_path), "--output", str(tmp_path / "curves.png")])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err

import csv
import os

import cv2
import numpy as np
import pytest


@pytest.fixture
def training_curves(script):
    return script("training_curves")


def write_log(folder, stage, when, **columns):
    path = folder / stage / "log/metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", *(f"train/{name}" for name in columns)])
        for step, values in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow([0, 20 * step, *values])
    os.utime(path, (when, when))


def test_a_panel_per_stage_in_the_order_in_which_they_ended(training_curves, tmp_path):
    write_log(tmp_path, "warmup", 1, loss=[4, 2, 1], iou=[0.1, 0.4, ""])
    write_log(tmp_path, "presence", 3, loss=[0.4, 0.3], accuracy=[0.5, 0.8])
    write_log(tmp_path, "cooldown", 2, loss=[0.5, 0.4], iou=[0.5, 0.6], other=[7, 7])
    training_curves.main([str(tmp_path), "--output", str(tmp_path / "curves.png")])
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10
    paths = sorted(tmp_path.glob("*/log/metrics.csv"), key=os.path.getmtime)
    figure = training_curves.draw({path.parts[-3]: training_curves.read_log(path) for path in paths}, 0.5)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["warmup", "cooldown", "presence"]
    drawn, mean = panels[0].get_lines()
    assert drawn.get_xydata().tolist() == [[0, 4], [20, 2], [40, 1]]
    np.testing.assert_allclose(mean.get_ydata(), [4, (2 + 2) / 1.5, (1 + 1 + 1) / 1.75])


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

import numpy as np
import pytest

from relo.data.sequences.parsing import read_boxes
from relo.tracking.boxes_file import read_values, write_boxes, write_values


def test_boxes_survive_a_round_trip_to_a_ten_thousandth(tmp_path):
    boxes_xywh = np.random.default_rng(0).uniform(-50, 4000, (30, 4))
    write_boxes(tmp_path / "new" / "a.txt", boxes_xywh)
    np.testing.assert_allclose(read_boxes(tmp_path / "new" / "a.txt"), boxes_xywh, rtol=0, atol=5.1e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("text", ["0.25\r\n1\r\n", "\ufeff0.25\n1"])
def test_values_however_they_were_saved(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(read_values(tmp_path / "a.txt", 2), [0.25, 1.0])


def test_values_of_another_length_do_not_count(tmp_path):
    write_values(tmp_path / "a.txt", [0.25, 1.0])
    np.testing.assert_array_equal(read_values(tmp_path / "a.txt", 2), [0.25, 1.0])
    assert read_values(tmp_path / "a.txt", 3) is None
    assert read_values(tmp_path / "b.txt", 2) is None

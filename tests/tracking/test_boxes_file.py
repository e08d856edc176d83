import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.boxes_file import read_boxes, read_values, write_boxes, write_values


def test_boxes_survive_a_round_trip_to_a_ten_thousandth(tmp_path):
    boxes_xywh = np.random.default_rng(0).uniform(-50, 4000, (30, 4))
    write_boxes(tmp_path / "new" / "a.txt", boxes_xywh)
    np.testing.assert_allclose(read_boxes(tmp_path / "new" / "a.txt"), boxes_xywh, rtol=0, atol=5.1e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("line", ["1,2.5,3,4", "1\t2.5\t3\t4", "1 2.5  3 4", "1, 2.5, 3, 4", "1;2.5;3;4"])
def test_delimiters(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"{line}\n{line}\n\n")
    np.testing.assert_array_equal(read_boxes(tmp_path / "a.txt"), [[1, 2.5, 3, 4]] * 2)


def test_nan_rows_are_kept(tmp_path):
    (tmp_path / "a.txt").write_text("1,2,3,4\nNaN,NaN,NaN,NaN\n")
    assert np.isnan(read_boxes(tmp_path / "a.txt")[1]).all()


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,5", "a,b,c,d", ""])
def test_broken_line_is_named(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"1,2,3,4\n{line}\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2"):
        read_boxes(tmp_path / "a.txt")


def test_binary_file_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not text"):
        read_boxes(tmp_path / "a.txt")


def test_values_of_another_length_do_not_count(tmp_path):
    write_values(tmp_path / "a.txt", [0.25, 1.0])
    np.testing.assert_array_equal(read_values(tmp_path / "a.txt", 2), [0.25, 1.0])
    assert read_values(tmp_path / "a.txt", 3) is None
    assert read_values(tmp_path / "b.txt", 2) is None

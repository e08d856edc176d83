import numpy as np
import pytest

from relo.data.sequences.parsing import (
    check_count,
    parse_box,
    positive_size,
    read_boxes,
    read_flags,
    read_names,
    read_numbers,
)
from relo.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\n5\t6\t7\t8",
        "1 2 3 4\r\n5 6 7 8\r\n",
        "1, 2, 3, 4\n5;6;7;8\n\n\n",
        "\ufeff1,2,3,4\n5,6,7,8",
        "\ufeff1\t2\t3\t4\r\n5\t6\t7\t8\r\n\r\n",
        "1 2  3 4 \n 5 ,6, 7,8,\n",
    ],
)
def test_any_delimiter_and_line_end(tmp_path, text):
    (tmp_path / "b.txt").write_bytes(text.encode())
    assert read_boxes(tmp_path / "b.txt").tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("text", ["-5,30,30.5,30", "-5;30;30.5;30", " -5\t30  30.5 30\n"])
def test_one_box(text):
    assert parse_box(text) == [-5, 30, 30.5, 30]


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4\n1,2,3,4", "30,,20,20,20", "30,,20,20", "1,2,3,x"])
def test_no_box(text):
    with pytest.raises(ValueError):
        parse_box(text)


def test_nan_and_exponents(tmp_path):
    (tmp_path / "b.txt").write_text("NaN,NaN,NaN,NaN\n1e2,-3.5,4,5.25\n")
    boxes_xywh = read_boxes(tmp_path / "b.txt")
    assert np.isnan(boxes_xywh[0]).all()
    assert boxes_xywh[1].tolist() == [100, -3.5, 4, 5.25]


def test_one_line_and_no_line(tmp_path):
    (tmp_path / "one.txt").write_text("1,2,3,4")
    (tmp_path / "none.txt").write_text("\n")
    assert read_boxes(tmp_path / "one.txt").shape == (1, 4)
    assert read_boxes(tmp_path / "none.txt").shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", r"b\.txt, line 2: 4 numbers expected, 3 found"),
        ("1,2,3,4\n1,2,3,4,5\n", "line 2: 4 numbers expected, 5 found"),
        ("1,2,3\n1,2,3,4,5\n", "line 1"),  # eight numbers in all, yet wrong
        ("1,2,3,4\n\n1,2,3,4\n", "line 2: 4 numbers expected, 0 found"),
        ("1,2,3,4\n1,2,x,4\n", r"line 2: '1 2 x 4' is not 4 numbers"),
        ("1,2,3,4\na,b,c,d\n", "line 2: 'a b c d'"),
        ("1,2,3,4\n1,,3,4\n", "line 2: '1 . 3 4'"),  # a number is left out
        ("1,2,3,4\n30,,20,20,20\n", "line 2"),
        ("1,2,3,4\n; 2;3;4\n", "line 2"),
        ("1,2,3,4\n" * 5000 + "1,2,3\n", "line 5001: 4 numbers expected, 3 found"),
        ("1,2,3,4\n" * 5000 + "1,2,x,4\n", "line 5001: '1 2 x 4' is not"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    (tmp_path / "b.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_boxes(tmp_path / "b.txt")


def test_unreadable_files(tmp_path):
    zeros = b"1,2,3,4\n" + bytes(16)  # the end of an unfinished copy
    saved_as_utf16 = "1,2,3,4\n".encode("utf-16")
    for content in (b"\xff\xfe\x00\x81", b"\xff\xd8\xff\xe0", zeros, saved_as_utf16, saved_as_utf16[2:]):
        (tmp_path / "binary.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"binary\.txt is not a text file in UTF-8"):
            read_boxes(tmp_path / "binary.txt")
    with pytest.raises(UserError, match=r"absent\.txt cannot be read"):
        read_boxes(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("text", ["0,0,1,0", "0\n0\n1\n0\n", "0.0 0.0 1.0 0.0\n", "0,\n0,\n1,\n0,\n"])
def test_flags_in_one_line_or_one_a_line(tmp_path, text):
    (tmp_path / "f.txt").write_text(text)
    assert read_flags(tmp_path / "f.txt").tolist() == [False, False, True, False]


def test_wrong_flags(tmp_path):
    (tmp_path / "f.txt").write_text("0,0,2")
    with pytest.raises(UserError, match="flag 3 is 2"):
        read_flags(tmp_path / "f.txt")
    (tmp_path / "f.txt").write_text("0\nyes\n")
    with pytest.raises(UserError, match="line 2: numbers expected, 'yes' found"):
        read_numbers(tmp_path / "f.txt")


@pytest.mark.parametrize("text", ["0,,0,1,0", ",0,0,1", "0,0\n;0,1", "0\n, ,0"])
def test_a_flag_that_is_left_out(tmp_path, text):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(UserError, match=r"line \d: numbers expected, '.*\?.*' found"):
        read_flags(tmp_path / "f.txt")


def test_last_name_needs_no_newline(tmp_path):
    (tmp_path / "list.txt").write_text("a-1\n\nb c-2\r\nvolleyball-19")
    assert read_names(tmp_path / "list.txt") == ["a-1", "b c-2", "volleyball-19"]


def test_counts(tmp_path):
    check_count(tmp_path / "x.txt", 3, 3, "frames")
    with pytest.raises(UserError, match=r"x\.txt has 2 rows for 3 frames"):
        check_count(tmp_path / "x.txt", 2, 3, "frames")


def test_positive_size():
    boxes_xywh = np.array([[-5, -5, 1, 1], [0, 0, 0, 4], [0, 0, 4, -1], [np.nan, 0, 3, 3], [1, 1, np.inf, 1]])
    assert positive_size(boxes_xywh).tolist() == [True, False, False, False, False]


def test_a_long_file_is_read_whole(tmp_path):
    rows = np.random.default_rng(0).uniform(0, 1000, (2500, 4))
    (tmp_path / "b.txt").write_text("".join(",".join(f"{v:.4f}" for v in row) + "\n" for row in rows))
    np.testing.assert_allclose(read_boxes(tmp_path / "b.txt"), rows, atol=1e-4)


@pytest.mark.parametrize("name", ["../b", "a/../../b", "/b", "..", "..\\b"])
def test_a_list_that_leads_elsewhere(tmp_path, name):
    """Results would be written under this name."""
    (tmp_path / "list.txt").write_text(f"a\n{name}\n")
    with pytest.raises(UserError, match=r"list\.txt has '.*', a path that leads elsewhere"):
        read_names(tmp_path / "list.txt")

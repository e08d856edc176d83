import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what memory is shared")


def test_a_row_is_a_store_which_is_used_again(tmp_path, script, capsys):
    store_scale = script("store_scale")
    options = ["--frames", "90", "--lengths", "30", "1", "--batches", "1", "--workers", "2", "--folder", str(tmp_path)]
    for _ in range(2):
        store_scale.main(options)
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("90")]
        assert [row[:2] for row in rows] == [["90", "30"], ["90", "1"]]
        for _, _, index, opened, own, together, clips in rows:
            assert 0 <= float(index) < 1
            assert float(opened) < 10
            assert 0 < float(own) < float(together)
            assert float(clips) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["90_by_1", "90_by_30"]

import pytest

pytest.importorskip("resource", reason="the time of cores is measured on Unix")


def test_every_way_to_pack_has_a_row(script, capsys):
    script("packing").main(["--sequences", "2", "--frames", "2", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert "Packing 4 frames" in printed
    rows = [line.rsplit(maxsplit=7) for line in printed.splitlines() if "kept" in line or "scaled " in line]
    assert [row[0].strip() for row in rows] == ["cut, scaled", "decoded, kept", "kept", "kept, synced"]
    assert all(float(number) >= 0 for row in rows for number in row[1:])

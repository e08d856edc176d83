def test_a_row_is_a_way_to_write(script, capsys):
    script("video_writing").main(["--size", "64x48", "--count", "4"])
    printed = capsys.readouterr().out
    for name in ("draw, targets: 8", "relo .mp4", "relo .webm", "OpenCV .avi, MJPG"):
        assert name in printed

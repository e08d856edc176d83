import re

from relo.tracking import crops


def test_rates_and_their_ratio_are_printed(script, monkeypatch, capsys):
    runner = script("runner")
    monkeypatch.setattr(crops, "normalise_images", crops.normalise_images)  # to be put back

    small = {"width": 64, "height": 48, "sequences": 3, "frames": 4, "workers": 2, "batch_size": 2, "rounds": 3}
    runner.main([word for name, value in small.items() for word in (f"--{name}", str(value))])
    printed = capsys.readouterr().out
    rounds = re.findall(r"decoding (\S+) frames/s.* runner (\S+) frames/s.* ratio (\S+), of", printed)
    assert len(rounds) == 3
    for decoding, running, ratio in rounds:
        assert abs(float(running) / float(decoding) - float(ratio)) < 0.01
    assert printed.splitlines()[-1].startswith(f"median ratio {sorted(ratio for *_, ratio in rounds)[1]},")

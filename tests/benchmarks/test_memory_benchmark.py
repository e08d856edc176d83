import json
import mmap
import os

import pytest
import yaml

from training_runs import NETWORK


@pytest.fixture
def memory(script):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("Linux alone tells what a process holds")
    return script("memory")


def test_memory_that_grows_is_seen(memory):
    samples, kept = memory.Samples(100), []
    for done in range(1, 101):
        # Of the system: an allocator may have room that earlier tests left.
        kept.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        kept[-1].write(os.urandom(1 << 20))
        samples.take(done)
    tenth, half, whole = samples.medians()
    assert 30 < half - tenth < 50
    assert 40 < whole - half < 60


def test_targets_are_tracked_through_templates_and_losses(tmp_path, memory):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(NETWORK))
    megabytes = memory.track(str(path), 40)
    assert len(megabytes) == 3
    assert max(megabytes) < 1.2 * min(megabytes)


def test_a_fit_leaves_its_memory_in_a_file(tmp_path, memory):
    probe = memory.Probe(str(tmp_path / "memory.json"), 20)
    trainer = type("Trainer", (), {"global_step": 0})()
    for trainer.global_step in range(1, 21):
        probe.on_train_batch_end(trainer)
    probe.on_train_end(trainer)
    assert len(json.loads((tmp_path / "memory.json").read_text())) == 3


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--frames", "3"], "20 frames"), (["--models", "none.yaml"], "no model none.yaml")]
)
def test_what_cannot_be_measured_is_one_sentence(memory, arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        memory.main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err

"""Files that attack: nothing of them is run, nothing is written outside, and no memory is taken without bound."""

import pickle
import random
import zipfile
from pathlib import Path

import cv2
import forked_relo
import numpy as np
import pytest
import torch
import yaml

from relo.models.checkpoints.weights import save_network
from small_networks import make_network
from training_runs import WARMUP, config, write_config

ROWS = "10,10,20,20\n" * 12
MEMORY = 2 << 30  # bytes; a tracker with torch takes half of it


def ended(arguments: list[object], cwd: Path) -> tuple[int, str]:
    """The exit code, 0 or 2, of a command that may not take long, and what it says."""
    code, said = forked_relo.ending(list(map(str, arguments)), cwd, seconds=60)
    assert "Traceback" not in said, said
    assert code in (0, 2), said
    assert forked_relo.peak_memory(cwd) < MEMORY
    for suffix in (".log", ".peak"):
        cwd.with_suffix(suffix).unlink()
    return code, said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------------------- zips

OUTSIDE = ["../a.txt", "mine/../../a.txt", "/tmp/a.txt", "//a.txt", "..\\a.txt", "C:\\a.txt", "mine/..", "./../a.txt"]


@pytest.mark.parametrize("name", [OUTSIDE[0], *(pytest.param(name, marks=pytest.mark.torture) for name in OUTSIDE[1:])])
def test_a_zip_that_leads_outside(tmp_path, name):
    (tmp_path / "work" / "truth").mkdir(parents=True)
    (tmp_path / "work/truth/a.txt").write_text(ROWS)
    (tmp_path / "a.txt").write_text("90,90,1,1\n" * 12)
    with zipfile.ZipFile(tmp_path / "work/mine.zip", "w") as archive:
        archive.writestr("mine/a.txt", ROWS)
        archive.writestr(name, "1,1,1,1\n" * 12)
    before = contents(tmp_path)
    for results, truth in (("mine.zip", "truth"), ("truth", "mine.zip")):
        arguments = ["evaluate", results, "--benchmark=plain", "--annotations", truth, "--json=s.json", "--report=r"]
        code, said = ended(arguments, tmp_path / "work")
        assert code == 2
        assert "mine.zip" in said
    assert contents(tmp_path) == before


@pytest.mark.torture
@pytest.mark.parametrize("text", [b"0" * 1024, b"10,10,20,20\n" * 85, b"\n" * 1024, b"nan,nan,nan,nan\n" * 64])
@pytest.mark.parametrize("files", [1, 300])
def test_a_zip_that_expands(tmp_path, text, files, generator):
    folder = tmp_path / "work"
    (folder / "truth").mkdir(parents=True)
    (folder / "truth/a.txt").write_text(ROWS)
    block = text * 1024
    blocks = generator.choice([15, 17, 200, 2000]) if files == 1 else 4
    with zipfile.ZipFile(folder / "mine.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            name = "a.txt" if number == 0 else f"s{number}.txt"
            with archive.open(f"mine/{name}", "w") as file:
                for _ in range(blocks):
                    file.write(block)
    ended(["evaluate", "mine.zip", "--benchmark=plain", "--annotations=truth"], folder)


# --------------------------------------------------------------------------------------------------------- checkpoints


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def attacks(mark: Path) -> dict[str, object]:
    call = Calls(exec, f"open({str(mark)!r}, 'w')")
    network = make_network()
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    sound = {"state_dict": state, "relo_network": network.config(), "global_step": 2}
    return {
        "alone": call,
        "beside the tensors": sound | {"callbacks": {"a": call}, "loops": call},
        "for a tensor": sound | {"state_dict": state | {next(iter(state)): call}},
        "for the network": sound | {"relo_network": call},
        "for the rule": sound | {"relo_rule": call},
        "as a key": sound | {"hyper_parameters": {"a": [{"b": call}]}},
        "for a number": sound | {"global_step": call},
        "for the optimizer": sound | {"optimizer_states": [call], "lr_schedulers": [call]},
    }


@pytest.mark.parametrize("saving", ["torch", "pickle"])
def test_checkpoints_that_would_run_something(data, tmp_path, generator, saving):
    _attack_commands(data, tmp_path, generator, saving, 2)


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("saving", ["torch", "old torch", "pickle"])
def test_all_checkpoints_that_would_run_something(data, tmp_path, generator, saving):
    _attack_commands(data, tmp_path, generator, saving, 50)


def _attack_commands(data, tmp_path: Path, generator: random.Random, saving: str, most: int) -> None:
    """Hand checkpoints to each command that reads one."""
    folder, mark, given = tmp_path / "work", tmp_path / "mark", "attack.ckpt"
    folder.mkdir()
    box, video = ["--box=10,10,20,20"], next(data.test_root.rglob("img"))
    fit = ["--config", write_config(tmp_path / "config.yaml", config(data, WARMUP))]
    source = ["--dataset=lasot", "--root", data.test_root, "--device=cpu"]
    commands = [
        ["track", video, *box, "--model", given, "--device=cpu"],
        ["test", "--model", given, *source, "--output=out"],
        ["export", "--model", given, "--format=safetensors", "--output=model"],
        ["import", given, "--variant=b256", "--output=released"],
        ["fit", *fit, "--ckpt_path", given],
        ["validate", *fit, "--ckpt_path", given],
        ["fit", *fit, "--model.init_from", given, "--trainer.max_steps=1"],
    ]
    tried = [(attack, command) for attack in attacks(mark) for command in commands]
    for attack, command in generator.sample(tried, min(most, len(tried))):
        made = attacks(mark)[attack]
        if saving == "pickle":
            (folder / given).write_bytes(pickle.dumps(made))
        else:
            torch.save(made, folder / given, _use_new_zipfile_serialization=saving == "torch")
        ended(command, folder)
        assert not mark.exists(), (attack, command)


# ---------------------------------------------------------------------------------------------------------------- YAML


def test_yaml_that_would_run_something(data, tmp_path):
    folder, mark = tmp_path / "work", tmp_path / "mark"
    folder.mkdir()
    call = f'!!python/object/apply:os.system ["touch {mark}"]\n'
    (folder / "attack.yaml").write_text(call)
    (folder / "within.yaml").write_text(f"window: {call}")
    save_network(make_network(), folder / "model")
    save_network(make_network(), folder / "sound")
    network = (folder / "model/config.yaml").read_text()
    video = ["track", next(data.test_root.rglob("img")), "--box=10,10,20,20", "--device=cpu"]
    for changed in (call, f"{network}\nmore: {call}"):
        (folder / "model/config.yaml").write_text(changed)
        assert ended([*video, "--model=model"], folder)[0] == 2
    for name in ("attack.yaml", "within.yaml"):
        assert ended([*video, "--model=sound", "--rule", name], folder)[0] == 2
        assert ended(["fit", "--config", name], folder)[0] == 2
        assert ended(["ablate", name], folder)[0] == 2
    (folder / "model/config.yaml").write_text(
        yaml.safe_dump({"class_path": "os.system", "init_args": {"command": f"touch {mark}"}})
    )
    assert ended([*video, "--model=model"], folder)[0] == 2
    assert not mark.exists()


def test_a_list_that_leads_outside(tmp_path):
    """Results are written under the name that a list gives a sequence."""
    folder = tmp_path / "work"
    (folder / "root/test").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "groundtruth.txt").write_text("10,10,20,20\n")
    cv2.imwrite(str(outside / "00000001.jpg"), np.zeros((48, 64, 3), np.uint8))
    (folder / "root/test/list.txt").write_text("../../../outside\n")
    save_network(make_network(), tmp_path / "model")
    before = contents(tmp_path)
    arguments = ["test", "--model", tmp_path / "model", "--dataset=got10k", "--root=root", "--output=out/a"]
    assert ended([*arguments, "--device=cpu"], folder)[0] == 2
    assert contents(tmp_path) == before

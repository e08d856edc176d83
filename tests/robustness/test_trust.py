"""The classes of a downloaded model are relo's, unless the person allows others; nothing is imported unchecked."""

import importlib
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

from relo.commands.main import main
from relo.data.sampler import ClipSampler
from relo.errors import UserError
from relo.evaluation.rules import find_rule
from relo.evaluation.scoring import ScoringRule
from relo.learning.priors import Prior
from relo.learning.rewards import RewardTerm
from relo.learning.rollout import RolloutRule
from relo.models.checkpoints.plugin import Plugin, PluginModule, build
from relo.models.checkpoints.weights import load_network, save_network
from relo.models.encoders.base import Encoder
from relo.models.heads import BoxHead, Critic, PolicyHead, PriorHead
from relo.models.network import LocalizationNetwork
from relo.models.presence import PresenceHead
from relo.models.temporal import TemporalPropagator
from small_networks import make_network

OWN = """
from pathlib import Path
from relo.models.encoders.nano import Nano

Path(__file__).with_name("imported").touch()


class Mine(Nano):
    pass
"""


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """A model whose encoder is a class of `stranger.py`, which lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(OWN)
    save_network(make_network(), tmp_path / "model")
    path = tmp_path / "model/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["init_args"]["encoder"]["class_path"] = "stranger.Mine"
    path.write_text(yaml.safe_dump(config))
    yield tmp_path / "model"
    sys.modules.pop("stranger", None)


def test_a_strange_class_is_not_imported(model):
    with pytest.raises(UserError, match=r"'stranger.Mine'.*--trust stranger"):
        load_network(model)
    assert not (model.parent / "imported").exists()


def test_nor_from_a_checkpoint(model):
    config = yaml.safe_load((model / "config.yaml").read_text())
    state = {f"network.{name}": tensor for name, tensor in make_network().state_dict().items()}
    torch.save({"relo_network": config, "state_dict": state}, model.parent / "last.ckpt")
    with pytest.raises(UserError, match="--trust stranger"):
        load_network(model.parent / "last.ckpt")
    assert not (model.parent / "imported").exists()


def test_the_person_may_allow_it(model, monkeypatch):
    monkeypatch.setenv("RELO_TRUST", "other, stranger")
    assert type(load_network(model).encoder).__name__ == "Mine"


def test_an_option_allows_it(model, monkeypatch, capsys):
    monkeypatch.setenv("RELO_TRUST", "")
    arguments = ["export", "--model", str(model), "--format", "safetensors", "--output", str(model.parent / "copy")]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "--trust stranger" in capsys.readouterr().err
    main([*arguments, "--trust", "other", "--trust", "stranger"])
    assert (model.parent / "copy/model.safetensors").is_file()
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--trust", "a/b.py"])
    assert "'a/b.py' is no module" in capsys.readouterr().err


def test_onnx_is_exported_without_options(tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr("relo.commands.export.export_onnx", lambda *arguments: exported.append(arguments) or 1 / 0)
    save_network(make_network(), tmp_path / "model")
    with pytest.raises(ZeroDivisionError):
        main(["export", "--model", str(tmp_path / "model")])
    assert exported[0][2] >= 1  # the rule's templates


@pytest.mark.parametrize("function", ["os.system", "builtins.exec", "builtins.eval", "subprocess.Popen", "torch.load"])
@pytest.mark.parametrize("place", ["root", "part", "nested"])
def test_what_the_program_has_imported_is_not_called(tmp_path, monkeypatch, function, place):
    called = []

    class Spy:
        """Is no plug-in, and says so when it is called."""

        def __init__(self, *arguments, **options):
            called.append(function)

    module, _, name = function.rpartition(".")
    part = {"class_path": function, "init_args": {"command": "touch owned", "source": "1", "f": "x", "args": ["touch"]}}
    save_network(make_network(), tmp_path / "model")
    path = tmp_path / "model/config.yaml"
    config = yaml.safe_load(path.read_text())
    if place == "root":
        config = part
    elif place == "part":
        config["init_args"]["encoder"] = part
    else:
        config["init_args"]["encoder"]["init_args"]["width"] = [part]
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(f"{module}.{name}", Spy)
    with pytest.raises(UserError, match="not a part of a network"):
        load_network(tmp_path / "model")
    assert not called


def test_every_class_that_a_config_can_name_is_a_part():
    """Of all that modules in memory hold, `build` calls subclasses of the families' bases alone."""
    families = (Encoder, TemporalPropagator, PolicyHead, Critic, BoxHead, PriorHead, PresenceHead, LocalizationNetwork)
    families += (ScoringRule, ClipSampler, RolloutRule, Prior, RewardTerm)
    called = []
    for module_name in ("builtins", "os", "subprocess", "torch", "torch.hub", "pickle", "importlib", "runpy", "timm"):
        module = importlib.import_module(module_name)
        for name in vars(module):
            with pytest.raises(UserError):
                called.append(build({"class_path": f"{module_name}.{name}"}))
    assert not called
    own = [part for part in subclasses(Plugin) if part.__module__.startswith("relo.")]
    assert all(issubclass(part, families) for part in own if part is not PluginModule)


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__())) - {Plugin}


def test_a_module_s_own_lookup_is_not_asked(monkeypatch):
    module = types.ModuleType("lazy")
    asked = []
    module.__getattr__ = asked.append
    monkeypatch.setitem(sys.modules, "lazy", module)
    with pytest.raises(UserError, match="there is none"):
        build({"class_path": "lazy.Part"})
    assert not asked


def test_a_config_makes_nothing_be_fetched_or_read(model, monkeypatch):
    fetched = []
    monkeypatch.setattr("timm.create_model", lambda *arguments, **options: fetched.append(arguments))
    with pytest.raises(UserError, match="is an address"):
        build({"class_path": "relo.models.encoders.timm_vit.TimmViT", "init_args": {"name": "hf-hub:someone/model"}})
    assert not fetched
    encoder = yaml.safe_load((model / "config.yaml").read_text())["init_args"]["encoder"]
    encoder["class_path"] = f"{type(make_network().encoder).__module__}.{type(make_network().encoder).__name__}"
    encoder["init_args"]["pretrained"] = "/etc/passwd"
    assert isinstance(build(encoder), Encoder)


def test_a_part_in_place_of_a_network_is_named(model):
    (model / "config.yaml").write_text("class_path: relo.learning.rewards.IoUReward\n")
    with pytest.raises(UserError, match="IoUReward"):
        load_network(model)


@pytest.mark.parametrize(
    ("class_path", "said"),
    [
        ("os.system", "is not a part of a network"),
        ("relo.models.os.system", "cannot be imported: ModuleNotFoundError"),
        ("relo.commands.main.main", "is not a part of a network"),
        ("relo.__main__.x", "whose code is not relo's"),
        ("relo", "whose code is not relo's"),
        ("", "whose code is not relo's"),
        ("strangers.Mine", "whose code is not relo's"),
    ],
)
def test_nothing_but_a_part_is_called(class_path, said, monkeypatch):
    monkeypatch.setenv("RELO_TRUST", "stranger")
    with pytest.raises(UserError, match=said):
        build({"class_path": class_path, "init_args": {}})


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        ("class Mine(:", r"SyntaxError: 'invalid syntax \(stranger\.py, line 1\)'"),
        ("import relo\nx = undefined", r"NameError: \"name 'undefined' is not defined\" \(.*stranger\.py, line 2\)"),
        ("import nowhere_to_be_found", r"No module named 'nowhere_to_be_found'.*stranger\.py, line 1"),
        ("import sys\nsys.exit(3)", r"SystemExit: '3' \(.*stranger\.py, line 2\)"),
        ("{}['a']", r"KeyError: \"'a'\" \(.*stranger\.py, line 1\)"),
        ("", "there is none in the module stranger"),
    ],
)
@pytest.mark.parametrize("load", [lambda path: load_network(path), lambda path: find_rule("stranger.Mine")])
def test_a_mistake_in_a_persons_own_module_is_named(model, monkeypatch, load, faulty, said):
    monkeypatch.setenv("RELO_TRUST", "stranger")
    (model.parent / "stranger.py").write_text(faulty)
    with pytest.raises(UserError, match=f"'stranger.Mine', .*{said}"):
        load(model)

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import relo.models.checkpoints.weights
from relo.commands.import_released import import_released as import_command
from relo.errors import UserError
from relo.models.checkpoints.released import released_names, released_network
from relo.models.checkpoints.states import load_state_strictly, read_safetensors
from relo.models.checkpoints.weights import (
    FORMAT,
    SHIPPED,
    import_released,
    load_network,
    load_stage,
    read_checkpoint,
    resolve,
    save_network,
)
from relo.models.encoders.fast_itpn import FastITPN, load_pretraining
from relo.models.encoders.fast_itpn_names import to_published_shape
from relo.models.encoders.layers import create_timm
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned
from relo.tracking.rule import TrackingRule, read_rule_file

REPOSITORY = Path(__file__).parents[2]
SMALL = {"width": 32, "depth": 2, "heads": 4, "stage1": 1, "stage2": 1}


def network(**changes) -> LocalizationNetwork:
    encoder = FastITPN(**SMALL | {"search_size": 64, "template_size": 32} | changes)
    width = encoder.width
    heads = {name: part(width, hidden=[8]) for name, part in HEADS.items()}
    return LocalizationNetwork(encoder, LayerAligned(width, 2, encoder.depth), **heads)


HEADS = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": ConvPrior}


def our_checkpoint(path: Path, of: LocalizationNetwork, **more) -> Path:
    state = {f"network.{name}": tensor for name, tensor in of.state_dict().items()} | {"scores.total": torch.zeros(1)}
    torch.save({"state_dict": state, "relo_network": of.config(), "epoch": 3, **more}, path)
    return path


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=0, atol=0)


def released_state(of: LocalizationNetwork) -> dict[str, torch.Tensor]:
    own = of.state_dict()
    return {released: to_published_shape(name, own[name]).clone() for name, released in released_names(of).items()}


def test_a_saved_network_comes_back_bit_by_bit(tmp_path):
    saved = network(drop_path=0.3)
    save_network(saved, tmp_path / "model")
    loaded = load_network(tmp_path / "model")
    assert_same_weights(loaded, saved)
    assert loaded.config() == saved.config()
    assert not loaded.training
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.yaml", "model.safetensors"]


def test_a_model_without_a_rule_does_not_take_that_of_an_earlier_one(tmp_path):
    save_network(network(), tmp_path, {"window_exponent": 3.0})
    save_network(network(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.safetensors"]


@pytest.mark.parametrize("layers", [range(2), np.arange(2), (np.int64(0), 1)], ids=["range", "array", "numbers"])
def test_arguments_that_are_no_plain_data_are_saved_as_such(tmp_path, layers):
    part = LayerAligned(8, 2, 4, layers=layers)
    assert part.config()["init_args"]["layers"] == [0, 1]
    saved = network(depth=4)
    saved.propagator = LayerAligned(saved.encoder.width, 2, saved.encoder.depth, layers=layers)
    saved._init_args["propagator"] = saved.propagator
    save_network(saved, tmp_path / "model")
    assert load_network(tmp_path / "model").propagator.config() == saved.propagator.config()
    path = our_checkpoint(tmp_path / "last.ckpt", saved)
    assert load_network(path).propagator.config() == saved.propagator.config()


def test_a_checkpoint_of_ours_is_a_model(tmp_path):
    saved = network()
    assert_same_weights(load_network(our_checkpoint(tmp_path / "last.ckpt", saved)), saved)


def test_what_is_written_names_its_format(tmp_path):
    save_network(network(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"relo_format": str(FORMAT)}


@pytest.mark.parametrize("version", [FORMAT + 1, 0, "x" * 10_000, None])
@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "checkpoint"])
def test_weights_of_another_version_are_named_and_nothing_of_them_is_loaded(tmp_path, version, is_folder):
    other, later = network(), network()
    if is_folder:
        save_network(other, path := tmp_path / "model")
        save_file(other.state_dict(), path / "model.safetensors", metadata={"relo_format": str(version)})
    else:
        path = our_checkpoint(tmp_path / "last.ckpt", other, relo_format=version)
    before = {name: tensor.clone() for name, tensor in later.state_dict().items()}
    for load in (load_network, lambda path: load_stage(later, path)):
        with pytest.raises(UserError) as error:
            load(path)
        sentence = str(error.value)
        assert all(part in sentence for part in (str(path), str(version)[:80], f"reads format {FORMAT}"))
        assert len(sentence) < 500
    torch.testing.assert_close(dict(later.state_dict()), before, rtol=0, atol=0)


def test_weights_from_before_there_was_a_version_are_read(tmp_path):
    earlier = network()
    save_network(earlier, tmp_path)
    save_file(earlier.state_dict(), tmp_path / "model.safetensors")
    assert_same_weights(load_network(tmp_path), earlier)


def test_a_name_of_the_package_is_no_folder_that_happens_to_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("relo-small", "package"):
        save_network(network(), folder)
    monkeypatch.setattr(relo.models.checkpoints.weights, "SHIPPED_FOLDER", Path("package"))
    assert resolve(SHIPPED) == Path("package")
    assert resolve("./relo-small") == resolve(Path("relo-small")) == Path("relo-small")


def test_a_stage_starts_from_another_with_fresh_parts(tmp_path):
    earlier, later = network(), network()
    fresh = {name: tensor.clone() for name, tensor in later.policy.state_dict().items()}
    load_stage(later, our_checkpoint(tmp_path / "warmup.ckpt", earlier), fresh_parts=["policy"])
    torch.testing.assert_close(dict(later.policy.state_dict()), fresh, rtol=0, atol=0)
    for part in ("encoder", "propagator", "box", "critic", "prior"):
        assert_same_weights(getattr(later, part), getattr(earlier, part))


def test_a_stage_of_another_architecture_is_refused_and_changes_nothing(tmp_path):
    later = network()
    before = {name: tensor.clone() for name, tensor in later.state_dict().items()}
    with pytest.raises(UserError, match=r"missing: encoder\.blocks\.1"):
        load_stage(later, our_checkpoint(tmp_path / "warmup.ckpt", network(depth=1)))
    torch.testing.assert_close(dict(later.state_dict()), before, rtol=0, atol=0)


def test_each_kind_of_misfit_is_named():
    module = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}
    with pytest.raises(UserError) as error:
        load_state_strictly(module, state, "old.ckpt")
    for part in ("old.ckpt", "1 missing: bias", "1 surplus: extra", "weight ([3, 4] instead of [3, 2])"):
        assert part in str(error.value)


def test_a_long_list_of_tensors_is_counted():
    with pytest.raises(UserError, match=r"9 surplus: t0, t1, t2, t3 and 5 more"):
        load_state_strictly(torch.nn.Identity(), {f"t{i}": torch.zeros(1) for i in range(9)}, "x")


class Executes:
    def __reduce__(self):
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"", "truncated"),
        (b"not a checkpoint at all", "truncated"),
        (pickle.dumps(Executes(), protocol=2), "refused"),
        (pickle.dumps(Executes(), protocol=4), "not a checkpoint of tensors"),
    ],
    ids=["empty", "text", "pickle 2", "pickle 4"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_and_dangerous_checkpoints(tmp_path, contents, sentence):
    path = tmp_path / "bad.ckpt"
    path.write_bytes(contents)
    for read in (load_network, read_checkpoint, lambda p: import_released(p, variant="t256", output=tmp_path / "out")):
        with pytest.raises(UserError, match=f"bad.ckpt.*{sentence}"):
            read(path)


def nested(times: int) -> list:
    """A list that names another twice, and so on: written out, two to the power of so many times."""
    value: list = []
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"relo_network": {"class_path": nested(60)}}, "'relo_network' of .* stands for more values than settings are"),
        ({"relo_network": [[0] * 1000] * 1000}, "'relo_network' of .* stands for more values than settings are"),
        ({"relo_rule": {"window": torch.zeros(1)}}, "'relo_rule' of .* holds a Tensor, which is no setting"),
        ({"relo_rule": {(1, 2): "a"}}, "'relo_rule' of .* holds a dict, which is no setting"),
        ({"relo_format": nested(60)}, "weights of format a list"),
        ({"relo_format": 10**5000}, "weights of format a number of over 80 digits"),
    ],
)
def test_what_is_no_setting_in_the_place_of_settings(tmp_path, entries, said):
    with pytest.raises(UserError, match=said):
        load_network(our_checkpoint(tmp_path / "last.ckpt", network(), **entries))


@pytest.mark.parametrize("shape", [[0, 2**63], [2**40, 2**40], [-1], ["a"]])
def test_a_safetensors_file_of_an_absurd_shape(tmp_path, shape):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"a\.safetensors is not a safetensors file"):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("net", [Executes(), {"a": torch.zeros(1), "b": Executes()}], ids=["state", "tensor"])
def test_code_in_the_place_of_tensors_is_refused(tmp_path, net):
    torch.save({"net": net}, tmp_path / "bad.pth.tar")
    with pytest.raises(UserError, match=r"Entry 'net' of .*bad\.pth\.tar is refused.*builtins\.eval"):
        import_released(tmp_path / "bad.pth.tar", variant="t256", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint(tmp_path):
    path = our_checkpoint(tmp_path / "last.ckpt", network())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is truncated; fetch it again"):
        load_network(path)


def test_folders_that_are_not_models(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        load_network(tmp_path)
    save_network(network(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors.*truncated"):
        load_network(tmp_path / "model")
    save_file({"encoder.norm.weight": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="missing"):
        load_network(tmp_path / "model")
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        load_network(tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("- a list", "does not name the network's class_path"),
        ("class_path: os.system\ninit_args: {command: touch owned}", "'os.system', which is not a part of a network"),
        ("{", "is no YAML"),
        ("class_path: relo.models.heads.ConvBox\ninit_args: {channels: 8}", "describes a ConvBox, not a network"),
    ],
)
def test_a_config_can_build_networks_only(tmp_path, monkeypatch, config, said):
    save_network(network(), tmp_path)
    (tmp_path / "config.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        load_network(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_foreign_checkpoint_is_no_checkpoint_of_ours(tmp_path):
    torch.save({"net": {"a": torch.zeros(1)}}, tmp_path / "released.pth.tar")
    with pytest.raises(UserError, match="relo import"):
        load_network(tmp_path / "released.pth.tar")


@pytest.mark.usefixtures("small_release")
def test_import_of_a_released_checkpoint(tmp_path, capsys):
    original = released_network("b256")
    torch.save({"net": released_state(original), "epoch": 90}, tmp_path / "RELO_ep0090.pth.tar")
    import_command(str(tmp_path / "RELO_ep0090.pth.tar"), variant="b256", output=str(tmp_path / "b256"))
    assert "RELO-B256" in capsys.readouterr().out
    assert_same_weights(load_network(tmp_path / "b256"), original)
    rule = read_rule_file(tmp_path / "b256" / "tracking.yaml").rule
    assert rule.released
    assert (rule.templates, rule.window, rule.localization) == (2, "logits", "policy")


@pytest.mark.usefixtures("small_release")
def test_import_of_a_warmup_checkpoint_gives_fresh_policy_and_critic(tmp_path):
    original = released_network("t256")
    state = {k: v for k, v in released_state(original).items() if not k.startswith(("policy_model", "value_model"))}
    torch.save({"net": state}, tmp_path / "warmup.pth.tar")
    imported = import_released(tmp_path / "warmup.pth.tar", variant="t256", output=tmp_path / "once")
    again = import_released(tmp_path / "warmup.pth.tar", variant="t256", output=tmp_path / "twice")
    assert_same_weights(imported, again)
    for part in ("encoder", "propagator", "box", "prior"):
        assert_same_weights(getattr(imported, part), getattr(original, part))
    assert read_rule_file(tmp_path / "once" / "tracking.yaml").rule.localization == "prior"


@pytest.mark.usefixtures("small_release")
def test_import_names_what_does_not_fit(tmp_path):
    path = tmp_path / "RELO_ep0090.pth.tar"
    state = released_state(released_network("t256"))

    def sentence(changed: dict, variant: str = "t256") -> str:
        torch.save({"net": changed}, path)
        with pytest.raises(UserError) as error:
            import_released(path, variant=variant, output=tmp_path / "out")
        return str(error.value)

    assert "holds t256, not b256" in sentence(state, "b256")
    assert "1 missing: encoder.body.fc_norm.bias" in sentence(
        {k: v for k, v in state.items() if "fc_norm.bias" not in k}
    )
    assert "1 surplus: encoder.body.cls" in sentence({**state, "encoder.body.cls": torch.zeros(1)})
    assert "encoder.body.search_token ([7] instead of [32])" in sentence(
        {**state, "encoder.body.search_token": torch.zeros(7)}
    )
    assert "no tensors" in sentence({})
    torch.save({"model": state}, path)
    with pytest.raises(UserError, match="no entry 'net'"):
        import_released(path, variant="t256", output=tmp_path / "out")
    torch.save({"net": state}, path)
    with pytest.raises(UserError, match="no variant 'x256'"):
        import_released(path, variant="x256", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variant", ["t256", "b256", "l256"])
def test_a_variant_is_described_once(variant):
    """Whoever names the variant reads its one file."""
    facts = yaml.safe_load((REPOSITORY / f"src/relo/models/released/{variant}.yaml").read_text())
    with torch.device("meta"):
        network = released_network(variant)
    assert network.config() == facts["network"]
    for folder, kind in (("model", "network"), ("tracking", "rule")):
        content = yaml.safe_load((REPOSITORY / f"configs/{folder}/{variant}.yaml").read_text())
        assert content == {f"released_{kind}": variant}
    file = read_rule_file(REPOSITORY / f"configs/tracking/{variant}.yaml")
    assert file.rule == TrackingRule(**facts["tracking"])
    assert file.benchmarks == facts["benchmarks"]
    page = (REPOSITORY / "docs/released_checkpoints.md").read_text()
    (row,) = re.findall(r"^\| parameters, all heads \| (.*) \|$", page, re.MULTILINE)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert row.split(" | ")[["t256", "b256", "l256"].index(variant)] == f"{millions:.3g} M"


@pytest.mark.usefixtures("small_release")
@pytest.mark.parametrize("stage", ["RL", "warm-up"])
@pytest.mark.parametrize("variant", ["t256", "b256", "l256"])
def test_an_imported_model_has_what_the_release_changes_on_benchmarks(tmp_path, variant, stage):
    state = released_state(released_network(variant))
    if stage == "warm-up":
        state = {k: v for k, v in state.items() if not k.startswith(("policy_model", "value_model"))}
    torch.save({"net": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "x.pth.tar")
    import_released(tmp_path / "x.pth.tar", variant=variant, output=tmp_path / "model")
    file, released = (
        read_rule_file(path)
        for path in (tmp_path / "model/tracking.yaml", REPOSITORY / f"configs/tracking/{variant}.yaml")
    )
    assert file.benchmarks == released.benchmarks
    assert file.rule == replace(released.rule, localization="policy" if stage == "RL" else "prior")


@pytest.mark.usefixtures("small_release")
def test_a_released_name_is_fetched_and_converted_once(tmp_path, monkeypatch):
    original = released_network("t256")
    torch.save({"net": released_state(original)}, tmp_path / "RELO_ep0090.pth.tar")
    fetched = []

    def download(repository: str, file: str) -> str:
        fetched.append((repository, file))
        return str(tmp_path / "RELO_ep0090.pth.tar")

    monkeypatch.setattr(relo.models.checkpoints.weights, "hf_hub_download", download)
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        assert_same_weights(load_network("relo-t256"), original)
    assert fetched == [("xche32/RELO", "checkpoints/train/relo/relo_t256/RELO_ep0090.pth.tar")]
    assert (resolve("relo-t256") / "tracking.yaml").is_file()


def test_offline_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="hub cannot be reached"):
        load_network("relo-b256")


class OfAnHTTPLibrary(Exception):
    """Neither an OSError nor one of the hub's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OfAnHTTPLibrary("403 Forbidden"), r"cannot be reached \('OfAnHTTPLibrary: 403 Forbidden'\): go online"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            r"cannot be reached \('Connection reset by peer'\): go",
        ),
        (OSError(28, "No space left on device"), r"^The hub's cache cannot be written \('the disk is full'\), where"),
        (
            PermissionError(13, "Permission denied", "/hub"),
            r"cannot be written \('permission denied'\), where .*HF_HOME",
        ),
    ],
)
def test_what_keeps_a_released_model_away_is_one_sentence(tmp_path, monkeypatch, error, said):
    def download(repository: str, file: str) -> str:
        raise error

    monkeypatch.setattr(relo.models.checkpoints.weights, "hf_hub_download", download)
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=said):
        load_network("relo-b256")


def test_what_keeps_weights_of_timm_away_is_one_sentence(monkeypatch):
    def create(name: str, **options: object) -> None:
        raise OfAnHTTPLibrary("403 Forbidden")

    monkeypatch.setattr("timm.create_model", create)
    with pytest.raises(UserError, match="timm cannot make 'vit' with tokens: 403 Forbidden"):
        create_timm("vit", "with tokens")


def test_a_name_that_nobody_knows():
    with pytest.raises(UserError, match=r"no model relo-x256.*relo-small, .*relo-b256"):
        load_network("relo-x256")


def pretraining_state(of: FastITPN, grid: int) -> dict[str, torch.Tensor]:
    """A pretraining file's tensors for an encoder: square positions, no types, a mask token that we do not have."""
    whole = network()
    whole.encoder = of
    own = whole.state_dict()
    state = {
        released.removeprefix("encoder.body."): to_published_shape(name, own[name]).clone()
        for name, released in released_names(whole).items()
        if name.startswith("encoder.") and "types" not in name
    }
    state["pos_embed"] = torch.arange(grid**2 * 32).reshape(1, grid**2, 32).float()
    state["mask_token"] = torch.zeros(1)
    return state


@pytest.mark.parametrize("key", ["model", "module", None])
def test_encoder_pretraining(tmp_path, key):
    source, target = network().encoder, network().encoder
    state = pretraining_state(source, grid=4)
    torch.save({key: state} if key else state, tmp_path / "fast_itpn.pt")
    types = {name: value.clone() for name, value in target.types.state_dict().items()}
    assert load_pretraining(target, tmp_path / "fast_itpn.pt") == ["mask_token"]
    torch.testing.assert_close(dict(target.types.state_dict()), types, rtol=0, atol=0)
    for part in ("stage1", "merge1", "stage2", "merge2", "blocks", "norm", "patch_embed"):
        assert_same_weights(getattr(target, part), getattr(source, part))
    # The search grid is the file's; the template's is its upper left corner.
    file_grid = state["pos_embed"].view(4, 4, 32)
    torch.testing.assert_close(target.position[0, :16].view(4, 4, 32), file_grid)
    torch.testing.assert_close(target.position[0, 16:].view(2, 2, 32), file_grid[:2, :2])


def test_smaller_positions_are_widened(tmp_path):
    target = network().encoder
    state = pretraining_state(network().encoder, grid=3)
    # The corners keep their positions, and what is even about the centre stays so.
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    state["pos_embed"] = (10 * rows + columns).reshape(1, 9, 1).expand(-1, -1, 32).clone()
    torch.save(state, tmp_path / "fast_itpn.pt")
    load_pretraining(target, tmp_path / "fast_itpn.pt")
    grid = target.position[0, :16].view(4, 4, 32)
    torch.testing.assert_close(grid[::3, ::3], torch.tensor([[0.0, 2], [20, 22]])[..., None].expand(-1, -1, 32))
    torch.testing.assert_close(grid + grid.flip(0, 1), torch.full_like(grid, 22))


def test_pretraining_that_does_not_fit(tmp_path):
    state = pretraining_state(network().encoder, grid=4)
    torch.save(state, tmp_path / "fast_itpn.pt")
    with pytest.raises(UserError, match=r"missing: blocks\.6"):
        load_pretraining(network(depth=3).encoder, tmp_path / "fast_itpn.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "fast_itpn.pt")
    with pytest.raises(UserError, match="does not fit the encoder"):
        load_pretraining(network().encoder, tmp_path / "fast_itpn.pt")


def test_a_network_built_on_pretraining_needs_it_once(tmp_path):
    torch.save(pretraining_state(network().encoder, grid=4), tmp_path / "fast_itpn.pt")
    saved = network(pretrained=str(tmp_path / "fast_itpn.pt"))
    save_network(saved, tmp_path / "model")
    (tmp_path / "fast_itpn.pt").unlink()
    assert_same_weights(load_network(tmp_path / "model"), saved)


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        save_network(network(), tmp_path / "file")


def test_saved_tensors_are_plain_safetensors(tmp_path):
    saved = network()
    save_network(saved, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == saved.state_dict().keys()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path, number):
    diverged = network()
    next(iter(diverged.parameters())).data.fill_(number)
    save_network(diverged, tmp_path)
    with pytest.raises(UserError, match="is broken: weights are not a number, or infinite"):
        load_network(tmp_path)

"""Checkpoints that hold more than tensors are read without importing or running anything of theirs."""

import argparse
import copy
import datetime
import enum
import functools
import io
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, namedtuple
from contextlib import suppress

import numpy as np
import pytest
import torch

from relo.commands.import_released import import_released
from relo.errors import UserError
from relo.models.checkpoints.inert_pickle import Foreign, foreign_parts
from relo.models.checkpoints.released import released_names, released_network
from relo.models.checkpoints.states import as_state, read_torch_file
from relo.models.checkpoints.weights import load_network, load_stage, read_checkpoint
from relo.models.encoders.fast_itpn import FastITPN, load_pretraining
from relo.models.encoders.fast_itpn_names import to_published_shape


def save(contents, path, *, is_zip=True, protocol=2):
    torch.save(contents, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    return path


FORMATS = pytest.mark.parametrize(
    "saving", [{}, {"is_zip": False}, {"protocol": 4}], ids=["zip", "legacy", "protocol 4"]
)


@pytest.fixture
def trainer(monkeypatch):
    """Makes what the release's trainer saves beside the tensors, of classes in modules that are gone when it is read.

    Their packages are left as modules that stop the test when anything of them is looked up.
    """
    names = ("lib", "lib.train", "lib.train.admin", "lib.train.admin.stats", "lib.train.admin.settings")
    modules = {name: types.ModuleType(name) for name in (*names, "lib.train.admin.local")}

    def define(module, name, **attributes):
        made = type(name, (), {"__module__": module, **attributes})
        setattr(modules[module], name, made)
        return made

    meter = define("lib.train.admin.stats", "AverageMeter")
    settings = define("lib.train.admin.settings", "Settings")
    environment = define("lib.train.admin.local", "EnvironmentSettings")

    def make(network):
        def of(kind, **attributes):
            instance = kind()
            instance.__dict__.update(attributes)
            return instance

        average = of(meter, val=0.5, avg=np.float64(0.5), sum=1.0, count=2, history=[0.4, np.float32(0.5)])
        paths = of(environment, workspace_dir="/data/runs", lasot_dir=pathlib.PurePosixPath("/data/lasot"))
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
        return {
            "epoch": 90,
            "actor_type": "RELOActor",
            "net_type": "RELO",
            "net": network,
            "net_info": None,
            "constructor": None,
            "optimizer": optimizer.state_dict(),
            "stats": OrderedDict(train=OrderedDict({"Loss/total": average, "IoU": average})),
            "settings": of(settings, env=paths, use_gpu=True, device=torch.device("cpu"), batchsize=8),
        }

    def write(contents, path, **saving):
        with monkeypatch.context() as context:
            for name, module in modules.items():
                context.setitem(sys.modules, name, module)
            return save(contents, path, **saving)

    class Detonates(types.ModuleType):
        def __getattr__(self, name):
            if not name.startswith("__"):
                pytest.fail(f"{self.__name__}.{name} was looked up")
            raise AttributeError(name)

    for name in modules:
        monkeypatch.setitem(sys.modules, name, Detonates(name))
    return types.SimpleNamespace(make=make, write=write)


@FORMATS
def test_the_file_of_the_releases_trainer(trainer, tmp_path, saving):
    net = OrderedDict(weight=torch.arange(6.0).view(2, 3), steps=torch.tensor(7))
    read = read_torch_file(trainer.write(trainer.make(net), tmp_path / "RELO_ep0090.pth.tar", **saving))
    assert (read["epoch"], read["net_type"]) == (90, "RELO")
    torch.testing.assert_close(dict(as_state(read["net"], "net")), dict(net))
    assert {name for _, name in foreign_parts(read)} == {
        "lib.train.admin.stats.AverageMeter",
        "lib.train.admin.settings.Settings",
    }


@FORMATS
@pytest.mark.usefixtures("small_release")
def test_the_file_of_the_releases_trainer_is_imported(trainer, tmp_path, saving):
    original = released_network("t256")
    own = original.state_dict()
    names = released_names(original)
    net = OrderedDict((released, to_published_shape(name, own[name])) for name, released in names.items())
    path = trainer.write(trainer.make(net), tmp_path / "RELO_ep0090.pth.tar", **saving)
    import_released(str(path), variant="t256", output=str(tmp_path / "model"))
    torch.testing.assert_close(dict(load_network(tmp_path / "model").state_dict()), dict(own), rtol=0, atol=0)


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, [self]


class Items(dict):
    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


class Row(list):
    pass


class Reduced:
    class Inner:
        pass

    def __reduce_ex__(self, protocol):
        return Reduced.Inner, (), {"a": 1}, iter([1, 2]), iter([("a", 1)])


Point = namedtuple("Point", "x y")


def circle():
    first, second = types.SimpleNamespace(), types.SimpleNamespace()
    first.other, second.other = second, first
    return first


OBJECTS = [
    argparse.Namespace(lr=0.1, tensors=[torch.zeros(2)]),
    Colour.RED,
    {Colour.RED: 1},
    functools.partial(print, 1),
    Slotted(),
    Items(a=1, b=Items(c=[2])),
    Row([1, Row([2])]),
    Reduced(),
    circle(),
    Point(1, 2),
    frozenset({1, Point(1, 2)}),
    {Point(1, 2)},
    pathlib.PurePosixPath("/a/b"),
    datetime.timedelta(seconds=1),
    torch.Size([1, 2]),
    OrderedDict(a=Row()),
    np.array(["a", None], dtype=object),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.datetime64("2020-01-01"),
    np.ma.masked_array([1, 2], mask=[0, 1]),
    np.random.default_rng(0),
    range(3),
    complex(1, 2),
    bytearray(b"abc"),
    slice(1, 2),
    print,
    len,
    "".join,
    ValueError("no"),
    torch.nn.Linear(2, 2),
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1),
    torch.Generator().get_state(),
    2**3000,
]


@FORMATS
@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_any_object_beside_the_tensors(tmp_path, value, saving):
    first, last = torch.arange(3.0), torch.arange(4.0)
    contents = {"net": {"a": first}, "settings": value, "more": {"args": [value, value]}, "last": {"b": last}}
    read = read_torch_file(save(contents, tmp_path / "file.pth", **saving))
    assert list(read) == list(contents)
    torch.testing.assert_close(as_state(read["net"], "net")["a"], first)
    torch.testing.assert_close(as_state(read["last"], "last")["b"], last)


NUMBERS = [
    np.float64(0.0),
    np.float32(1.5),
    np.float16(-2),
    np.int64(-(2**62)),
    np.uint8(255),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    np.array(3.0),
    np.arange(3).astype(">i4"),
    np.array([True, False]),
]


@FORMATS
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: f"{type(value).__name__} {value.dtype} {value.shape}")
def test_numpys_numbers_are_restored(tmp_path, value, saving):
    read = read_torch_file(
        save({"args": argparse.Namespace(), "x": [value, {"y": value}]}, tmp_path / "file", **saving)
    )
    for found in (read["x"][0], read["x"][1]["y"]):
        assert type(found) is type(value)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


# --- attacks: none may leave a mark, and none may stand where tensors belong ----------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Named:
    """Pickles as the name of something that need not be importable."""

    def __init__(self, module, name):
        self.__module__, self.__qualname__ = module, name

    def __reduce__(self):
        return self.__qualname__


def attacks(mark):
    touch = f"open({str(mark)!r}, 'w')"
    command = f"touch {mark}"
    nested = pickle.dumps(Calls(eval, touch))
    buffer = io.BytesIO()
    torch.save(Calls(eval, touch), buffer)
    return {
        "eval": Calls(eval, touch),
        "exec": Calls(exec, touch),
        "system": Calls(__import__("os").system, command),
        "Popen": Calls(subprocess.Popen, ["touch", str(mark)]),
        "chain": Calls(getattr, Calls(__import__, "os"), "system"),
        "called chain": Calls(functools.reduce, getattr, [Calls(__import__, "os"), "path"]),
        "partial": Calls(functools.partial, eval, touch),
        "nested pickle": Calls(pickle.loads, nested),
        "nested torch file": Calls(torch.storage._load_from_bytes, buffer.getvalue()),
        "map": Calls(list, Calls(map, eval, [touch])),
        "Path.touch": Calls(pathlib.Path.touch, pathlib.Path(mark)),
        "open": Calls(open, str(mark), "w"),
        "numpy": Calls(np.save, str(mark), 1),
        "rebuilt by it": Calls(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (touch,), {}),
    }


ATTACKS = list(attacks(pathlib.Path("mark")))


def our_checkpoint(network):
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    return {"state_dict": state, "relo_network": network.config()}


@FORMATS
def test_attacks_beside_the_tensors_do_nothing(network, tmp_path, saving):
    contents = our_checkpoint(network)
    more = attacks(tmp_path / "mark")
    path = save({"attacks": more, **contents, "callbacks": {"a": list(more.values())}}, tmp_path / "x", **saving)
    torch.testing.assert_close(read_checkpoint(path)["state_dict"], contents["state_dict"], rtol=0, atol=0)
    load_network(path)
    load_stage(network, path)
    assert not (tmp_path / "mark").exists()


@FORMATS
@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_in_the_place_of_a_tensor_is_refused(tmp_path, kind, saving):
    attack = attacks(tmp_path / "mark")[kind]
    path = save({"state_dict": {"box.bias": attack}, "relo_network": {}}, tmp_path / "bad.ckpt", **saving)
    with pytest.raises(UserError, match=r"bad\.ckpt is refused: reading box\.bias would run code of"):
        read_checkpoint(path)
    with pytest.raises(UserError, match=r"bad\.ckpt.*run code"):
        read_torch_file(save(attack, path, **saving))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("place", ["network.propagator.learned_tokens", "relo_network", "relo_rule"])
def test_what_a_model_needs_must_be_restored(network, tmp_path, place):
    contents = our_checkpoint(network)
    (contents["state_dict"] if place in contents["state_dict"] else contents)[place] = argparse.Namespace(a=1)
    path = save(contents, tmp_path / "bad.ckpt")
    for read in (load_network, lambda path: load_stage(network, path)):
        with pytest.raises(UserError, match=rf"{place}.*would run code of argparse\.Namespace"):
            read(path)


def test_pretraining_needs_its_tensors(tmp_path):
    encoder = FastITPN(width=32, depth=1, heads=4, stage1=1, stage2=1, search_size=64, template_size=32)
    path = save({"model": {"a": Calls(eval, "1")}, "args": argparse.Namespace()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt is refused: reading a would run code of builtins\.eval"):
        load_pretraining(encoder, path)


@FORMATS
def test_no_module_of_the_working_directory_is_imported(tmp_path, monkeypatch, saving):
    module = types.ModuleType("trap")
    module.Trap = type("Trap", (), {"__module__": "trap"})
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "trap", module)
        path = save(
            {"net": {"a": torch.zeros(1)}, "settings": module.Trap(), "kind": module.Trap}, tmp_path / "x", **saving
        )
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('mark').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(read_torch_file(path)["settings"], Foreign)
    assert not (tmp_path / "mark").exists()


def pickled(*opcodes):
    return pickle.PROTO + b"\x02" + b"".join(opcodes) + pickle.STOP


def of_zip(path, data):
    """A torch file whose pickle is exchanged."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    return path


FOREIGN = b"cbuiltins\neval\n"
SIZE, DICT, TENSOR = b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    "opcodes",
    [
        (FOREIGN, pickle.POP, b"N", b")", pickle.REDUCE),  # None is called
        (FOREIGN, pickle.POP, b"]", b")", pickle.NEWOBJ),
        (FOREIGN, pickle.POP, TENSOR, b"}", b"X\x0c\x00\x00\x00__defaults__", b")", b"s", pickle.BUILD),
        (FOREIGN, pickle.POP, SIZE, b"N", b"}", b"K\x01", b"K\x01", b"s", pickle.TUPLE2, pickle.BUILD),
        (FOREIGN, pickle.POP, DICT, b"K\x01", b"K\x01", pickle.SETITEM),
        (FOREIGN, pickle.POP, SIZE, b"K\x01", pickle.APPEND),
        (FOREIGN, pickle.POP, pickle.EXT1, b"\x01"),
        (FOREIGN, pickle.POP, b"Pstorage\n"),
        (
            b"(",
            b"X\x07\x00\x00\x00storage",
            FOREIGN,
            b"X\x01\x00\x00\x000",
            b"X\x03\x00\x00\x00cpu",
            b"K\x01",
            b"t",
            b"Q",
        ),
    ],
    ids=[
        "call None",
        "new list",
        "function's defaults",
        "class's slots",
        "class's items",
        "class's append",
        "extension",
        "text identity",
        "foreign storage",
    ],
)
def test_opcodes_that_would_change_what_is_there(tmp_path, opcodes):
    before = copy.copy(torch._utils._rebuild_tensor_v2.__defaults__)
    with pytest.raises(UserError, match=r"not a|refused"):
        read_torch_file(of_zip(tmp_path / "x.pth", pickled(*opcodes)))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


@pytest.mark.parametrize(
    "opcodes",
    [
        (b"(", b"X\x05\x00\x00\x00print", b"ibuiltins\neval\n"),
        (b"(", FOREIGN, b"X\x05\x00\x00\x00print", b"o"),
        (FOREIGN, b")", b"}", pickle.NEWOBJ_EX),
        (FOREIGN, b"K\x01", pickle.REDUCE),
        (FOREIGN, FOREIGN, pickle.REDUCE),
        (FOREIGN, b"}", pickle.BUILD, b"K\x01", pickle.APPEND, b"(", b"K\x01", pickle.ADDITEMS),
    ],
    ids=["INST", "OBJ", "NEWOBJ_EX", "no tuple", "arguments foreign", "BUILD, APPEND, ADDITEMS"],
)
def test_every_way_to_make_an_object_is_inert(tmp_path, opcodes):
    read = read_torch_file(of_zip(tmp_path / "x.pth", pickled(b"]", *opcodes, b"a")))
    assert [name for _, name in foreign_parts(read)] == ["builtins.eval"]


class OwnTensor(torch.Tensor):
    pass


def test_a_tensor_of_ones_own_class_is_refused_by_name(tmp_path):
    for kind in (OwnTensor, torch.nn.Parameter):
        own = torch.zeros(2).as_subclass(OwnTensor)
        value = torch.nn.Parameter(own) if kind is torch.nn.Parameter else own
        path = save({"net": {"a": torch.zeros(1), "layer.weight": value}}, tmp_path / "x.pth")
        with pytest.raises(UserError, match=r"reading layer\.weight would run code of test_inert_pickle\.OwnTensor"):
            as_state(read_torch_file(path)["net"], "Entry 'net'")


def test_a_pickled_network_is_refused_by_name(tmp_path):
    path = save({"net": torch.nn.Linear(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"would run code of torch\.nn\.modules\.linear\.Linear"):
        as_state(read_torch_file(path)["net"], "Entry 'net'")
    with pytest.raises(UserError, match=r"x\.pth is refused.*torch\.nn\.modules\.linear\.Linear"):
        read_torch_file(save(torch.nn.Linear(2, 2), path))


@pytest.mark.parametrize("prefixed", [True, False])
def test_the_prefix_of_ddp_is_dropped_where_all_tensors_have_it(prefixed):
    names = ["module.a", "module.module.b", "module.c" if prefixed else "c"]
    state = as_state({name: torch.zeros(1) for name in names}, "net")
    assert list(state) == (["a", "module.b", "c"] if prefixed else names)


def test_a_prefix_upon_the_prefix_is_dropped_too():
    assert dict(as_state({"module.module.a": torch.ones(1)}, "it")).keys() == {"a"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.ones(2, 2).to_sparse_csr(),
        lambda: torch.ones(2, 2, device="meta"),
        lambda: torch.ones(2, 2, dtype=torch.complex64),
        lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(1)]),
        lambda: torch.ones(1).expand(1 << 40),
    ],
    ids=["COO", "CSR", "meta", "complex", "quantized", "nested", "repeated"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_arrays_are_refused_by_name(make):
    with pytest.raises(UserError, match=r"plain arrays of real numbers.*: head\.weight\."):
        as_state({"stem.weight": torch.ones(1), "head.weight": make()}, "it")


def test_whole_numbers_are_no_weights(network, tmp_path):
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    name = next(iter(state))
    contents = {"relo_network": network.config(), "state_dict": state | {name: state[name].int()}}
    torch.save(contents, tmp_path / "whole.ckpt")
    with pytest.raises(UserError, match=rf"1 of whole numbers where others belong.*{name.removeprefix('network.')}"):
        load_network(tmp_path / "whole.ckpt")


def test_names_that_are_no_text_are_refused():
    with pytest.raises(UserError, match="no tensors by name"):
        as_state({5: torch.ones(1)}, "it")


@pytest.mark.parametrize("shape", [(), (3,), (1, 0, 32), (1, 16, 32, 1), (2, 16, 32), (1, 15, 32)])
def test_positions_that_form_no_grid(tmp_path, shape):
    torch.save({"pos_embed": torch.zeros(shape)}, tmp_path / "fast_itpn.pt")
    with pytest.raises(UserError, match="do not form a square grid"):
        load_pretraining(FastITPN(32, 1, 1, 1, 1, 64, 32), tmp_path / "fast_itpn.pt")


@FORMATS
def test_damage_anywhere_is_one_sentence(tmp_path, saving):
    contents = {"net": {"a": torch.ones(3)}, "settings": argparse.Namespace(a=1), "step": np.float64(1)}
    whole = save(contents, tmp_path / "whole.pt", **saving).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "damaged.pt").write_bytes(damaged)
        with suppress(UserError):  # any other error fails
            read_torch_file(tmp_path / "damaged.pt")


def test_foreign_parts_of_what_is_shared_a_thousand_times():
    shared: object = Foreign("lib.Thing")
    for _ in range(100):
        shared = ("k" * 1000, shared, shared)
    assert [name for _, name in foreign_parts({"net": shared})] == ["lib.Thing"] * 2


def test_a_dtype_named_by_something_endless(tmp_path):
    """2^60 letters as text, of a kilobyte in the file."""
    doubled = b"K\x01" + 60 * b"2\x86"  # the opcodes DUP and TUPLE2
    dtype = b"cnumpy\ndtype\n(" + doubled + b"tR(U\x01vU\x01<tb"
    pickled = b"\x80\x02}U\x01ncnumpy.core.multiarray\nscalar\n(" + dtype + b"U\x08\0\0\0\0\0\0\0\0tRs."
    path = save({}, tmp_path / "endless.pt")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else record)
    with pytest.raises(UserError, match=r"numpy"):
        as_state(read_torch_file(path)["n"], "it")


def test_a_compressed_checkpoint_is_refused_before_it_expands(network, tmp_path):
    path, compressed = tmp_path / "x.ckpt", tmp_path / "compressed.ckpt"
    torch.save(our_checkpoint(network), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(UserError, match=r"compressed\.ckpt is refused: .* is compressed, and may expand far"):
        load_network(compressed)

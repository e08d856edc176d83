import threading

import numpy as np
import onnx
import pytest
import torch

from relo.data.synthetic import render_sequence
from relo.data.synthetic.settings import EASY
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.nano import Nano
from relo.models.encoders.timm_cnn import TimmCNN
from relo.models.export import MissingExporterError, step_graph
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior, CornerPrior
from relo.models.inference import optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned, NoPropagation
from relo.tracking import engine
from relo.tracking.engine import ONNXNetwork, StepGraph, graph_name, start_engine, stored_graphs, write_graph
from relo.tracking.localizer import tracking_heads
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from small_networks import PresentNetwork

pytestmark = [pytest.mark.filterwarnings("ignore")]
CPU = torch.device("cpu")
HEADS = ("policy", "box")


def assembled(encoder, kind=LocalizationNetwork, propagator=LayerAligned, prior=ConvPrior) -> LocalizationNetwork:
    """A network under whose weights frames look different."""
    heads = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": prior}
    made = {name: head(encoder.channels, [8]) for name, head in heads.items()}
    aligned = propagator is LayerAligned
    network = kind(encoder, propagator(32, 3, depth=2) if aligned else propagator(32, 3), **made)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return network.eval()


def nano(**parts) -> LocalizationNetwork:
    sizes = {"heads": 2, "stem": (8, 16, 16), "correlation_groups": 4, "channels": 16}
    return assembled(Nano(width=32, depth=2, **sizes, search_size=64, template_size=32), **parts)


def fast_itpn() -> LocalizationNetwork:
    return assembled(FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32, layer_scale=1.0))


def timm_cnn(**parts) -> LocalizationNetwork:
    sizes = {"width": 32, "depth": 2, "heads": 2, "channels": 16, "search_size": 64, "template_size": 32}
    return assembled(TimmCNN(**sizes), **parts)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for the file, so that each structure is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("RELO_CACHE", str(cache))
    monkeypatch.delenv("RELO_ENGINE")


@pytest.fixture(scope="module")
def graph() -> StepGraph:
    """Of `nano()`."""
    return StepGraph(*step_graph(nano(), 1, HEADS))


@pytest.fixture
def made(monkeypatch, graph) -> list[object]:
    """The networks that a graph was made of, which is `graph`."""
    networks = []

    def make(network, templates, heads):
        networks.append(network)
        return graph.model, graph.weights

    monkeypatch.setattr(engine, "step_graph", make)
    return networks


def video(name: str, frames: int = 6):
    sequence = render_sequence(name, frames=frames, settings=EASY)
    return list(sequence.frames), sequence.boxes_xywh


def followed(tracker: Tracker, names=("one", "two", "three"), late: int = 3):
    """The states of targets in several videos, frame by frame; the last is taken up `late` frames after the others."""
    videos = [video(name) for name in names]
    count = len(videos) - 1
    states = tracker.initialize([images[0] for images, _ in videos[:count]], [boxes[0] for _, boxes in videos[:count]])
    for frame in range(1, len(videos[0][0])):
        if frame == late:
            states += tracker.initialize([videos[-1][0][0]], [videos[-1][1][0]])
        states = tracker.step([videos[i][0][frame] for i in range(len(states))], states, keep_response=True)
        yield states


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        (nano, {}),
        (
            fast_itpn,
            {"localization": "prior", "templates": 2, "template_update_interval": 2, "template_update_threshold": 0.0},
        ),
        (
            lambda: timm_cnn(kind=PresentNetwork, prior=CornerPrior, propagator=NoPropagation),
            {"localization": "prior", "templates": 2},
        ),
    ],
    ids=["nano", "fast_itpn, prior, templates updated", "timm_cnn, corner prior, presence, no memory"],
)
def test_boxes_are_those_of_torch(network, rule):
    made, rule = optimize_for_inference(network()), TrackingRule(**rule)
    torch_tracker, tracker = Tracker(made, rule), Tracker(made, rule, engine="onnxruntime")
    assert (torch_tracker.engine, tracker.engine) == ("torch", "onnxruntime")
    boxes_xywh = []
    for expected, found in zip(followed(torch_tracker), followed(tracker), strict=True):
        for theirs, ours in zip(expected, found, strict=True):
            torch.testing.assert_close(ours.box_xywh, theirs.box_xywh, rtol=0, atol=1e-3)
            torch.testing.assert_close(ours.response, theirs.response, rtol=1e-4, atol=1e-5)
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert ours.presence == (None if theirs.presence is None else pytest.approx(theirs.presence, abs=1e-5))
            assert (ours.memory is None) == (theirs.memory is None)
        boxes_xywh.append(found[0].box_xywh)
    assert len(torch.stack(boxes_xywh).unique(dim=0)) > 2
    assert (found[0].presence is not None) == isinstance(made, PresentNetwork)


@pytest.mark.parametrize("threads", [1, 2])
def test_targets_are_the_same_to_the_bit_in_one_batch_and_alone(made, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    counts = []
    try:
        tracker = Tracker(nano(), engine="onnxruntime")
        compute = tracker._localizer._forward.__call__

        def counted(images, *others):
            counts.append(len(images))
            return compute(images, *others)

        tracker._localizer._forward = counted
        names = ("one", "two", "three", "four")
        with tracker.fixed_batches():
            together = list(followed(tracker, names, late=1))
            for i, name in enumerate(names):
                alone = followed(tracker, (name, name), late=99)
                for expected, (found,) in zip(together, alone, strict=True):
                    assert torch.equal(found.box_xywh, expected[i].box_xywh)
                    assert torch.equal(found.response, expected[i].response)
    finally:
        torch.set_num_threads(before)
    assert max(counts) == len(names)  # in one call, which spreads them over the threads


def test_a_graph_is_made_once_and_serves_other_weights(made, tmp_path, monkeypatch):
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    assert Tracker(nano(), engine="auto").engine == "onnxruntime"
    assert len(made) == 1
    trained = nano()
    with torch.no_grad():
        trained.policy.tower[-1].weight.mul_(3)
    network = ONNXNetwork(trained, 1, HEADS)
    assert len(made) == 1
    (images, templates, memory) = engine.example_step(trained, 1, HEADS)
    with torch.inference_mode():
        expected, found = (of(images, templates, memory, HEADS)[0].policy_logits for of in (trained, network))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert [file.suffix for file in (tmp_path / "graphs").iterdir()] == [".zip"]


def contradicting(graph: StepGraph) -> StepGraph:
    model = onnx.load_model_from_string(graph.model)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Neg"
    return StepGraph(model.SerializeToString(), graph.weights)


def truncated(file):
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, graph: file.write_bytes(b""),
        lambda file, graph: file.write_bytes(b"no zip file" * 100),
        lambda file, graph: truncated(file),
        lambda file, graph: write_graph(file, StepGraph(graph.model[:500], graph.weights)),
        lambda file, graph: write_graph(file, StepGraph(graph.model, graph.weights[1:])),
        lambda file, graph: write_graph(file, StepGraph(graph.model, [*graph.weights, "network.none"])),
        lambda file, graph: write_graph(file, contradicting(graph)),
    ],
    ids=["empty", "foreign", "truncated", "no model", "a weight less", "a weight more", "another network's"],
)
def test_a_broken_file_is_made_anew(made, graph, tmp_path, monkeypatch, spoil):
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    name = graph_name(nano(), 1, HEADS)
    file = tmp_path / "graphs" / name
    write_graph(file, graph)
    spoil(file, graph)
    ONNXNetwork(nano(), 1, HEADS)
    assert len(made) == 1
    assert list(stored_graphs(name)) == [graph]
    assert [entry.name for entry in file.parent.iterdir()] == [name]


def test_a_cache_that_cannot_be_written_is_no_error(made, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "file"))
    for count in (1, 2):
        assert Tracker(nano(), engine="onnxruntime").engine == "onnxruntime"
        assert len(made) == count


def test_the_packages_graph_needs_no_exporter(graph, tmp_path, monkeypatch):
    monkeypatch.setenv("RELO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "PACKAGED", tmp_path)
    monkeypatch.setattr("relo.models.export.find_spec", lambda package: None)
    write_graph(tmp_path / graph_name(nano(), 1, HEADS), graph)
    assert Tracker(nano(), engine="auto").engine == "onnxruntime"
    assert not (tmp_path / "cache").exists()


def test_without_packages_torch_serves_unless_onnxruntime_is_asked_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    monkeypatch.setattr("relo.models.export.find_spec", lambda package: None)
    assert Tracker(nano(), engine="auto").engine == "torch"
    with pytest.raises(MissingExporterError, match=r"package onnx, .* pip install 'relo\[export\]'"):
        Tracker(nano(), engine="onnxruntime")
    monkeypatch.setattr(engine, "find_spec", lambda package: None)
    assert Tracker(nano(), engine="auto").engine == "torch"
    with pytest.raises(UserError, match="pip install onnxruntime"):
        Tracker(nano(), engine="onnxruntime")
    assert not caplog.records


def test_what_cannot_be_exported_is_computed_by_torch_with_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise UserError("This network cannot be exported: no such operator.")

    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "step_graph", fail)
    assert Tracker(nano(), engine="auto").engine == "torch"
    assert "no such operator" in caplog.text


def test_auto_is_for_small_networks_in_float32_on_the_cpu(made, monkeypatch):
    network = nano()

    def taken(choice="auto", device=CPU, precision="float32"):
        return start_engine(choice, network, device, precision, 1, HEADS)[0]

    assert taken() == "onnxruntime"
    assert taken(device=torch.device("cuda", 1)) == "torch"
    assert taken(precision="bfloat16") == "torch"
    for arguments in ({"device": torch.device("cuda", 1)}, {"precision": "bfloat16"}):
        with pytest.raises(UserError, match=r"not in (float32 on cuda:1|bfloat16 on cpu)"):
            taken("onnxruntime", **arguments)
    monkeypatch.setenv("RELO_ENGINE", "torch")
    assert taken() == "torch"
    assert taken("onnxruntime") == "onnxruntime"
    monkeypatch.setenv("RELO_ENGINE", "")
    assert taken() == "onnxruntime"
    monkeypatch.setenv("RELO_ENGINE", "tensors")
    with pytest.raises(UserError, match="no engine 'tensors'; give auto, torch, onnxruntime"):
        taken()
    monkeypatch.delenv("RELO_ENGINE")
    monkeypatch.setattr("relo.models.devices._SMALL", 1000)
    assert taken() == "torch"
    assert taken("onnxruntime") == "onnxruntime"


def test_a_model_is_loaded_for_the_engine(tmp_path):
    save_network(nano(), tmp_path)
    assert Tracker.from_pretrained(tmp_path, device="cpu").engine == "onnxruntime"
    assert Tracker.from_pretrained(tmp_path, device="cpu", engine="torch").engine == "torch"
    assert Tracker(nano()).engine == "torch"  # its weights may change


@pytest.fixture
def set_threads():
    """What sets torch's number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_of_a_large_network_are_torchs_and_sleep_while_they_wait(made, monkeypatch, set_threads):
    monkeypatch.setattr("relo.models.devices._SMALL", 1000)
    network = ONNXNetwork(nano(), 1, HEADS)
    example = engine.example_step(nano(), 1, HEADS)
    for threads in (2, 1):
        set_threads(threads)
        with torch.inference_mode():
            network(*example, HEADS)
        options = network._session.get_session_options()
        assert options.intra_op_num_threads == threads
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


class Meeting:
    """A session in which each run waits until another is under way, too."""

    def __init__(self, session):
        self.session = session
        self.barrier = threading.Barrier(2, timeout=20)

    def run(self, *arguments):
        self.barrier.wait()
        return self.session.run(*arguments)


def test_a_small_network_computes_a_target_in_each_thread_and_each_as_if_alone(made, set_threads):
    images, boxes_xywh = video("one")
    several = [boxes_xywh[0] + 3 * shift for shift in range(4)]

    tracker = Tracker(nano(), engine="onnxruntime")
    set_threads(1)
    states = tracker.step([images[0]] * 4, tracker.initialize([images[0]] * 4, several))  # by torch
    alone = [tracker.step([images[1]], [state])[0] for state in states]
    assert len({state.score for state in alone}) == 4
    set_threads(2)
    assert tracker.step([images[1]], states[:1])[0].score == alone[0].score
    network = tracker._localizer._forward
    assert network._session.get_session_options().intra_op_num_threads == 1
    network._session = Meeting(network._session)
    for found, expected in zip(tracker.step([images[1]] * 4, states), alone, strict=True):
        assert torch.equal(found.box_xywh, expected.box_xywh)
        assert torch.equal(found.memory, expected.memory)
        assert (found.score, found.frame_index) == (expected.score, 2)


def test_names_tell_structures_apart():
    network = nano()
    names = [
        graph_name(network, 1, HEADS),
        graph_name(network, 2, HEADS),
        graph_name(network, 1, tracking_heads(network, "prior")),
        graph_name(optimize_for_inference(network), 1, HEADS),
        graph_name(nano(kind=PresentNetwork), 1, HEADS),
        graph_name(fast_itpn(), 1, HEADS),
    ]
    assert len(set(names)) == len(names)
    assert graph_name(nano(), 1, HEADS) == names[0]


def test_a_graph_that_contradicts_its_network_is_not_used(graph, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RELO_CACHE", str(tmp_path))
    wrong = contradicting(graph)
    monkeypatch.setattr(engine, "step_graph", lambda *arguments: (wrong.model, wrong.weights))
    with pytest.raises(UserError, match="does not compute what the network does"):
        Tracker(nano(), engine="onnxruntime")
    assert Tracker(nano(), engine="auto").engine == "torch"
    assert "does not compute" in caplog.text
    assert not list(tmp_path.rglob("*.zip"))


def test_weights_that_are_no_numbers_are_named_as_by_torch(made):
    broken = nano()
    with torch.no_grad():
        broken.box.offset[-1].bias.fill_(np.nan)
    tracker = Tracker(broken, engine="onnxruntime")
    with pytest.raises(UserError, match="not a number"):
        list(followed(tracker))

import copy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from relo.commands.export import export
from relo.commands.main import main
from relo.data.sequences.parsing import read_boxes
from relo.data.synthetic import render_sequence
from relo.data.synthetic.settings import EASY
from relo.errors import UserError
from relo.images import normalise_images
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.weights import load_network, save_network
from relo.models.encoders.base import Encoder
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.export import export_onnx, largest_difference
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.models.temporal import DeepToShallow, LayerAligned, NoPropagation
from relo.tracking.rule import RuleFile, TrackingRule, own_rules
from relo.tracking.sources import open_frames
from small_networks import PresentNetwork

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.filterwarnings("ignore")]
PROPAGATORS = {
    "layer-aligned": lambda: LayerAligned(32, 3, depth=2),
    "layer-aligned at one layer": lambda: LayerAligned(32, 3, depth=2, layers=[1]),
    "layer-aligned, projected": lambda: LayerAligned(32, 3, depth=2, projection=True),
    "layer-aligned without tokens": lambda: LayerAligned(32, 0, depth=2),
    "deep-to-shallow": lambda: DeepToShallow(32, 3),
    "none": lambda: NoPropagation(32, 3),
}


def network(propagator=PROPAGATORS["layer-aligned"], kind=LocalizationNetwork) -> LocalizationNetwork:
    torch.manual_seed(0)
    encoder = FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32, layer_scale=1.0)
    heads = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": ConvPrior}
    network = kind(encoder, propagator(), **{name: part(32, [8]) for name, part in heads.items()})
    for parameter in network.parameters():  # far from the small initial weights, or every frame would look the same
        if parameter.dim() > 1 and parameter.numel():
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network.eval()


def clip(batch: int, frames: int = 20, templates: int = 2):
    """A moving bright square on noise: template images, boxes_xywh and search images."""
    generator = torch.Generator().manual_seed(0)
    search = 0.3 * torch.randn(frames, batch, 3, 64, 64, generator=generator)
    for frame in range(frames):
        search[frame, :, :, 10 + frame : 26 + frame, 20:36] += 2.0
    boxes_xywh = torch.rand(batch, templates, 4, generator=generator) * 0.3 + 0.1
    return torch.randn(batch, templates, 3, 32, 32, generator=generator), boxes_xywh, search


# Each export takes seconds.
@pytest.mark.parametrize(
    "propagator",
    [
        pytest.param(propagator, id=name, marks=[] if name == "layer-aligned" else pytest.mark.slow)
        for name, propagator in PROPAGATORS.items()
    ],
)
def test_twenty_frames_match_for_any_batch(tmp_path, propagator):
    exported = network(propagator)
    export_onnx(exported, tmp_path, templates=2)
    for batch in (1, 3):
        assert largest_difference(exported, tmp_path, *clip(batch)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("localization", ["policy", "prior"])
def test_presence_is_exported_where_there_is_one(tmp_path, localization):
    exported = network()
    exported.presence = ConvPresence(32, (16, 8), localization).eval()
    exported.presence.calibrate(0.7, 0.3)
    export_onnx(exported, tmp_path)
    assert largest_difference(exported, tmp_path, *clip(2, frames=3, templates=1)) < 1e-3
    step = onnxruntime.InferenceSession(str(tmp_path / "step.onnx"))
    read = ["prior_scores"] if localization == "prior" else []
    expected = ["policy_logits", "boxes_cxcywh", *read, "presence", "next_memory"]
    assert [output.name for output in step.get_outputs()] == expected


def test_a_model_that_localizes_by_its_prior_is_exported_with_it(tmp_path, capsys):
    exported = network()
    save_network(exported, tmp_path / "model", asdict(TrackingRule(localization="prior")))
    export(model=str(tmp_path / "model"), output=str(tmp_path))
    names = ["policy_logits", "boxes_cxcywh", "prior_scores", "next_memory"]
    assert f"A step gives {', '.join(names)}." in " ".join(capsys.readouterr().out.split())
    encode, step = (onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("templates", "step"))
    assert [output.name for output in step.get_outputs()] == names
    images, boxes_xywh, search = clip(1, frames=1, templates=1)
    (tokens,) = encode.run(["tokens"], {"images": images.numpy(), "boxes_xywh": boxes_xywh.numpy()})
    memory, is_first = np.zeros((2, 1, 3, 32), np.float32), np.array([True])
    inputs = {"images": search[0].numpy(), "tokens": tokens, "memory": memory, "is_first": is_first}
    (scores,) = step.run(["prior_scores"], inputs)
    maps, _ = exported(search[0], exported.encode_templates(images, boxes_xywh))
    torch.testing.assert_close(torch.from_numpy(scores), maps.prior_scores, atol=1e-4, rtol=0)


def test_new_and_old_targets_share_a_step(tmp_path):
    exported = network()
    export_onnx(exported, tmp_path, templates=2)
    encode, step = (onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("templates", "step"))
    images, boxes_xywh, search = (tensor.numpy() for tensor in clip(2, frames=2))
    (tokens,) = encode.run(["tokens"], {"images": images, "boxes_xywh": boxes_xywh})
    names = [output.name for output in step.get_outputs()]
    assert names == ["policy_logits", "boxes_cxcywh", "next_memory"]

    def run(frame: int, memory: np.ndarray, *is_first: bool) -> dict[str, np.ndarray]:
        inputs = {"images": search[frame], "tokens": tokens, "memory": memory, "is_first": np.array(is_first)}
        return dict(zip(names, step.run(names, inputs), strict=True))

    first = run(0, np.zeros((2, 2, 3, 32), np.float32), True, True)
    later, fresh, mixed = (
        run(1, first["next_memory"], *is_first)["policy_logits"]
        for is_first in ((False, False), (True, True), (False, True))
    )
    np.testing.assert_allclose(mixed[0], later[0], atol=1e-4)
    np.testing.assert_allclose(mixed[1], fresh[1], atol=1e-4)
    assert np.abs(later - fresh).max() > 1e-3


def test_the_command(tmp_path, capsys):
    save_network(network(), tmp_path / "model")
    export(model=str(tmp_path / "model"))
    assert "step.onnx" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "model" / "onnx").iterdir()) == ["step.onnx", "templates.onnx"]
    with pytest.raises(UserError, match="no model"):
        export(model=str(tmp_path / "nothing"))


@pytest.mark.parametrize("benchmarks", [{}, {"lasot": {"window_exponent": 2.0}}])
def test_a_model_folder_tracks_as_what_it_was_made_from(tmp_path, benchmarks):
    rule = RuleFile(TrackingRule(localization="prior", window_exponent=0.5), benchmarks)
    save_network(network(), tmp_path / "model", rule.settings())
    export(model=str(tmp_path / "model"), format="safetensors", output=str(tmp_path / "a"))
    assert own_rules(tmp_path / "a") == rule
    made = network()
    state = {f"network.{name}": tensor for name, tensor in made.state_dict().items()}
    contents = {"state_dict": state, "relo_network": made.config(), "relo_rule": asdict(rule.rule)}
    torch.save(contents, tmp_path / "rl.ckpt")
    export(model=str(tmp_path / "rl.ckpt"), format="safetensors")
    assert own_rules(tmp_path / "safetensors").rule == rule.rule
    for folder in ("a", "safetensors"):
        files = sorted(path.name for path in (tmp_path / folder).iterdir())
        assert files == ["config.yaml", "model.safetensors", "tracking.yaml"]
        torch.testing.assert_close(load_network(tmp_path / folder).state_dict(), made.state_dict(), rtol=0, atol=0)


def trained_size_nano() -> LocalizationNetwork:
    """The demo's network, with weights under which frames look different."""
    torch.manual_seed(0)
    nano = build(yaml.safe_load((REPOSITORY / "configs/model/nano.yaml").read_text()))
    for parameter in nano.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return nano.eval()


@pytest.fixture(scope="module")
def exported_nano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    nano = trained_size_nano()
    export_onnx(nano, folder)
    return nano, folder


def video_crops(encoder: Encoder, images: list[np.ndarray], boxes_xywh: torch.Tensor):
    """A target's template and search crops in a video, each cut around where the target was a frame before."""
    rule = TrackingRule()
    template_crop, search_crop = rule.template_crop(encoder.template_size), rule.search_crop(encoder.search_size)
    region = template_crop.region(boxes_xywh[0])
    template = normalise_images(torch.from_numpy(template_crop.cut(images[0], region)))
    crops = [
        search_crop.cut(image, search_crop.region(before))
        for image, before in zip(images[1:], boxes_xywh[:-1], strict=True)
    ]
    search = normalise_images(torch.from_numpy(np.stack(crops)))
    return template[None, None], template_crop.to_crop(boxes_xywh[0], region)[None, None].float(), search[:, None]


def synthetic_video(name: str, frames: int = 21):
    sequence = render_sequence(name, frames=frames, settings=EASY)
    return list(sequence.frames), torch.from_numpy(sequence.boxes_xywh)


@pytest.mark.slow
def test_twenty_frames_of_two_videos_in_one_batch(exported_nano):
    nano, folder = exported_nano
    clips = [video_crops(nano.encoder, *synthetic_video(name)) for name in ("one", "two")]
    for members in (clips[:1], clips):
        template, boxes_xywh, search = (
            torch.cat(parts, dim=axis) for parts, axis in zip(zip(*members, strict=True), (0, 0, 1), strict=True)
        )
        assert search.shape[:2] == (20, len(members))
        assert largest_difference(nano, folder, template, boxes_xywh, search) < 1e-3


def test_twenty_frames_of_a_real_video(exported_nano, shared):
    nano, folder = exported_nano
    sequence = shared / "sequences" / "david"
    images = list(open_frames(sequence / "img", limit=21))
    boxes_xywh = torch.from_numpy(read_boxes(sequence / "groundtruth_rect.txt")[:21])
    assert largest_difference(nano, folder, *video_crops(nano.encoder, images, boxes_xywh)) < 1e-3


def test_a_graph_of_other_weights_is_told_from_the_network(exported_nano):
    nano, folder = exported_nano
    other = copy.deepcopy(nano)
    with torch.no_grad():
        other.policy.tower[-1].weight.mul_(1.1)
    assert largest_difference(other, folder, *video_crops(nano.encoder, *synthetic_video("one", frames=3))) > 1e-3


def test_a_number_of_targets_may_be_fixed(tmp_path):
    exported = network(kind=PresentNetwork)
    export_onnx(exported, tmp_path, templates=2, batch=1)
    assert largest_difference(exported, tmp_path, *clip(1, frames=3)) < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / "step.onnx"))
    assert session.get_inputs()[0].shape == [1, 3, 64, 64]
    outputs = [entry.name for entry in session.get_outputs()]
    assert outputs == ["policy_logits", "boxes_cxcywh", "presence", "next_memory"]


def test_the_number_of_templates_may_be_left_out(tmp_path, capsys):
    save_network(network(), tmp_path / "model")
    main(["export", "--model", str(tmp_path / "model"), "--format=safetensors", "--output", str(tmp_path / "exported")])
    assert (tmp_path / "exported/model.safetensors").is_file()

import numpy as np
import onnxruntime
import pytest
import torch

from relo.errors import UserError
from relo.export import ONNXTracker, export, export_onnx, largest_difference
from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.nano import Nano
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.temporal import DeepToShallow, LayerAligned, NoPropagation
from relo.weights import save_network

pytestmark = [pytest.mark.filterwarnings("ignore")]
PROPAGATORS = {
    "layer-aligned": lambda: LayerAligned(32, 3, depth=2),
    "deep-to-shallow": lambda: DeepToShallow(32, 3),
    "none": lambda: NoPropagation(32, 3),
}


def network(propagator=PROPAGATORS["layer-aligned"]) -> LocalizationNetwork:
    torch.manual_seed(0)
    encoder = FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32, layer_scale=1.0)
    heads = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": ConvPrior}
    network = LocalizationNetwork(encoder, propagator(), **{name: part(32, [8]) for name, part in heads.items()})
    for parameter in network.parameters():  # far from the small initial weights, or every frame would look the same
        if parameter.dim() > 1:
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


@pytest.mark.parametrize("propagator", PROPAGATORS.values(), ids=PROPAGATORS.keys())
def test_twenty_frames_match_for_any_batch(tmp_path, propagator):
    exported = network(propagator)
    export_onnx(exported, tmp_path, templates=2)
    for batch in (1, 3):
        assert largest_difference(exported, tmp_path, *clip(batch)) < 1e-3


def test_new_and_old_targets_share_a_step(tmp_path):
    exported = network()
    export_onnx(exported, tmp_path, templates=2)
    graphs = ONNXTracker(tmp_path)
    images, boxes_xywh, search = (tensor.numpy() for tensor in clip(2, frames=2))
    templates = graphs.encode_templates(images, boxes_xywh)
    first, memory = graphs.step(search[0], templates, None)
    later, _ = graphs.step(search[1], templates, memory)
    anew, _ = graphs.step(search[1], templates, None)
    session = onnxruntime.InferenceSession(str(tmp_path / "step.onnx"))
    inputs = {"images": search[1], **templates, "memory": memory, "is_first": np.array([False, True])}
    mixed = session.run(["policy_logits"], inputs)[0]
    np.testing.assert_allclose(mixed[0], later["policy_logits"][0], atol=1e-4)
    np.testing.assert_allclose(mixed[1], anew["policy_logits"][1], atol=1e-4)
    assert np.abs(later["policy_logits"] - anew["policy_logits"]).max() > 1e-3
    assert first.keys() == {"policy_logits", "boxes_cxcywh"}


def test_the_command(tmp_path, capsys):
    save_network(network(), tmp_path / "model")
    export(model=str(tmp_path / "model"))
    assert "step.onnx" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "model" / "onnx").iterdir()) == ["step.onnx", "templates.onnx"]
    with pytest.raises(UserError, match="no model"):
        export(model=str(tmp_path / "nothing"))


def test_a_network_whose_batch_must_be_fixed(tmp_path):
    torch.manual_seed(0)
    encoder = Nano(width=32, depth=1, heads=2, stem=(8, 8, 16), correlation_groups=2, channels=16)
    nano = LocalizationNetwork(encoder, LayerAligned(32, 2, depth=1), ConvPolicy(16, [8]), ConvBox(16, [8])).eval()
    export_onnx(nano, tmp_path, batch=1)
    generator = torch.Generator().manual_seed(0)
    template, search = (
        torch.randn(1, 1, 3, 64, 64, generator=generator),
        torch.randn(3, 1, 3, 128, 128, generator=generator),
    )
    assert largest_difference(nano, tmp_path, template, torch.tensor([[[0.25, 0.25, 0.5, 0.5]]]), search) < 1e-3

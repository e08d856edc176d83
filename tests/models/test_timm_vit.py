from pathlib import Path

import pytest
import timm
import torch
import yaml
from timm.models import vision_transformer

from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.encoders.timm_vit import TimmViT
from relo.models.temporal import LayerAligned

SMALL = {"search_size": 64, "template_size": 32, "depth": 2}
FAMILIES = {
    "plain": "vit_tiny_patch16_224",
    "distilled DeiT": "deit_tiny_distilled_patch16_224",
    "DeiT-III": "deit3_small_patch16_224",
    "MAE": "vit_base_patch16_224.mae",
    "CLIP": "vit_base_patch32_clip_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv2 with registers": "vit_small_patch14_reg4_dinov2",
    "DINOv3": "vit_small_patch16_dinov3",
    "EVA-02": "eva02_tiny_patch14_224",
    "learned rotations": "vit_small_patch16_rope_mixed_224",
}


def targets(batch: int = 1, templates: int = 2):
    torch.manual_seed(0)
    boxes_xywh = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(batch, templates, 4)
    return torch.randn(batch, templates, 3, 32, 32), boxes_xywh, torch.randn(2, batch, 3, 64, 64)


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_two_frames_through_every_family(name):
    encoder = TimmViT(name, **SMALL).eval()
    template_images, boxes_xywh, search_images = targets()
    templates = encoder.encode_templates(template_images, boxes_xywh)
    propagator, memory = LayerAligned(encoder.width, 2, encoder.depth), None
    maps = []
    for images in search_images:
        features, memory = encoder(images, templates, propagator, memory)
        assert features.shape == (1, encoder.channels, 4, 4)
        assert features.isfinite().all()
        maps.append(features)
    assert memory.shape == (2, 1, 2, encoder.width)
    assert not torch.allclose(maps[0], maps[1])


@pytest.mark.parametrize(
    "name",
    [FAMILIES[key] for key in ("distilled DeiT", "DINOv2 with registers", "CLIP", "DINOv3", "EVA-02")],
)
@torch.no_grad()
def test_without_templates_it_is_the_model_of_timm(name, monkeypatch):
    """Search and prefix tokens alone, untyped, give timm's features: positions and rotations are in place."""
    bodies = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: bodies.append(create(*a, **k)) or bodies[0])
    torch.manual_seed(0)
    encoder = TimmViT(name, search_size=64, template_size=32).eval()
    body = bodies[0].eval()
    images = torch.randn(2, 3, 64, 64)
    encoder.types.search.zero_()
    tokens, _ = encoder.embed_search(images, None)
    prefix = encoder.norm_pre(encoder.prefix).expand(2, -1, -1)
    tokens = torch.cat([tokens, prefix], dim=1)
    for index in range(encoder.depth):
        tokens = encoder.run_layer(index, tokens, static=tokens.shape[1], needed=tokens.shape[1])
    for block in body.blocks:
        block.attn.num_prefix_tokens = body.num_prefix_tokens
    features = body.forward_features(images)[:, body.num_prefix_tokens :]
    expected = encoder.norm(features) if isinstance(body.norm, torch.nn.Identity) else features
    torch.testing.assert_close(encoder.to_map(tokens[:, :16], None).flatten(2).mT, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_positions_and_patches_of_a_pretraining_file_are_resampled(tmp_path):
    source = vision_transformer.VisionTransformer(img_size=56, patch_size=14, embed_dim=192, num_heads=3, depth=12)
    source.pos_embed.fill_(0.25)
    torch.save({"model": source.state_dict()}, tmp_path / "mae.pth")
    encoder = TimmViT("vit_tiny_patch16_224", pretrained=str(tmp_path / "mae.pth"), search_size=64, template_size=32)
    torch.testing.assert_close(encoder.position, torch.full((1, 16, 192), 0.25))
    torch.testing.assert_close(encoder.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert encoder.patch_embed.proj.weight.shape == (192, 3, 16, 16)
    assert "pretrained" not in encoder.config()["init_args"]


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(UserError, match="vit_of_nobody"):
        TimmViT("vit_of_nobody")
    with pytest.raises(UserError, match="plain ViT"):
        TimmViT("resnet18")
    with pytest.raises(UserError, match="must be multiples"):
        TimmViT("vit_tiny_patch16_224", search_size=250)
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(UserError, match="does not fit"):
        TimmViT("vit_tiny_patch16_224", pretrained=str(tmp_path / "foreign.pth"))
    with pytest.raises(UserError, match="does not exist"):
        TimmViT("vit_tiny_patch16_224", pretrained=str(tmp_path / "none.pth"))


def test_the_config_of_dinov2_builds():
    config = yaml.safe_load((Path(__file__).parents[2] / "configs/model/dinov2.yaml").read_text())
    with torch.device("meta"):
        network = build(config)
    assert network.encoder.prefix.shape == (1, 5, 384)  # a class token and four registers

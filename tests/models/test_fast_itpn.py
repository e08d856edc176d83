import pytest
import torch

from relo.errors import UserError
from relo.models.encoders.fast_itpn import Block, FastITPN
from relo.models.temporal import DeepToShallow, LayerAligned, NoPropagation


def small(**changes) -> FastITPN:
    torch.manual_seed(0)
    arguments = {"width": 32, "depth": 3, "heads": 4, "stage1": 1, "stage2": 2, "search_size": 64, "template_size": 32}
    return FastITPN(**arguments | changes).eval()


def targets(batch: int = 2, templates: int = 2):
    images = torch.randn(batch, templates, 3, 32, 32)
    boxes_xywh = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(batch, templates, 4)
    return images, boxes_xywh


@pytest.mark.parametrize("propagator", [LayerAligned(32, 3, depth=3), DeepToShallow(32, 3), NoPropagation(32, 3)])
def test_two_frames_under_every_propagation(propagator):
    encoder = small()
    templates = encoder.encode_templates(*targets())
    assert templates.tokens.shape == (2, 2 * 4, 32)
    memory = None
    for _ in range(2):
        features, memory = encoder(torch.randn(2, 3, 64, 64), templates, propagator, memory)
        assert features.shape == (2, encoder.channels, encoder.map_size, encoder.map_size) == (2, 32, 4, 4)
        assert features.isfinite().all()


@pytest.mark.parametrize(
    "propagator",
    [
        LayerAligned(32, 3, depth=3),
        *(LayerAligned(32, 3, depth=3, layers=layers) for layers in ([0], [1], [2], [0, 2])),
        DeepToShallow(32, 3),
        NoPropagation(32, 3),
    ],
)
@torch.no_grad()
def test_tokens_left_out_are_tokens_that_nobody_reads(propagator, monkeypatch):
    encoder = small(layer_scale=1.0)
    torch.nn.init.normal_(propagator.learned_tokens)
    templates = encoder.encode_templates(*targets())
    images = torch.randn(3, 2, 3, 64, 64)

    def three_frames():
        memory, outputs = None, []
        for frame in images:
            features, memory = encoder(frame, templates, propagator, memory)
            outputs += [features] if memory is None else [features, memory]
        return outputs

    spared = three_frames()
    run_layer = encoder.run_layer
    monkeypatch.setattr(
        encoder, "run_layer", lambda i, tokens, static, needed: run_layer(i, tokens, static, tokens.shape[1])
    )
    torch.testing.assert_close(spared, three_frames(), rtol=1e-4, atol=1e-5)


def test_the_block_can_leave_out_tokens_that_nobody_reads():
    block = Block(32, heads=4, mlp_ratio=3, layer_scale=0.1, drop_path=0.0).eval()
    tokens = torch.randn(2, 10, 32)
    torch.testing.assert_close(block(tokens, outputs=6), block(tokens, outputs=10)[:, :6])


def test_each_template_is_encoded_on_its_own():
    encoder = small()
    images, boxes_xywh = targets()
    together = encoder.encode_templates(images, boxes_xywh).tokens
    second = encoder.encode_templates(images[:, 1:], boxes_xywh[:, 1:]).tokens
    torch.testing.assert_close(together[:, 4:], second)


def test_a_template_pixel_is_foreground_where_its_corner_is_inside_the_box():
    encoder = small()
    images = torch.zeros(1, 1, 3, 32, 32)

    def foreground(box_xywh: list[float]) -> torch.Tensor:
        # Of zero images the types are all that differs from a template without target.
        tokens = encoder.encode_templates(images, torch.tensor([[box_xywh]])).tokens
        nothing = encoder.encode_templates(images, torch.zeros(1, 1, 4)).tokens
        direction = encoder.types.foreground - encoder.types.background
        return ((tokens - nothing) @ direction / direction.square().sum()).view(2, 2)

    # Pixels 0 .. 8 across (9 of them) and all 16 down, in the upper left cell of 16 px.
    expected = torch.tensor([[9 / 16, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(foreground([0.0, 0.0, 8.5 / 32, 0.5]), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(foreground([0.0, 0.0, 1.0, 1.0]), torch.ones(2, 2), rtol=0, atol=1e-5)


def test_stochastic_depth_grows_over_stem_and_blocks_and_rests_in_eval():
    encoder = small(drop_path=0.5)
    rates = [module.drop_path.drop_prob for module in encoder.modules() if hasattr(module, "drop_path")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    propagator = NoPropagation(32, 3)
    templates = encoder.encode_templates(*targets())
    images = torch.randn(2, 3, 64, 64)

    def features():
        return encoder(images, templates, propagator, None)[0]

    torch.testing.assert_close(features(), features())
    encoder.train()
    assert not torch.allclose(features(), features())


@pytest.mark.parametrize("change", [{"search_size": 100}, {"template_size": 100}, {"heads": 5}])
def test_sizes_that_do_not_divide_are_refused(change):
    with pytest.raises(UserError, match="multiple"):
        small(**change)

import copy

import pytest
import torch

from relo.models.encoders.fast_itpn import FastITPN
from relo.models.encoders.timm_cnn import TimmCNN
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.inference import computing, fastest_precision, optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.models.temporal import LayerAligned


def network() -> LocalizationNetwork:
    """A small network with BatchNorm statistics and layer scales that matter."""
    torch.manual_seed(0)
    encoder = FastITPN(32, 2, 4, 1, 1, search_size=64, template_size=32)
    heads = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": ConvPrior}
    made = LocalizationNetwork(encoder, LayerAligned(32, 3, depth=2), **{k: v(32, [8, 8]) for k, v in heads.items()})
    for name, tensor in made.state_dict().items():
        if tensor.dim() > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if name.endswith(("weight", "gamma", "var")) else tensor.normal_(std=0.1)
    return made.eval()


@torch.inference_mode()
def two_frames(of: LocalizationNetwork, precision: str = "float32"):
    generator = torch.Generator().manual_seed(0)
    boxes_xywh = torch.tensor([0.2, 0.2, 0.5, 0.5]).expand(2, 2, 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        templates = of.encode_templates(torch.randn(2, 2, 3, 32, 32, generator=generator), boxes_xywh)
        memory = None
        for images in torch.randn(2, 2, 3, 64, 64, generator=generator):
            maps, memory = of(images, templates, memory)
    return maps


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_outputs_stay(precision):
    plain, fast = network(), optimize_for_inference(network(), precision)
    expected, found = two_frames(plain), two_frames(fast, precision)
    tolerance = 1e-4 if precision == "float32" else 0.05
    for name in ("policy_logits", "boxes_cxcywh", "value", "prior_scores"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=tolerance)
        assert getattr(found, name).dtype == torch.float32


def test_the_network_itself_is_left_alone():
    made = network()
    before = copy.deepcopy(made.state_dict())
    fast = optimize_for_inference(made, "bfloat16")
    torch.testing.assert_close(dict(made.state_dict()), dict(before), rtol=0, atol=0)
    assert made.policy.tower[0][0].weight.requires_grad
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())


def test_near_ties_are_not_rounded_away():
    """Two cells differ by less than bfloat16 can tell at the height of the logits of trained networks."""
    made = network()
    with torch.no_grad():
        made.policy.tower[-1].bias.fill_(40.0)
    logits = two_frames(optimize_for_inference(made, "bfloat16"), "bfloat16").policy_logits.flatten(1)
    spacing = 0.25  # of bfloat16 between 32 and 64
    assert logits.std() < 4 * spacing
    assert all(len(target.unique()) == len(target) for target in logits)


def test_a_block_has_fewer_products():
    def products(of: LocalizationNetwork) -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            two_frames(of)
        return sum(event.count for event in profile.key_averages() if event.key == "aten::linear")

    # Two blocks, on two frames, with 4 in place of 7.
    assert products(network()) - products(optimize_for_inference(network())) == 2 * 2 * 3


def cnn_network(name: str) -> LocalizationNetwork:
    torch.manual_seed(0)
    encoder = TimmCNN(name, width=32, depth=1, heads=2, channels=16, search_size=64, template_size=32)
    made = LocalizationNetwork(encoder, LayerAligned(32, 2, depth=1), ConvPolicy(16, [8]), ConvBox(16, [8]))
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    return made.eval()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_100"])
def test_a_stem_has_no_batch_norms_left_and_computes_the_same(name):
    made = cnn_network(name)
    fast = optimize_for_inference(made)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(fast.encoder.stem(image), made.encoder.stem(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_stem_that_runs_in_another_order_is_left_alone():
    class Backwards(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
            self.norm.bias.data.fill_(1.0)

        def forward(self, images):
            return [self.conv(self.norm(images))]

    made = cnn_network("tf_efficientnet_lite0")
    made.encoder.stem = Backwards().eval()
    assert isinstance(optimize_for_inference(made).encoder.stem.norm, torch.nn.BatchNorm2d)


def test_settings_are_given_back_after_an_error():
    before = torch.backends.cudnn.conv.fp32_precision

    def fail():
        with computing(torch.device("cpu"), "bfloat16"):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.is_autocast_enabled("cpu")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert not torch.is_autocast_enabled("cpu")


def test_doing_it_twice_is_doing_it_once():
    once = optimize_for_inference(network())
    torch.testing.assert_close(two_frames(optimize_for_inference(once)).value, two_frames(once).value)
    once = optimize_for_inference(network(), "bfloat16")
    twice = optimize_for_inference(once, "bfloat16")
    torch.testing.assert_close(two_frames(twice, "bfloat16").value, two_frames(once, "bfloat16").value)


def test_the_precision_is_chosen_by_trial(monkeypatch):
    for seconds, expected in (
        ({"float32": 3.0, "bfloat16": 1.0}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 0.9}, "float32"),
    ):
        monkeypatch.setattr(
            "relo.models.inference._product_seconds",
            lambda dtype, device, s=seconds: s[str(dtype).removeprefix("torch.")],
        )
        assert fastest_precision() == expected

import copy

import pytest
import torch

from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.encoders.base import Templates
from relo.models.encoders.layers import foreground_share
from relo.models.heads import ConvBox, ConvPolicy
from relo.models.network import LocalizationNetwork
from relo.models.temporal import DeepToShallow, LayerAligned, NoPropagation
from small_networks import make_clip, make_network


@torch.inference_mode()
def walk(network: LocalizationNetwork, clip, frames: int):
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    memory, outputs = None, []
    for t in range(frames):
        maps, memory = network(clip.search_images[:, t], templates, memory)
        outputs.append(maps)
    return outputs, memory


def test_shapes_of_the_contract() -> None:
    network, clip = make_network().eval(), make_clip(batch=3, templates=2)
    outputs, memory = walk(network, clip, 2)
    maps = outputs[-1]
    assert maps.policy_logits.shape == (3, 8, 8)
    assert maps.boxes_cxcywh.shape == (3, 8, 8, 4)
    assert maps.value.shape == (3,)
    assert maps.prior_scores.shape == (3, 8, 8)
    assert memory.shape == (2, 3, 2, 32)  # layers, B, K, width


def test_only_heads_that_are_asked_for_run() -> None:
    network, clip = make_network().eval(), make_clip()
    network.critic.forward = network.prior.forward = lambda features: pytest.fail("ran")
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    maps, _ = network(clip.search_images[:, 0], templates, heads=("policy", "box"))
    assert maps.value is None
    assert maps.prior_scores is None


def test_targets_of_a_batch_do_not_touch_each_other() -> None:
    network, clip = make_network().eval(), make_clip(batch=3)
    together, _ = walk(network, clip, 2)
    for i in range(3):
        alone_clip = make_clip(batch=3)
        for name in ("template_images", "template_boxes_xywh", "search_images", "search_boxes_xywh"):
            setattr(alone_clip, name, getattr(alone_clip, name)[i : i + 1])
        alone, _ = walk(network, alone_clip, 2)
        for frame in range(2):
            torch.testing.assert_close(
                alone[frame].policy_logits[0], together[frame].policy_logits[i], atol=1e-5, rtol=1e-4
            )


def test_no_state_stays_in_the_network() -> None:
    network = make_network().eval()
    before = copy.deepcopy(network.state_dict())
    first, _ = walk(network, make_clip(seed=1), 2)
    walk(network, make_clip(seed=2), 2)
    again, _ = walk(network, make_clip(seed=1), 2)
    assert torch.equal(first[1].policy_logits, again[1].policy_logits)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("layers", [None, [1]])
def test_memory_changes_what_the_next_frame_sees(layers) -> None:
    network, clip = make_network().eval(), make_clip()
    network.propagator = LayerAligned(32, 2, 2, layers=layers)
    _, memory = walk(network, clip, 1)
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    with_memory, _ = network(clip.search_images[:, 1], templates, memory)
    without, _ = network(clip.search_images[:, 1], templates, None)
    assert not torch.allclose(with_memory.policy_logits, without.policy_logits)


class Recorder:
    """Stands for an encoder: layers that add 1 to every token, and remember what they were given."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def walk(self, propagator, memory, static=3, batch=2):
        seen = []
        temporal = propagator.start(batch, memory)
        tokens = torch.cat([torch.zeros(batch, static, temporal.shape[-1]), temporal], dim=1)
        record = []
        for index in range(self.depth):
            tokens = propagator.before_layer(index, tokens, static, memory, record)
            seen.append(tokens)
            tokens = tokens + 1
        return seen, propagator.after_layers(tokens, static, record)


def test_layer_aligned_puts_frame_before_at_the_same_layer() -> None:
    propagator = LayerAligned(width=4, tokens=2, depth=3)
    learned = propagator.current(2)
    seen, memory = Recorder(3).walk(propagator, None)
    for layer in range(3):  # first frame: both slots are copies of the learned tokens, as the layers change them
        assert torch.allclose(seen[layer][:, 3:5], learned + layer)
        assert torch.allclose(seen[layer][:, 5:7], learned + layer)
        assert torch.allclose(memory[layer], learned + layer)
    marked = torch.arange(3.0)[:, None, None, None].expand(3, 2, 2, 4) * 100 + 7
    seen, memory = Recorder(3).walk(propagator, marked)
    for layer in range(3):  # later frames: the previous slot is what was recorded at this very layer
        assert torch.equal(seen[layer][:, 5:7], marked[layer])
        assert torch.allclose(memory[layer], learned + layer)
    assert not memory.requires_grad


def test_layers_that_do_not_propagate_leave_the_previous_slot_alone() -> None:
    propagator = LayerAligned(width=4, tokens=2, depth=4, layers=[3, 1])
    learned = propagator.current(2)
    _, memory = Recorder(4).walk(propagator, None)
    assert memory.shape == (2, 2, 2, 4)
    assert torch.allclose(memory, torch.stack([learned + 1, learned + 3]))
    marked = torch.tensor([10.0, 20.0])[:, None, None, None].expand(2, 2, 2, 4)
    seen, again = Recorder(4).walk(propagator, marked)
    expected = (learned, torch.full_like(learned, 10), torch.full_like(learned, 11), torch.full_like(learned, 20))
    for layer in range(4):
        assert torch.allclose(seen[layer][:, 3:5], learned + layer)
        assert torch.allclose(seen[layer][:, 5:7], expected[layer])
    assert torch.allclose(again, memory)


@pytest.mark.parametrize("layers", [[], [-1], [0, 4], [1, 1]])
def test_layers_that_an_encoder_does_not_have_are_refused(layers) -> None:
    with pytest.raises(UserError, match="different numbers from 0 to 3"):
        LayerAligned(4, 2, depth=4, layers=layers)


def test_layers_of_a_deeper_encoder_are_refused() -> None:
    network = make_network(depth=2)
    with pytest.raises(UserError, match="names layer 3, the encoder's are 0 to 1"):
        LocalizationNetwork(network.encoder, LayerAligned(32, 2, 4, layers=[1, 3]), network.policy, network.box)


def test_released_projection_starts_at_random_and_takes_in_the_learned_tokens() -> None:
    torch.manual_seed(0)
    propagator = LayerAligned(64, 2, depth=3, projection="released", layers=[0, 2])
    assert len(propagator.projections) == 2
    for layer in (propagator.entrance, *propagator.projections):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not layer.bias.any()
    learned = propagator.learned_tokens + propagator.position
    torch.testing.assert_close(propagator.current(1), propagator.entrance(learned))


def test_projection_starts_as_identity_and_learns() -> None:
    plain, projected = LayerAligned(4, 2, 3), LayerAligned(4, 2, 3, projection=True, detach=False)
    memory = torch.randn(3, 2, 2, 4)
    a, _ = Recorder(3).walk(plain, memory)
    b, recorded = Recorder(3).walk(projected, memory)
    assert torch.allclose(a[2][:, 5:], b[2][:, 5:])
    assert recorded.requires_grad
    b[2].sum().backward()
    assert projected.projections[2].weight.grad.abs().sum() > 0


def test_deep_to_shallow_hands_the_last_layer_to_the_first() -> None:
    propagator = DeepToShallow(width=4, tokens=2)
    learned = propagator.current(2)
    _, memory = Recorder(3).walk(propagator, None)
    assert memory.shape == (1, 2, 2, 4)
    assert torch.allclose(memory[0], learned + 3)
    seen, _ = Recorder(3).walk(propagator, memory)
    assert torch.allclose(seen[0][:, 5:7], learned + 3)
    assert torch.allclose(seen[1][:, 5:7], learned + 4)


def test_no_propagation_remembers_nothing() -> None:
    seen, memory = Recorder(3).walk(NoPropagation(width=4, tokens=2), None)
    assert memory is None
    assert seen[0].shape[1] == 3 + 2


def test_foreground_share_by_hand() -> None:
    share = foreground_share(torch.tensor([0.25, 0.0, 0.5, 0.375]), 4)
    expected = [[0, 1, 1, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert torch.allclose(share, torch.tensor(expected, dtype=share.dtype))


def test_box_of_a_cell_is_centred_on_it() -> None:
    head = ConvBox(channels=4, hidden=(4,)).eval()
    for tower in (head.offset, head.size):
        torch.nn.init.zeros_(tower[-1].weight)
        torch.nn.init.zeros_(tower[-1].bias)
    boxes = head(torch.randn(1, 4, 8, 8))
    assert boxes[0, 2, 5].tolist() == [5 / 8, 2 / 8, 0.5, 0.5]


def test_config_rebuilds_the_same_network() -> None:
    network = make_network()
    rebuilt = build(network.config())
    rebuilt.load_state_dict(network.state_dict())
    clip = make_clip()
    for model in (network, rebuilt):
        model.eval()
    torch.testing.assert_close(walk(rebuilt, clip, 2)[0][1].policy_logits, walk(network, clip, 2)[0][1].policy_logits)


def test_config_cannot_call_anything_but_a_part() -> None:
    with pytest.raises(UserError, match="not a part"):
        build({"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}})
    with pytest.raises(UserError, match="there is none in the module"):
        build({"class_path": "relo.models.heads.Missing"})
    with pytest.raises(UserError, match="does not take"):
        build({"class_path": "relo.models.heads.ConvPolicy", "init_args": {"chanels": 3}})


def test_parts_that_do_not_fit_are_named() -> None:
    network = make_network()
    with pytest.raises(UserError, match="policy head reads 4 channels, the encoder's map has 16"):
        LocalizationNetwork(network.encoder, network.propagator, ConvPolicy(4, (8,)), network.box)
    with pytest.raises(UserError, match="propagator's tokens have 8 channels"):
        LocalizationNetwork(network.encoder, NoPropagation(8, 2), network.policy, network.box)


def test_templates_join_and_part() -> None:
    network, clip = make_network().eval(), make_clip(batch=3)
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    joined = Templates.cat([templates[0:1], templates[1:3]])
    assert torch.equal(joined.tokens, templates.tokens)
    assert torch.equal(joined.kernel, templates.kernel)

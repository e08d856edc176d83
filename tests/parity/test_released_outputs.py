"""Our networks against the public release: the same weights and inputs, the same numbers (float32, 1e-4)."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from make_reference import subsample
from seeded_tensors import seeded_inputs, seeded_weight
from torch import Tensor

from relo.models.checkpoints.released import released_names, released_network
from relo.models.encoders.fast_itpn_names import to_published_shape
from relo.models.inference import optimize_for_inference
from relo.models.network import LocalizationNetwork

REPOSITORY = Path(__file__).parents[2]
REFERENCE = np.load(Path(__file__).with_name("reference.npz"))
RECORDED = {"t256": {"templates": 1, "batch": 2}, "b256": {"templates": 2, "batch": 1}}


def manifest(variant: str) -> dict[str, tuple[int, ...]]:
    lines = (line.partition(" ") for line in bytes(REFERENCE[f"{variant}.manifest"]).decode().splitlines())
    return {name: tuple(int(side) for side in shape.split("x") if side) for name, _, shape in lines}


def network_of(variant: str) -> LocalizationNetwork:
    return released_network(variant)


@lru_cache(maxsize=1)
def seeded_network(variant: str) -> LocalizationNetwork:
    network = network_of(variant).eval()
    shapes = manifest(variant)
    for name, released in released_names(network).items():
        if not name.endswith("num_batches_tracked"):
            tensor = network.state_dict()[name]
            tensor.copy_(seeded_weight(released, shapes[released]).reshape(tensor.shape))
    return network


@torch.inference_mode()
def track(network: LocalizationNetwork, variant: str, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """The recorded outputs of three frames tracked in a row, of some rows of the batch."""
    template_images, boxes_xywh, search_images = seeded_inputs(frames=3, **RECORDED[variant])
    templates = network.encode_templates(template_images[rows], boxes_xywh[rows])
    memory, outputs = None, {}
    for frame, images in enumerate(search_images[:, rows]):
        features = all_features(network, images, templates, memory)
        maps, memory = network(images, templates, memory)
        side = maps.policy_logits.shape[-1]
        cells = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"))
        center, size = maps.boxes_cxcywh.permute(0, 3, 1, 2).split(2, dim=1)
        found = {
            "policy_logits": maps.policy_logits[:, None],
            "score_map": maps.prior_scores[:, None],
            "size_map": size,
            "offset_map": center * side - cells,
            "value": maps.value,
            "features_mean": features.mean(-1),
            "temporal_tokens_mean": memory.mean((2, 3)),
            "temporal_tokens_last": memory[-1][:, :2],
        }
        outputs |= {f"frame{frame}.{key}": value.numpy() for key, value in found.items()}
    return outputs


def all_features(network: LocalizationNetwork, images: Tensor, templates, memory: Tensor | None) -> Tensor:
    """The normalised tokens of the whole sequence [B, L, C]; the network itself gives the search tokens only."""
    tokens, _ = network.encoder.embed_search(images, templates)
    static = tokens.shape[1] + templates.tokens.shape[1]
    tokens = torch.cat([tokens, templates.tokens, network.propagator.start(len(images), memory)], dim=1)
    for index in range(network.encoder.depth):
        tokens = network.propagator.before_layer(index, tokens, static, memory, [])
        tokens = network.encoder.run_layer(index, tokens, static, needed=tokens.shape[1])
    return network.encoder.norm(tokens)


@pytest.mark.parametrize("variant", ["t256", "b256", "l256"])
def test_tensors_have_the_released_names_and_shapes(variant):
    with torch.device("meta"):
        network = network_of(variant)
    names = released_names(network)
    shapes = {names[key]: tuple(to_published_shape(key, value).shape) for key, value in network.state_dict().items()}
    assert shapes == manifest(variant)


@pytest.mark.parametrize("variant", ["t256", "b256"])
def test_three_frames_match_the_release(variant):
    assert_matches_the_release(track(seeded_network(variant), variant), variant)


def test_the_network_made_faster_matches_too():
    assert_matches_the_release(track(optimize_for_inference(seeded_network("t256")), "t256"), "t256")


def assert_matches_the_release(outputs: dict[str, np.ndarray], variant: str) -> None:
    recorded = [key for key in REFERENCE.files if key.startswith(f"{variant}.frame")]
    assert len(recorded) == 3 * 8
    for key in recorded:
        found = subsample(outputs[key.removeprefix(f"{variant}.")])
        np.testing.assert_allclose(found, REFERENCE[key], rtol=0, atol=1e-4, err_msg=key)


def test_a_batch_of_two_is_two_targets_alone():
    both = track(seeded_network("t256"), "t256")
    for row in range(2):
        alone = track(seeded_network("t256"), "t256", slice(row, row + 1))
        for key, value in alone.items():
            column = 1 if key.endswith("temporal_tokens_mean") else 0
            np.testing.assert_allclose(value, both[key].take([row], axis=column), rtol=0, atol=1e-4, err_msg=key)

import pytest
import torch
import torch.nn.functional as F

from relo.models.encoders.correlation import correlate, normalise_groups, target_kernel


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-3)])
@pytest.mark.parametrize(("channels", "side"), [(96, 8), (64, 8), (40, 4)])
def test_correlation_is_cosine_similarity_of_each_placement(precision, tolerance, channels, side):
    groups, batch, count = 8, 2, 2
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, 16, 16, generator=generator)
    template = torch.randn(batch, count, channels, side, side, generator=generator)
    kernel = F.normalize(template.unflatten(2, (groups, -1)), dim=3).flatten(2, 3) / side**2
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        found = correlate(features, kernel, groups)

    signal = F.normalize(features.double().unflatten(1, (groups, -1)), dim=2)
    padded = F.pad(signal, [side // 2] * 4)
    kernel = kernel.double().unflatten(2, (groups, -1))
    expected = torch.zeros(batch, groups, 17, 17, dtype=torch.float64)
    for y in range(17):
        for x in range(17):
            placed = padded[..., y : y + side, x : x + side]
            expected[:, :, y, x] = torch.einsum("bgchw,bngchw->bg", placed, kernel) / count
    torch.testing.assert_close(found.double(), F.avg_pool2d(expected, 2, 1), rtol=0, atol=tolerance)


def test_correlation_peaks_where_the_target_is():
    features = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    kernel = normalise_groups(features, 2)[..., 5:13, 2:10][:, None] / 64
    with torch.autocast("cpu", torch.bfloat16):
        response = correlate(features, kernel, 2)[0].mean(0)
    # The target's centre is the corner of four cells.
    assert response[8:10, 5:7].mean() > 3 * response.abs().mean()
    assert divmod(int(response.argmax()), 16) in {(8, 5), (8, 6), (9, 5), (9, 6)}


def test_a_kernel_is_made_of_the_target_alone():
    features = torch.randn(1, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    kernel = target_kernel(features, torch.tensor([[[0.25, 0.5, 0.5, 0.25]]]), groups=2)
    assert not kernel[..., :4, :].any()
    assert not kernel[..., :2].any()
    # Of unit length in both groups, and the weights of the 4 x 2 cells add up to 1.
    lengths = kernel.unflatten(2, (2, 8)).norm(dim=3).sum((-2, -1))
    torch.testing.assert_close(lengths, torch.ones_like(lengths))

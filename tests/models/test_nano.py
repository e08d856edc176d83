import pytest
import torch
import torch.nn.functional as F

from relo.models.encoders.base import Templates
from relo.models.encoders.nano import Nano


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-3)])
@pytest.mark.parametrize("channels", [96, 64])
def test_correlation_is_cosine_similarity_of_each_placement(precision, tolerance, channels):
    groups, batch, count = 8, 2, 2
    encoder = Nano(32, 1, 2, stem=(8, 8, channels), correlation_groups=groups)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, 16, 16, generator=generator)
    template = torch.randn(batch, count, channels, 8, 8, generator=generator)
    kernel = F.normalize(template.unflatten(2, (groups, -1)), dim=3).flatten(2, 3) / 64
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        found = encoder._correlate(features, Templates(torch.zeros(batch, 1, 32), kernel))

    signal = F.normalize(features.double().unflatten(1, (groups, -1)), dim=2)
    padded = F.pad(signal, (4, 4, 4, 4))
    kernel = kernel.double().unflatten(2, (groups, -1))
    expected = torch.zeros(batch, groups, 17, 17, dtype=torch.float64)
    for y in range(17):
        for x in range(17):
            expected[:, :, y, x] = torch.einsum("bgchw,bngchw->bg", padded[..., y : y + 8, x : x + 8], kernel) / count
    torch.testing.assert_close(found.double(), F.avg_pool2d(expected, 2, 1), rtol=0, atol=tolerance)


def test_correlation_peaks_where_the_target_is():
    encoder = Nano(32, 1, 2, stem=(8, 8, 16), correlation_groups=2)
    features = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    normalised = encoder._normalise(features)
    kernel = normalised[..., 5:13, 2:10][:, None] / 64
    with torch.autocast("cpu", torch.bfloat16):
        response = encoder._correlate(features, Templates(torch.zeros(1, 1, 32), kernel))[0].mean(0)
    # The target's centre is the corner of four cells.
    assert response[8:10, 5:7].mean() > 3 * response.abs().mean()
    assert divmod(int(response.argmax()), 16) in {(8, 5), (8, 6), (9, 5), (9, 6)}

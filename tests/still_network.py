"""A network whose batch normalisation does not see the batch, so that several processes compute what one does."""

from torch import nn

from relo.models.network import LocalizationNetwork


class StillNetwork(LocalizationNetwork):
    """Its BatchNorm layers stay in evaluation mode."""

    def train(self, mode: bool = True) -> "StillNetwork":
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

"""The weights with which the public release starts what no pretraining brings."""

import torch
from torch import nn

from relo.models.encoders.layers import TokenTypes
from relo.models.network import LocalizationNetwork


@torch.no_grad()
def start_as_released(network: LocalizationNetwork) -> None:
    """Temporal tokens and token types at zero; the heads' convolutions and linear layers Xavier uniform.

    The temporal tokens' positions, N(0, 0.02), and the heads' biases and normalisations start so anyway.
    """
    nn.init.zeros_(network.propagator.learned_tokens)
    for module in network.encoder.modules():
        if isinstance(module, TokenTypes):
            for vector in module.parameters():
                nn.init.zeros_(vector)
    for head in (network.policy, network.box, network.critic, network.prior):
        for parameter in head.parameters() if head is not None else ():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

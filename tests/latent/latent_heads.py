"""Small heads and latents that the attribution tests share."""

import numpy as np
import torch
from torch import Tensor, nn

from aifs_peft.latent import MLPHead


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def linear(dim: int = 6, classes: int = 4) -> nn.Linear:
    layer = nn.Linear(dim, classes).double()
    with torch.no_grad():
        layer.weight.copy_(normal(classes, dim, seed=11))
        layer.bias.copy_(normal(classes, seed=12))
    return layer


def mlp(dropout: float = 0.0) -> MLPHead:
    return MLPHead(6, 4, (8,), "tanh", dropout, generator=torch.Generator().manual_seed(0)).double()

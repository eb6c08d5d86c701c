"""Latents of which class (the core feature) and attribute (the shortcut) are known, for training_dynamics.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from dynamics_measures import Cells, offsets
from torch import Tensor

CORE, SPURIOUS, WIDTH, TRAIN, TEST = 2.0, 5.0, 64, 2000, 4000


@dataclass(frozen=True)
class Planted:
    """Latents and what is known of them.

    Attributes:
        z: training latents `(n, d)`.
        y: their labels.
        test: latents, labels and attribute values of the test set, with even cells.
        alpha: `(d,)`, what the class moves a latent by.
        beta: `(d,)`, what the attribute moves it by.
    """

    z: Tensor
    y: Tensor
    test: Cells
    alpha: Tensor
    beta: Tensor


def planted(share: float, seed: int) -> Planted:
    """Gaussian latents, the class along the first axis and the attribute along the second."""
    generator = torch.Generator().manual_seed(seed)
    alpha, beta = torch.zeros(WIDTH), torch.zeros(WIDTH)
    alpha[0], beta[1] = CORE, SPURIOUS

    def draw(n: int, aligned: float) -> Cells:
        y = torch.randint(2, (n,), generator=generator)
        a = torch.where(torch.rand(n, generator=generator) < aligned, y, 1 - y)
        z = torch.randn(n, WIDTH, generator=generator)
        return Cells(z + (y[:, None] - 0.5) * alpha + (a[:, None] - 0.5) * beta, y, a)

    train = draw(TRAIN, share)
    return Planted(train.z, train.y, draw(TEST, 0.5), alpha, beta)


def rotated(share: float, seed: int) -> Planted:
    """The planted latents, turned at random."""
    plain, generator = planted(share, seed), torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    test = replace(plain.test, z=plain.test.z @ turn)
    return Planted(plain.z @ turn, plain.y, test, plain.alpha @ turn, plain.beta @ turn)


def dominoes(share: float, seed: int) -> Planted:
    """Dominoes in principal coordinates with one scale, as `AIFSClassifier` trains on them."""
    from discovery_dominoes import dominoes as draw

    from aifs_peft.discovery.principal_components import principal_components

    (z, y, _), (z_test, y_test, a_test) = draw(share, seed)
    rows = np.random.default_rng(seed).permutation(len(y))[:TRAIN]
    reduction = principal_components(z[rows], rng=np.random.default_rng(seed))
    scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))
    train, test = (torch.as_tensor(reduction.transform(part) * scale).float() for part in (z[rows], z_test))
    cells = Cells(test, torch.as_tensor(y_test), torch.as_tensor(a_test))
    return Planted(train, torch.as_tensor(y[rows]), cells, *offsets(cells))


def load(case: str, seed: int) -> Planted:
    """The draw of a case."""
    name, share = case.split()
    return {"planted": planted, "rotated": rotated, "dominoes": dominoes}[name](float(share), seed)

"""Gaussian latents with a weak class signal and a strong shortcut, drawn from private generators."""

import torch

from aifs_peft.methods import MethodSettings
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents


def planted(n=2000, aligned=0.95, seed=0, core=2.0, shortcut=4.0, num_labels=2, dim=10):
    """Latents, labels and groups `label * num_labels + attribute`; axes of the classes, then of the attributes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_labels, (n,), generator=generator)
    other = (y + torch.randint(1, num_labels, (n,), generator=generator)) % num_labels
    a = torch.where(torch.rand(n, generator=generator) < aligned, y, other)
    z = torch.randn(n, dim, generator=generator)
    rows = torch.arange(n)
    z[rows, y] += core
    z[rows, num_labels + a] += shortcut
    return z, y, num_labels * y + a


def worst_group(head, z, y, groups):
    """Accuracy of the worst group."""
    correct = (head(z).argmax(1) == y).float()
    return min(float(correct[groups == g].mean()) for g in groups.unique())


def fit(method, data, *, options=None, schedule=None, validation=None, num_labels=2, columns=None, **settings):
    """Train `method` on planted latents, with the group column where nothing else is said."""
    z, y, groups = data
    held_out = None if validation is None else (validation[0], validation[1], {"group": validation[2]})
    return fit_on_latents(
        method,
        z,
        y,
        num_labels=num_labels,
        settings=MethodSettings.for_method(method, method_options=options or {}, **settings),
        schedule=schedule or LatentSchedule(epochs=20, learning_rate=0.01),
        columns={"group": groups} if columns is None else columns,
        validation=held_out,
    )

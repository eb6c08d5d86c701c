"""Planted shortcuts on latents: Gaussians with a core signal and an attribute that mostly agrees with the class."""

import torch


def planted(n=2000, dim=16, agreement=0.95, core=1.0, shortcut=3.0, seed=0, core_dims=4, shortcut_dims=4):
    """Latents, labels and attribute: the core signal on the first dimensions, the shortcut on the following ones."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    attribute = torch.where(torch.rand(n, generator=generator) < agreement, y, 1 - y)
    z = torch.randn(n, dim, generator=generator)
    z[:, :core_dims] += core / core_dims**0.5 * (2 * y - 1)[:, None]
    z[:, core_dims : core_dims + shortcut_dims] += shortcut / shortcut_dims**0.5 * (2 * attribute - 1)[:, None]
    return (z - z.mean(0)) / z.std(0), y, attribute


def cell_accuracies(head, z, y, attribute):
    """Accuracy of each (class, attribute) cell, as a dictionary."""
    with torch.no_grad():
        correct = (head(z).argmax(1) == y).double()
    return {(c, a): float(correct[(y == c) & (attribute == a)].mean()) for c in (0, 1) for a in (0, 1)}


def worst(head, seed=1000, **options):
    """Worst cell accuracy of a head on fresh data in which the attribute says nothing about the class."""
    z, y, attribute = planted(**{**options, "n": 4000, "seed": seed, "agreement": 0.5})
    return min(cell_accuracies(head, z, y, attribute).values())

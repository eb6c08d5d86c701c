"""Directions of an inferred attribute: re-estimated on new latents, and read off held-out ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft.errors import InvalidInputError


def fit_displacements(z: Tensor, y: Tensor, groups: Tensor, num_values: int) -> Tensor:
    """Least squares of `z ~ alpha_y + beta_a` with the attribute held fixed: the M-step of the additive mixture.

    Args:
        z: latents `(n, dim)`.
        y: labels `(n,)` int64.
        groups: attribute values `(n,)` int64 in `[0, num_values)`.
        num_values: number of attribute values, A.

    Returns:
        `beta (A, dim)` float64, mean zero over the values that occur; zero for the others.

    Raises:
        InvalidInputError: if the lengths differ.

    Example:
        >>> import torch
        >>> y, a = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> fit_displacements(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), y, a, 2).round(decimals=6)
        tensor([[-1.],
                [ 1.]], dtype=torch.float64)
    """
    if not len(z) == len(y) == len(groups):
        raise InvalidInputError(
            f"z, y and groups must have one row per example, got {len(z)}, {len(y)} and {len(groups)}"
        )
    labels, code = y.unique(return_inverse=True)
    onehot_y = F.one_hot(code, len(labels)).double()
    onehot_a = F.one_hot(groups, num_values).double()
    design = torch.cat([onehot_y, onehot_a], dim=1)
    # One constant can move between the two offsets; the pseudo-inverse picks the shortest, and centring fixes it.
    beta = (torch.linalg.pinv(design.T @ design, hermitian=True) @ (design.T @ z.double()))[len(labels) :]
    present = onehot_a.sum(0) > 0
    beta = beta - beta[present].mean(0, keepdim=True)
    return torch.where(present[:, None], beta, torch.zeros_like(beta))


def basis_of(displacements: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Orthonormal basis of the span of `beta_a - mean beta`.

    Args:
        displacements: `(A, dim)`.
        tolerance: singular values below this share of the largest count as zero.

    Returns:
        `(dim, r)`, `r <= A - 1`, in the precision given; `r = 0` when all displacements are equal.

    Example:
        >>> basis_of(torch.tensor([[-1.0, 0.0], [1.0, 0.0]])).abs()
        tensor([[1.],
                [0.]])
    """
    centred = displacements - displacements.mean(0, keepdim=True)
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    rank = int((singular > tolerance * singular.max().clamp_min(1e-12)).sum()) if singular.numel() else 0
    basis: Tensor = rows[: min(rank, len(displacements) - 1)].T.contiguous()
    return basis


def assign_groups(u: Tensor, y: Tensor, offsets: Tensor, steps: int = 20) -> Tensor:
    """Which attribute value each held-out example has, from its coordinates along the discovered directions.

    The displacements are known, the classes' positions are not: in each class, alternate between the nearest value
    given the position and the position given the values (k-means with a common shift as its only parameter), started
    where the class's own value is the common one. Reads labels, never true groups.

    Args:
        u: `(n, r)`, latents in the basis.
        y: `(n,)` int64 in `[0, A)`.
        offsets: `(A, r)`, displacements in the basis.
        steps: most alternations; it stops when nothing changes.

    Returns:
        `(n,)` int64 in `[0, A)`.

    Example:
        >>> u, y = torch.tensor([[0.0], [0.1], [2.0], [9.0]]), torch.tensor([0, 0, 0, 1])
        >>> assign_groups(u, y, torch.tensor([[-1.0], [1.0]]))
        tensor([0, 0, 1, 1])
    """
    values = y.clone()
    u, offsets = u.double(), offsets.double()
    for label in y.unique().tolist():
        rows = (y == label).nonzero().squeeze(1)
        position = u[rows].median(0).values - offsets[label]
        chosen = y[rows]
        for _ in range(steps):
            nearest = torch.cdist(u[rows] - position, offsets).argmin(1)
            if torch.equal(nearest, chosen):
                break
            chosen = nearest
            position = (u[rows] - offsets[chosen]).mean(0)
        values[rows] = chosen
    return values

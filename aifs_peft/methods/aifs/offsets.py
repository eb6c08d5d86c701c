"""Directions of an inferred attribute, re-estimated on new latents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aifs_peft.errors import InvalidInputError


def fit_offsets(z: Tensor, y: Tensor, groups: Tensor, num_labels: int, num_values: int) -> tuple[Tensor, Tensor]:
    """Class and attribute offsets of `z ~ alpha_y + beta_a` with the attribute held fixed, smoothed as in discovery.

    Args:
        z: latents `(n, dim)`.
        y: labels `(n,)` int64 in `[0, num_labels)`.
        groups: attribute values `(n,)` int64 in `[0, num_values)`; of several attributes their joint values.
        num_labels: number of classes K.
        num_values: number of attribute values: K for one attribute, `K**m` for m.

    Returns:
        `alpha (K, dim)` and `beta (num_values, dim)`, float64, mean zero over the classes and the attribute values
        that occur; zero for the others.

    Raises:
        InvalidInputError: if the lengths differ, or all latents are equal.

    Example:
        >>> import torch
        >>> y, a = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> alpha, beta = fit_offsets(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), y, a, 2, 2)
        >>> bool((alpha[1] - alpha[0] + beta[1] - beta[0] - 7.0).abs() < 0.01)
        True
    """
    from aifs_peft.discovery.mixture.additive import smoothed_offsets
    from aifs_peft.discovery.mixture.joint import (
        count_attributes,
        joint_offsets,
        joint_values,
        values_of_classes,
    )
    from aifs_peft.discovery.principal_components import principal_components

    if not len(z) == len(y) == len(groups):
        raise InvalidInputError(
            f"z, y and groups must have one row per example, got {len(z)}, {len(y)} and {len(groups)}"
        )
    m = count_attributes(num_values, num_labels)
    values = joint_values(num_labels, m)[groups.numpy()]
    present = np.unique(np.concatenate([y.numpy(), values.ravel()]))
    code = np.zeros(num_labels, dtype=np.int64)
    code[present] = np.arange(len(present))
    # float64 throughout: processes differ by rounding, which must not grow in components of little variance.
    latents = z.double().numpy()
    reduction = principal_components(latents, rng=np.random.default_rng(0))
    onehot = np.eye(len(present), dtype=np.float32)[code[values]]
    coordinates = reduction.project(latents - reduction.mean)
    classes, attributes = smoothed_offsets(coordinates, code[y.numpy()], onehot)
    alpha, beta = torch.zeros(num_labels, z.shape[1]).double(), torch.zeros(num_values, z.shape[1]).double()
    alpha[present] = torch.as_tensor(reduction.lift(classes - classes.mean(axis=0)))
    each = reduction.lift(attributes).reshape(m, len(present), -1)
    had = onehot.reshape(len(z), m, len(present)).any(axis=0)
    for offsets, occurs in zip(each, had, strict=True):
        # Of a value that no example has there is no estimate, only what is left over of the class's.
        offsets -= offsets[occurs].mean(axis=0)
        offsets[~occurs] = 0.0
    beta[values_of_classes(present, m, num_labels)] = torch.as_tensor(joint_offsets(each))
    return alpha, beta


def centred_on(displacements: Tensor, values: Tensor) -> Tensor:
    """Displacements with mean zero over the values that occur, and zero for the others.

    Args:
        displacements: `(A, dim)`.
        values: those that occur, `(v,)` int64.

    Returns:
        `(A, dim)`.

    Example:
        >>> centred_on(torch.tensor([[1.0], [7.0], [3.0]]), torch.tensor([0, 2])).squeeze(1)
        tensor([-1.,  0.,  1.])
    """
    out = torch.zeros_like(displacements)
    out[values] = displacements[values] - displacements[values].mean(0)
    return out


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
    from aifs_peft.discovery.arrays import orthonormal_basis

    centred = (displacements - displacements.mean(0, keepdim=True)).cpu().numpy()
    return torch.as_tensor(orthonormal_basis(centred, len(displacements) - 1, tolerance=tolerance))

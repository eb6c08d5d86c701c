"""Curvature of the loss of a linear head, for training_dynamics.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def top_curvature(
    gradient: Callable[[Tensor], Tensor], at: Tensor, start: Tensor, *, most: int = 300, tolerance: float = 1e-5
) -> tuple[float, Tensor]:
    """Largest eigenvalue of a Hessian without a negative one, and its eigenvector, by power iteration.

    Args:
        gradient: of the loss, at a vector of all parameters.
        at: the parameters `(p,)`.
        start: where the iteration starts, `(p,)`.
        most: iterations.
        tolerance: length of `H v - c v`, as a share of the curvature `c`, at which it ends.
    """
    vector, value = start / start.norm(), 0.0
    times_hessian = torch.func.vjp(gradient, at)[1]  # it is symmetric, so either side will do
    for _ in range(most):
        (product,) = times_hessian(vector)
        value = float(vector @ product)
        if float((product - value * vector).norm()) <= tolerance * value:
            break
        vector = product / product.norm()
    return value, vector


def along(direction: Tensor) -> Tensor:
    """The unit change of weights and biases `(2 d + 2,)` that lets the head follow a unit direction `(d,)`."""
    half = direction.double() / math.sqrt(2)
    return torch.cat([-half, half, half.new_zeros(2)])


def curvature_along(margin: Tensor, projection: Tensor) -> float:
    """Curvature of two classes' cross-entropy along `along(u)`: `2 mean p (1 - p) (u' z)^2`."""
    p = torch.sigmoid(margin)
    return float(2 * (p * (1 - p) * projection.square()).mean())

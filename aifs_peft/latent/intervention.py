"""Interventions on latents: masked noise, along coordinate axes or a basis, and counterfactual displacement.

The published form is `z' = z + lambda (m * eps)`, along single coordinates. `z' = z + lambda U (m * eps)` moves along
discovered directions `U`, and `z' = z + beta_{a'} - beta_a` to where the example would be with another value of the
spurious attribute.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.errors import InvalidInputError
from aifs_peft.latent._support import check_indices, check_latents, check_shape, no_autocast, work_dtype


def intervene(z: Tensor, mask: Tensor, noise: Tensor, strength: float, basis: Tensor | None = None) -> Tensor:
    """Move latents along masked noise: `z' = z + strength * U (mask * noise)`.

    Without a basis the noise acts on the coordinates of `z` themselves (`U` is the identity). The sum is
    formed in float32 at least, with autocast off, and returned in the type of `z`; a mask of zeros returns
    `z`'s values bit for bit. Gradients flow to `z`, `mask`, `noise` and `basis`.

    Args:
        z: latents `(batch, dim)`.
        mask: weights `(m,)`, usually in `[0, 1]`; `m = dim` without a basis, else the basis' columns.
        noise: `(batch, m)`, or `(1, m)` for the same displacement of every example.
        strength: the factor `lambda`, any finite number; 0 returns `z` itself.
        basis: `(dim, m)`, columns the directions to move along (orthonormal for `mask` to weigh them alike).

    Returns:
        Intervened latents `(batch, dim)`.

    Raises:
        InvalidInputError: when a shape does not fit.
        InvalidConfigError: when `strength` is not a finite number.

    Example:
        >>> import torch
        >>> z = torch.zeros(2, 3)
        >>> intervene(z, torch.tensor([1.0, 0.5, 0.0]), torch.ones(2, 3), strength=2.0)
        tensor([[2., 1., 0.],
                [2., 1., 0.]])
        >>> direction = torch.tensor([[0.0], [0.0], [1.0]])
        >>> intervene(z, torch.ones(1), torch.tensor([[1.0], [-3.0]]), 0.5, direction)
        tensor([[ 0.0000,  0.0000,  0.5000],
                [ 0.0000,  0.0000, -1.5000]])
    """
    check_latents(z)
    strength = check_number("strength", strength)
    size = check_basis(z, basis)
    check_shape(mask, (size,), "mask", "one weight per noise dimension")
    if not isinstance(noise, Tensor) or noise.ndim != 2 or noise.shape[0] != 1:
        check_shape(noise, (z.shape[0], size), "noise", "one row per example, one column per mask entry")
    else:
        check_shape(noise, (1, size), "noise", "one column per mask entry")
    if strength == 0:
        return z
    dtype = work_dtype(z)
    with no_autocast(z.device):
        move = mask.to(z.device, dtype) * noise.to(z.device, dtype)
        if basis is not None:
            move = move @ basis.to(z.device, dtype).T
        return (z.to(dtype) + strength * move).to(z.dtype)


def check_basis(z: Tensor, basis: Tensor | None) -> int:
    """The number of noise dimensions: the basis' columns, or the latents' without one; checks the rows."""
    if basis is None:
        return z.shape[1]
    columns = basis.shape[1] if isinstance(basis, Tensor) and basis.ndim == 2 else -1
    if columns < 1:
        given = tuple(basis.shape) if isinstance(basis, Tensor) else type(basis).__name__
        raise InvalidInputError(
            f"basis must have shape (dim={z.shape[1]}, r >= 1), one direction per column, got {given}; "
            "pass basis=None to intervene on the coordinates of z themselves"
        )
    check_shape(basis, (z.shape[1], columns), "basis", "one row per latent dimension")
    return columns


def counterfactual(
    z: Tensor,
    attribute: Tensor,
    displacements: Tensor,
    *,
    generator: torch.Generator | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """What the latents would be with another attribute value: `z' = z + beta_{a'} - beta_a`.

    Args:
        z: latents `(batch, dim)`.
        attribute: the examples' attribute values `a`, integers `(batch,)` in `[0, A)`.
        displacements: `beta`, `(A, dim)`: what each attribute value adds to a latent; only differences
            matter.
        generator: source of the random targets; None draws from torch's global generator.
        target: the values `a'` to move to, integers `(batch,)` in `[0, A)`. None draws one of the other
            `A - 1` values for each example, uniformly.

    Returns:
        Counterfactual latents `(batch, dim)`, in the type of `z`; where `target == attribute` they equal `z`.

    Raises:
        InvalidInputError: when a shape does not fit, a value is out of range, or a target is to be drawn and
            there is only one attribute value.

    Example:
        >>> import torch
        >>> beta = torch.tensor([[0.0, -1.0], [0.0, 1.0]])
        >>> counterfactual(torch.tensor([[5.0, -1.0], [7.0, 1.0]]), torch.tensor([0, 1]), beta)
        tensor([[ 5.,  1.],
                [ 7., -1.]])
    """
    check_latents(z)
    values = displacements.shape[0] if isinstance(displacements, Tensor) and displacements.ndim == 2 else 1
    check_shape(displacements, (values, z.shape[1]), "displacements", "attribute values by latent dimensions")
    check_indices(attribute, z.shape[0], values, "attribute")
    if target is None:
        if values < 2:
            raise InvalidInputError(
                "displacements has one attribute value, so there is no other one to move to; at least "
                "two rows are needed, or an explicit target"
            )
        device = z.device if generator is None else generator.device
        shift = torch.randint(1, values, (z.shape[0],), generator=generator, device=device)
        target = (attribute.to(z.device, torch.int64) + shift.to(z.device)) % values
    else:
        check_indices(target, z.shape[0], values, "target")
    return displaced(z, attribute, target, displacements)


def displaced(z: Tensor, attribute: Tensor, target: Tensor, displacements: Tensor) -> Tensor:
    """`counterfactual` with a target, of values that are known to be in range: without a look at them.

    A look at the values of a tensor costs as much as the displacement itself, and on a GPU makes the step wait.

    Args:
        z: latents `(batch, dim)`.
        attribute: `a`, integers `(batch,)` in `[0, A)`.
        target: `a'`, likewise.
        displacements: `beta`, `(A, dim)`.

    Returns:
        `z + beta_{a'} - beta_a`, in the type of `z`.

    Example:
        >>> import torch
        >>> displaced(torch.tensor([[5.0]]), torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.0], [2.0]]))
        tensor([[7.]])
    """
    dtype = work_dtype(z)
    beta = displacements.to(z.device, dtype)
    move = beta[target.to(z.device, torch.int64)] - beta[attribute.to(z.device, torch.int64)]
    return (z.to(dtype) + move).to(z.dtype)

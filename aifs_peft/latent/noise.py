"""Noise for the intervention: Gaussian, on an l1 or l2 sphere, random or adversarial.

The adversarial direction is the one-step power method of virtual adversarial training (Miyato et al. 2018, "Virtual
Adversarial Training", equations 10 to 12), started at the full radius and turned into a conditional-gradient ascent, so
that it never ends below its random start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import InvalidInputError
from aifs_peft.latent._support import Head, check_latents, check_shape, evaluating, no_autocast, run_head, work_dtype
from aifs_peft.latent.intervention import check_basis, intervene

NOISE_KINDS = ("gaussian", "l1", "l2")


def sphere_radius(kind: str, size: int) -> float:
    """The radius at which uniform noise on the sphere has the expected squared length of a Gaussian, `size`.

    On the l2 sphere every point has squared length `r^2`, so `r = sqrt(size)`. On the l1 sphere the absolute
    coordinates are `r` times a flat Dirichlet variable, whose squared length is `2 / (size + 1)` on average,
    so `r = sqrt(size (size + 1) / 2)`.

    Args:
        kind: "l1" or "l2".
        size: dimension of the noise, at least 1.

    Returns:
        The radius in the norm named by `kind`.

    Raises:
        InvalidConfigError: when `kind` is neither "l1" nor "l2".

    Example:
        >>> sphere_radius("l2", 16), sphere_radius("l1", 8)
        (4.0, 6.0)
    """
    check_choice("kind", kind, ("l1", "l2"))
    return math.sqrt(size) if kind == "l2" else math.sqrt(size * (size + 1) / 2)


def sample_noise(
    shape: Sequence[int],
    kind: str = "gaussian",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw noise vectors, independent along all dimensions of `shape` but the last.

    "gaussian" is standard normal. "l2" and "l1" are uniform on the sphere of that norm, at the radius where the
    expected squared Euclidean length equals the Gaussian's, so that one `strength` means the same for all three.

    The draw is made on the generator's device in float32 (float64 when asked for) and then moved: the same
    seed gives the same noise on every device and, up to rounding, in every type.

    Args:
        shape: `(..., m)`; the last entry is the dimension of one noise vector.
        kind: "gaussian", "l1" or "l2".
        generator: source of randomness, the only one whose state advances. None draws from torch's global
            generator, like every function of torch; pass a private one to leave dropout and shuffling alone.
        device: of the result; the generator's, or the CPU, when None.
        dtype: of the result, floating; float32 when None.

    Returns:
        Noise of the given shape.

    Raises:
        InvalidConfigError: when `kind` is unknown.
        InvalidInputError: when `shape` is empty or holds a negative size, or `dtype` is not floating.

    Example:
        >>> import torch
        >>> eps = sample_noise((3, 16), "l2", generator=torch.Generator().manual_seed(0))
        >>> eps.shape, eps.norm(dim=1)
        (torch.Size([3, 16]), tensor([4.0000, 4.0000, 4.0000]))
    """
    check_choice("kind", kind, NOISE_KINDS)
    sizes = tuple(int(size) for size in shape)
    if not sizes or min(sizes) < 0 or sizes[-1] < 1:
        raise InvalidInputError(f"shape must be (..., m) with m of at least 1 and no negative size, got {sizes}")
    dtype = torch.float32 if dtype is None else dtype
    if not dtype.is_floating_point:
        raise InvalidInputError(f"dtype must be a floating-point type, got {dtype}")
    source = torch.device("cpu" if device is None else device) if generator is None else generator.device
    draw = torch.float64 if dtype == torch.float64 else torch.float32
    raw = torch.randn(sizes, generator=generator, device=source, dtype=draw)
    if kind == "l1":
        # Exponential sizes with independent signs are Laplace noise, which `on_sphere` expects for "l1".
        size = torch.empty(sizes, device=source, dtype=draw).exponential_(generator=generator)
        raw = torch.copysign(size, raw)
    return on_sphere(raw, kind).to(source if device is None else device, dtype)


def on_sphere(raw: Tensor, kind: str) -> Tensor:
    """Turn independent draws into noise of a kind: uniform on the sphere at `sphere_radius`, for the kinds that are.

    Args:
        raw: `(..., m)` floating; standard normal for "gaussian" and "l2", Laplace for "l1".
        kind: "gaussian" (returned as it is), "l1" or "l2".

    Returns:
        Noise of the same shape and type; every row of `m` numbers depends on that row alone.

    Raises:
        InvalidConfigError: when `kind` is unknown.

    Example:
        >>> import torch
        >>> on_sphere(torch.tensor([[3.0, 4.0]]), "l2")
        tensor([[0.8485, 1.1314]])
    """
    check_choice("kind", kind, NOISE_KINDS)
    if kind == "gaussian":
        return raw
    unit = F.normalize(raw, p=2.0 if kind == "l2" else 1.0, dim=-1, eps=torch.finfo(raw.dtype).tiny)
    return unit * sphere_radius(kind, raw.shape[-1])


def adversarial_noise(
    head: Head,
    z: Tensor,
    mask: Tensor,
    *,
    strength: float,
    kind: str = "gaussian",
    basis: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 1,
) -> Tensor:
    """Noise that changes the head's prediction the most: ascent on `KL(C(z) || C(z'))` over the noise sphere.

    It starts at random noise of the same kind (at zero noise the divergence has no gradient). Each step moves to the
    point of the sphere that maximises the linearised divergence: radius times the unit gradient for "l2" and "gaussian"
    (there the radius is the length of the random draw, example by example), the vertex of the largest absolute gradient
    for "l1". For a linear head the divergence is convex in the noise, so no step can lower it; for any other head the
    best point met is kept. The result therefore never has a smaller divergence than the random noise it started from.

    The head is evaluated in evaluation mode, in float32 at least; modes are restored, no parameter gradient
    is left, and neither `z` nor `mask` receives one.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`.
        mask: `(m,)`, as for `intervene`.
        strength: the factor `lambda` of `intervene`, finite.
        kind: "gaussian", "l1" or "l2".
        basis: `(dim, m)` or None, as for `intervene`.
        generator: source of the start; None draws from torch's global generator.
        steps: gradient steps, at least 1; each costs one forward and backward pass of the head.

    Returns:
        Detached noise `(batch, m)`, float32 (float64 for float64 latents), to be passed to `intervene`.

    Raises:
        InvalidInputError: when a shape does not fit.
        InvalidConfigError: when `kind`, `steps` or `strength` is not valid.
        HeadError: when the head does not return one row of logits per example.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(3, 2)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]])), head.bias.zero_()
        >>> eps = adversarial_noise(head, torch.ones(1, 3), torch.ones(3), strength=1.0, kind="l2")
        >>> eps.abs()  # all of it where the head looks
        tensor([[0.0000, 0.0000, 1.7321]])
    """
    check_latents(z)
    check_choice("kind", kind, NOISE_KINDS)
    check_count("steps", steps)
    strength = check_number("strength", strength)
    size = check_basis(z, basis)
    check_shape(mask, (size,), "mask", "one weight per noise dimension")
    dtype = work_dtype(z)
    noise = sample_noise((z.shape[0], size), kind, generator=generator, device=z.device, dtype=dtype)
    with torch.inference_mode(False), no_autocast(z.device), evaluating(head):
        point, weights = z.detach().to(dtype).clone(), mask.detach().to(z.device, dtype).clone()
        frame = None if basis is None else basis.detach().clone()
        noise = noise.clone()
        with torch.no_grad():
            clean = F.log_softmax(run_head(head, point), dim=1)

        def divergence(candidate: Tensor) -> Tensor:
            moved = intervene(point, weights, candidate, strength, frame)
            log_prob = F.log_softmax(run_head(head, moved), dim=1)
            return (clean.exp() * (clean - log_prob)).sum(dim=1)

        length = noise.norm(dim=1, keepdim=True)
        best, best_value = noise, torch.full_like(length[:, 0], -math.inf)
        for _ in range(steps):
            trial = noise.detach().requires_grad_(True)
            with torch.enable_grad():
                value = divergence(trial)
                (gradient,) = torch.autograd.grad(value.sum(), trial, allow_unused=True)
            best, best_value = _keep_best(best, best_value, trial.detach(), value.detach())
            if gradient is None:  # the head ignores its input, or strength is 0: nothing to ascend
                break
            noise = _ascend(trial.detach(), gradient, kind, length)
        with torch.no_grad():
            best, _ = _keep_best(best, best_value, noise, divergence(noise))
    return best


def _ascend(noise: Tensor, gradient: Tensor, kind: str, length: Tensor) -> Tensor:
    """The point of each row's sphere with the largest inner product with `gradient` `(batch, m)`."""
    scale = gradient.abs().amax(dim=1, keepdim=True)
    # Divide by the largest entry first: squares of tiny gradients underflow.
    unit = gradient / scale.clamp_min(torch.finfo(gradient.dtype).tiny)
    if kind == "l1":
        top = unit.abs().argmax(dim=1, keepdim=True)
        vertex = torch.zeros_like(noise).scatter(1, top, unit.gather(1, top).sign())
        moved = vertex * sphere_radius("l1", noise.shape[1])
    else:
        moved = F.normalize(unit, dim=1) * length
    usable = torch.isfinite(gradient).all(dim=1, keepdim=True) & (scale > 0)
    return torch.where(usable, moved, noise)


def _keep_best(best: Tensor, best_value: Tensor, noise: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The better of two noise vectors for each example, and its divergence `(batch,)`."""
    better = value > best_value
    return torch.where(better.unsqueeze(1), noise, best), torch.where(better, value, best_value)

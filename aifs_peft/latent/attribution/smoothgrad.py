"""SmoothGrad of any head: gradient times input, with the gradient averaged over noise on the latent.

Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise"; as there, the noise is a share of the range
of the example itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.latent._support import Head
from aifs_peft.latent.attribution._autograd import Target, attribute_by_autograd
from aifs_peft.latent.attribution.targets import Attribution

# The paper finds 0.1 to 0.2 best on pictures.
NOISE = 0.15


def smoothgrad(
    head: Head,
    z: Tensor,
    *,
    baseline: Tensor | None = None,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    samples: int = 32,
    noise: float = NOISE,
    seed: int = 0,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """SmoothGrad times input: `(z - base) * mean over eps of dF/dz at z + sigma eps`, `eps ~ N(0, I)`.

    `sigma` is `noise` times the example's largest entry less its smallest. The same draws serve every example, so the
    result depends neither on the chunk size nor on how examples are spread over processes. Without noise it is
    `gradient_x_input`; like it, the scores do not add up to the change of `F` in general.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`.
        baseline: `(dim,)` or `(batch, dim)`; zeros when None.
        top_k: number of leading classes (by probability at `z`) in `F`, None for all.
        class_weights: as for `integrated_gradients`.
        samples: draws of noise, at least 1.
        noise: its level, at least 0.
        seed: of the draws; nothing is drawn from global generators.
        chunk_size: latents in one call of the head; halved when the device runs out of memory.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution; scores `(batch, dim)` in nats.

    Raises:
        InvalidInputError: when a shape, `class_weights` or `tolerance` is not valid.
        InvalidConfigError: when `top_k`, `samples`, `noise`, `seed` or `chunk_size` is not valid.
        HeadError: when the head does not return one row of logits per example.
        NonFiniteError: when an attribution is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(3, 2)
        >>> scores = smoothgrad(head, torch.eye(3), seed=1).scores
        >>> scores.shape, torch.equal(scores, smoothgrad(head, torch.eye(3), seed=1, chunk_size=2).scores)
        (torch.Size([3, 3]), True)
    """
    check_count("samples", samples)
    level = check_number("noise", noise, 0.0)
    start = check_count("seed", seed, 0)

    def explain(function: Target, point: Tensor, base: Tensor, weights: Tensor, _: int) -> Tensor:
        # On the CPU, so that every device sees the same draws; one at a time, so that memory holds one.
        generator = torch.Generator().manual_seed(start)
        sigma = level * (point.amax(dim=1, keepdim=True) - point.amin(dim=1, keepdim=True))
        total = torch.zeros_like(point)
        for _draw in range(samples):
            eps = torch.randn(point.shape[1], generator=generator, dtype=torch.float64).to(point.dtype).to(point.device)
            at = (point + sigma * eps).requires_grad_(True)
            (slope,) = torch.autograd.grad(function(at, weights).sum(), at, materialize_grads=True)
            total += slope
        return (point - base) * total.div_(samples)

    return attribute_by_autograd(
        head,
        z,
        explain,
        baseline=baseline,
        top_k=top_k,
        class_weights=class_weights,
        chunk_size=chunk_size,
        tolerance=tolerance,
    )

"""Attribution of a head's prediction to latent dimensions: Integrated Gradients, SmoothGrad, LRP, gradient x input.

What is attributed is `F(z) = sum_k w_k log p(y_k|z)` over the top-K classes at `z`. Gradient x input is the formula
that AIFS prints, `(z - base) * dF/dz` at `z` itself; Integrated Gradients (Sundararajan et al. 2017, "Axiomatic
Attribution for Deep Networks", equation 1) averages `dF/dz` over the path from `base` to `z`. LRP and SmoothGrad have
modules of their own.

Every function works with gradients switched off around it, leaves no gradient on the head's parameters and puts the
head's training modes back, also after an exception in the head.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from aifs_peft._checks import check_choice, check_count
from aifs_peft.errors import InvalidInputError
from aifs_peft.latent._support import Head
from aifs_peft.latent.attribution._autograd import Target, attribute_by_autograd
from aifs_peft.latent.attribution.linear import integrated_gradients_linear
from aifs_peft.latent.attribution.lrp import lrp
from aifs_peft.latent.attribution.smoothgrad import NOISE, smoothgrad
from aifs_peft.latent.attribution.targets import Attribution, CompletenessError
from aifs_peft.latent.heads import linear_parameters

__all__ = [
    "METHODS",
    "Attribution",
    "CompletenessError",
    "attribute",
    "gradient_x_input",
    "integrated_gradients",
    "integrated_gradients_linear",
    "lrp",
    "smoothgrad",
]

METHODS = ("ig", "lrp", "gradient_x_input", "smoothgrad")


def integrated_gradients(
    head: Head,
    z: Tensor,
    *,
    baseline: Tensor | None = None,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    steps: int = 32,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """Integrated Gradients of any head: `(z - base) * average over the path of dF/dz`, by captum.

    Gauss-Legendre quadrature in float32 at least. At most `chunk_size` latents are in the head at once; when
    the device runs out of memory the chunk is halved and the work goes on. The chunk size does not change the
    result.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`.
        baseline: where the path starts, `(dim,)` or `(batch, dim)`; zeros when None.
        top_k: number of leading classes (by probability at `z`) in `F`; None for all.
        class_weights: `w`, `(classes,)`; None for `1 / top_k` each; "probability" for the example's own
            probabilities, normalised over its leading classes.
        steps: points on the path, at least 1. For linear heads with 10 classes, 32 left a completeness error
            of 1e-5 or less while the logits of one example spread over up to 85 units, and 1e-3 at 250; 8 left
            2e-3 at 26. Steeper heads need more: look at `completeness_error`.
        chunk_size: latents in one call of the head, at least 1.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution; scores `(batch, dim)` in nats.

    Raises:
        InvalidInputError: when a shape, `class_weights` or `tolerance` is not valid.
        InvalidConfigError: when `top_k`, `steps` or `chunk_size` is not a positive integer.
        HeadError: when the head does not return one row of logits per example.
        NonFiniteError: when an attribution is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> head = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> attribution = integrated_gradients(head, torch.ones(2, 4), top_k=2)
        >>> attribution.scores.shape, attribution.completeness_error < 1e-4
        (torch.Size([2, 4]), True)
    """
    check_count("steps", steps)

    def explain(function: Target, point: Tensor, base: Tensor, weights: Tensor, limit: int) -> Tensor:
        from captum.attr import IntegratedGradients  # captum imports matplotlib: only when it is used

        scores: Tensor = IntegratedGradients(function, multiply_by_inputs=True).attribute(
            point, base, additional_forward_args=(weights,), n_steps=steps, internal_batch_size=limit
        )
        return scores

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


def gradient_x_input(
    head: Head,
    z: Tensor,
    *,
    baseline: Tensor | None = None,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """Gradient times input, `(z - base) * dF/dz` at `z`: the formula that AIFS prints.

    It equals Integrated Gradients where `dF/dz` is the same along the path. In general the scores do not add up to the
    change of `F`; `completeness_error` says by how much they miss it.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`.
        baseline: `(dim,)` or `(batch, dim)`; zeros when None.
        top_k: number of leading classes in `F`, None for all.
        class_weights: as for `integrated_gradients`.
        chunk_size: latents in one call of the head; halved when the device runs out of memory.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution; scores `(batch, dim)` in nats.

    Raises:
        InvalidInputError: when a shape, `class_weights` or `tolerance` is not valid.
        InvalidConfigError: when `top_k` or `chunk_size` is not a positive integer.
        HeadError: when the head does not return one row of logits per example.
        NonFiniteError: when an attribution is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[4.0, 0.0], [4.0, 2.0]]))
        >>> gradient_x_input(head, torch.tensor([[1.0, 0.0]]), top_k=None).scores
        tensor([[0., 0.]])
    """

    def explain(function: Target, point: Tensor, base: Tensor, weights: Tensor, _: int) -> Tensor:
        at = point.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(function(at, weights).sum(), at, materialize_grads=True)
        return (point - base) * slope

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


def attribute(
    head: Head,
    z: Tensor,
    method: str = "ig",
    *,
    baseline: Tensor | None = None,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    steps: int = 32,
    epsilon: float = 1e-6,
    noise: float = NOISE,
    seed: int = 0,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """Attribute the head's prediction to latent dimensions by the named method.

    "ig" takes the closed form for a head that `linear_parameters` recognises, and captum otherwise.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`.
        method: "ig" (integrated gradients), "gradient_x_input" (the formula that AIFS prints), "smoothgrad" (the same
            formula, its gradient averaged over noise) or "lrp".
        baseline: `(dim,)` or `(batch, dim)`, zeros when None; "lrp" has none.
        top_k: number of leading classes, None for all.
        class_weights: as for `integrated_gradients`.
        steps: points on the path, for "ig"; draws of noise, for "smoothgrad".
        epsilon: stabiliser of "lrp".
        noise: level of the noise of "smoothgrad".
        seed: of that noise.
        chunk_size: bound on what is in memory at once; does not change the result.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution.

    Raises:
        InvalidConfigError: when `method` is unknown, and as the method's own function.
        InvalidInputError: when a baseline is given for "lrp", and as the method's own function.
        HeadError: as the method's own function.
        NonFiniteError: when an attribution is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(3, 2)
        >>> attribute(head, torch.ones(5, 3), method="ig", tolerance=1e-4).scores.shape
        torch.Size([5, 3])
    """
    check_choice("method", method, METHODS)
    shared: _Shared = {
        "top_k": top_k, "class_weights": class_weights, "chunk_size": chunk_size, "tolerance": tolerance,
    }  # fmt: skip
    if method == "lrp":
        if baseline is not None:
            raise InvalidInputError("method 'lrp' has no baseline; leave baseline=None or use method='ig'")
        return lrp(head, z, epsilon=epsilon, **shared)
    if method == "smoothgrad":
        return smoothgrad(head, z, baseline=baseline, samples=steps, noise=noise, seed=seed, **shared)
    if method == "gradient_x_input":
        return gradient_x_input(head, z, baseline=baseline, **shared)
    linear = linear_parameters(head)
    if linear is not None:
        return integrated_gradients_linear(*linear, z, baseline=baseline, steps=steps, **shared)
    return integrated_gradients(head, z, baseline=baseline, steps=steps, **shared)


class _Shared(TypedDict):
    """Arguments that every method takes."""

    top_k: int | None
    class_weights: Tensor | str | None
    chunk_size: int
    tolerance: float | None

"""What is attributed: a weighted sum of the log-probabilities of each example's leading classes.

`F(z) = sum_k w_k log p(y_k|z)` over the top-K classes at `z`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import AIFSError, InvalidInputError
from aifs_peft.latent._support import check_shape


class CompletenessError(AIFSError, ArithmeticError):
    """Attributions do not add up to the change they explain, beyond the tolerance asked for."""


@dataclass(frozen=True)
class Attribution:
    """Attribution scores and how well they add up.

    Attributes:
        scores: `(batch, dim)`, in units of the attributed quantity (nats for log-probabilities), signed,
            detached.
        residual: `(batch,)`, the sum of an example's scores (and, for LRP, the biases' share) minus the
            change of the attributed quantity that they should explain.
        completeness_error: the largest absolute residual, divided by the largest absolute change in the batch
            if that is above 1: an error in nats for small changes, a relative one for large changes.

    Example:
        >>> import torch
        >>> attribution = summarise(torch.tensor([[1.0, 2.0]]), torch.tensor([-1.0]), torch.tensor([4.0]), None)
        >>> attribution.residual, attribution.completeness_error
        (tensor([-1.]), 0.25)
    """

    scores: Tensor
    residual: Tensor
    completeness_error: float


def summarise(scores: Tensor, residual: Tensor, change: Tensor, tolerance: float | None) -> Attribution:
    """The attribution with its completeness error, held to `tolerance`.

    Args:
        scores: attributions `(batch, dim)`.
        residual: `(batch,)`, by how much they miss what they should add up to.
        change: `(batch,)`, what that is.
        tolerance: the largest `completeness_error` to accept, None for any.

    Returns:
        The attribution.

    Raises:
        CompletenessError: when the completeness error is above `tolerance`.
    """
    error = float(residual.abs().max()) / max(1.0, float(change.abs().max()))
    if tolerance is not None and not error <= tolerance:
        raise CompletenessError(
            f"completeness error {error:.3g} is above the tolerance {tolerance:.3g}: the attributions do not "
            "add up to the change of the head's output. Use more steps, another method than "
            "gradient_x_input and smoothgrad, or a higher tolerance"
        )
    return Attribution(scores, residual, error)


def class_weight_matrix(logits: Tensor, top_k: int | None, class_weights: Tensor | str | None) -> Tensor:
    """The weight of every class for every example: zero outside the example's `top_k` most probable classes.

    Args:
        logits: `(batch, classes)`.
        top_k: number of leading classes, at least 1; None, or more than there are, for all classes.
        class_weights: `w`, `(classes,)`, finite and not all zero; None for `1 / top_k` each; "probability"
            for each example's own probabilities, normalised over its leading classes.

    Returns:
        `(batch, classes)`, detached.

    Raises:
        InvalidConfigError: when `top_k` is not a positive integer.
        InvalidInputError: when `class_weights` is none of the above.

    Example:
        >>> import torch
        >>> class_weight_matrix(torch.tensor([[0.0, 2.0, 1.0]]), 2, None)
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    classes = logits.shape[1]
    count = classes if top_k is None else min(check_count("top_k", top_k), classes)
    detached = logits.detach()
    if isinstance(class_weights, Tensor):
        check_shape(class_weights, (classes,), "class_weights", "one weight per class")
        weights = class_weights.detach().to(detached.device, detached.dtype)
        if not bool(torch.isfinite(weights).all()) or not bool(weights.any()):
            raise InvalidInputError("class_weights must be finite and not all zero, got " + str(weights.tolist()))
        full = weights.expand_as(detached)
    elif class_weights is None:
        full = torch.full_like(detached, 1.0 / count)
    elif class_weights == "probability":
        full = detached.softmax(dim=1)
    else:
        raise InvalidInputError(
            f"class_weights must be None, 'probability' or a tensor with one weight per class, got {class_weights!r}"
        )
    leading = detached.topk(count, dim=1).indices
    kept = torch.zeros_like(detached).scatter(1, leading, full.gather(1, leading))
    if isinstance(class_weights, str):
        kept = kept / kept.sum(dim=1, keepdim=True)
    return kept


def check_tolerance(tolerance: float | None) -> None:
    """Raise InvalidInputError unless `tolerance` is None or a number of at least 0."""
    if tolerance is not None:
        check_number("tolerance", tolerance, 0, error=InvalidInputError)


def check_baseline(baseline: Tensor | None, z: Tensor) -> None:
    """Raise InvalidInputError unless the baseline is None, one vector `(dim,)`, or one row for each row of `z`."""
    if isinstance(baseline, Tensor) and baseline.ndim == 1:
        check_shape(baseline, (z.shape[1],), "baseline", "one value per latent dimension")
    elif baseline is not None:
        check_shape(baseline, tuple(z.shape), "baseline", "(dim,) or one row per example")


def baseline_rows(baseline: Tensor | None, point: Tensor, rows: slice) -> Tensor:
    """The baseline of some rows, as a tensor like them.

    Args:
        baseline: None for zeros, `(dim,)` for all, or one row per example.
        point: these rows of the latents, `(n, dim)`.
        rows: which rows they are.
    """
    if baseline is None:
        return torch.zeros_like(point)
    base = baseline.detach() if baseline.ndim == 1 else baseline.detach()[rows]
    return base.to(point.device, point.dtype).expand(point.shape).contiguous()

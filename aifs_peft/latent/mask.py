"""From attribution scores to the intervention mask.

Three rules, each a softmax over the latent dimensions:

| rule | exponent of `m_j`, with `a_j = abs(IG_j)` | reading |
|---|---|---|
| `inverse` | `gamma / (a_j + eps0)` | the published formula, taken literally: high where attribution is low |
| `inverse_relative` | `gamma / (a_j / mean(a) + eps0)` | the same, `a` in units of its mean: scale-free |
| `direct` | `-gamma / (a_j / mean(a) + eps0)` | the opposite reading: high where attribution is high |

The literal rule has no natural scale: with `a` near 1e-4 and `gamma = 1` nearly all of the softmax falls on
the one dimension with the smallest attribution. Measure before relying on it. With the relative rules the
exponent lies between 0 and `gamma / eps0` in absolute value, so `eps0`, a share of the mean, bounds the
contrast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aifs_peft._checks import check_choice, check_number
from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError

MASK_RULES = ("inverse", "inverse_relative", "direct")
MASK_SCALES = ("sum", "max", "mean")


def mask_from_attribution(
    scores: Tensor,
    *,
    rule: str = "inverse_relative",
    gamma: float = 1.0,
    eps0: float = 0.1,
    scale: str = "max",
) -> Tensor:
    """The mask `m` of the intervention from attribution scores.

    Computed in float64 and in log space with the largest exponent subtracted, so no score overflows it.
    Scores that are all zero give a uniform mask (every dimension ties). A permutation of the scores permutes
    the mask.

    Args:
        scores: attributions `(dim,)`, signed or not: only absolute values count.
        rule: "inverse" (literal), "inverse_relative" or "direct"; see the table of this module.
        gamma: sharpness, at least 0; 0 gives a uniform mask.
        eps0: above 0. In the scores' unit for "inverse", a share of their mean absolute value otherwise.
        scale: "sum" (the entries sum to 1: literal softmax, about `1 / dim` each), "max" (the largest is 1)
            or "mean" (they average 1, so a concentrated mask has entries above 1).

    Returns:
        Mask `(dim,)`, on the device of `scores`, float32 (float64 for float64 scores), without gradient; in
        `[0, 1]` for "sum" and "max".

    Raises:
        InvalidInputError: when `scores` is not a non-empty vector of real numbers.
        NonFiniteError: when a score is NaN or infinite.
        InvalidConfigError: when `rule`, `scale`, `gamma` or `eps0` is not valid, or `gamma / eps0` overflows.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.0, 1.0, -2.0, 1.0])
        >>> mask_from_attribution(scores, rule="inverse", gamma=1.0, eps0=1.0, scale="sum")
        tensor([0.3668, 0.2225, 0.1883, 0.2225])
        >>> mask_from_attribution(scores, rule="direct", gamma=1.0, eps0=1.0, scale="max")
        tensor([0.5134, 0.8465, 1.0000, 0.8465])
    """
    check_choice("rule", rule, MASK_RULES)
    check_choice("scale", scale, MASK_SCALES)
    gamma = check_number("gamma", gamma, 0.0)
    eps0 = check_number("eps0", eps0, 0.0, above=True)
    if not math.isfinite(gamma / eps0):
        raise InvalidConfigError(f"gamma / eps0 = {gamma!r} / {eps0!r} overflows; raise eps0 or lower gamma")
    size = _absolute(scores)
    if rule != "inverse":
        # Dividing by the largest first keeps the sum behind the mean from under- and overflowing.
        size = size / size.max().clamp_min(torch.finfo(size.dtype).tiny)
        mean = size.mean()
        size = size / mean if mean > 0 else size
    exponent = gamma / (size + eps0)
    if rule == "direct":
        exponent = -exponent
    mask = torch.exp(exponent - exponent.max())
    if scale == "sum":
        mask = mask / mask.sum()
    elif scale == "mean":
        mask = mask / mask.mean()
    return mask.to(torch.float64 if scores.dtype == torch.float64 else torch.float32).to(scores.device)


def _absolute(scores: Tensor) -> Tensor:
    """`|scores|` `(dim,)` in float64 on the CPU (not every accelerator has float64), checked."""
    if not isinstance(scores, Tensor) or scores.ndim != 1 or scores.numel() == 0 or scores.is_complex():
        given = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidInputError(
            f"scores must be a non-empty vector (dim,) of real numbers, got {given}; average per-example "
            "attributions over the batch first, for example scores.abs().mean(dim=0)"
        )
    size = scores.detach().to("cpu", torch.float64).abs()
    bad = int((~torch.isfinite(size)).sum())
    if bad:
        raise NonFiniteError(
            f"{bad} of {size.numel()} attribution scores are NaN or infinite; a mask needs finite scores: "
            "check the latents and the head for overflow"
        )
    return size

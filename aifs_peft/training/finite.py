"""Gradients, weights and logits that are NaN or infinite end a training, with the step and the cause in the message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import NonFiniteError

LOWER = "lower the learning rate or the weights of the loss's terms, or train in float32"
GO_ON = "Checkpoints that were written before are as they were"


def require_finite_gradients(model: nn.Module, step: int) -> None:
    """Refuse an update whose gradient's norm is NaN or infinite; clipping would make it a NaN, or nothing.

    Args:
        model: after the backward pass, before clipping.
        step: optimizer steps so far.

    Raises:
        NonFiniteError: naming the step and the parameters.
    """
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([gradient for _, gradient in named])
    if bool(norm.isfinite()):
        return
    bad = [name for name, gradient in named if not bool(gradient.isfinite().all())]
    cause = f"the gradient of {_some(bad)} holds NaN or infinity" if bad else "its square is beyond the numbers' range"
    raise NonFiniteError(
        f"the norm of the gradient is {norm.item()} in step {step + 1}: {cause}. The weights were not changed by this "
        f"step; {LOWER}. {GO_ON}"
    )


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Refuse to save, or to end with, weights that are NaN or infinite.

    Args:
        model: whose trained parameters are looked at.
        step: optimizer steps so far.

    Raises:
        NonFiniteError: naming the step and the parameters.
    """
    bad = _not_finite((name, p) for name, p in model.named_parameters() if p.requires_grad)
    if bad:
        raise NonFiniteError(
            f"after step {step} the weights of {_some(bad)} are NaN or infinite: the training has diverged, and they "
            f"are not saved; {LOWER}, and resume from a checkpoint. {GO_ON}"
        )


def require_finite_logits(logits: Any, inputs: Mapping[str, Any], model: nn.Module, step: int) -> None:
    """Refuse to evaluate logits that are NaN or infinite: their largest entry means nothing.

    Args:
        logits: of a batch; a tensor, or several.
        inputs: of the model, to tell where it comes from.
        model: that gave them.
        step: optimizer steps so far.

    Raises:
        NonFiniteError: naming the step and the cause.
    """
    parts = logits if isinstance(logits, list | tuple) else [logits]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
    if all(bool(part.isfinite().all()) for part in tensors):
        return
    weights = _not_finite(model.named_parameters())
    values = _not_finite((name, value) for name, value in inputs.items() if isinstance(value, Tensor))
    if weights:
        cause = f"the weights of {_some(weights)} are; the training has diverged, so {LOWER}"
    elif values:
        cause = f"so is the input {_some(values)}; check the data set"
    else:
        cause = f"inputs and weights are finite, so a value went out of range on the way; {LOWER}"
    raise NonFiniteError(f"the logits of an evaluation batch are NaN or infinite after step {step}: {cause}")


def _not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of tensors with an entry that is not finite; one transfer from the device for all of them."""
    checked = [(name, value) for name, value in named if value.is_floating_point() and value.numel()]
    if not checked:
        return []
    device = checked[0][1].device
    flags = torch.stack([value.detach().isfinite().all().to(device) for _, value in checked])
    return [name for (name, _), finite in zip(checked, flags.tolist(), strict=True) if not finite]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

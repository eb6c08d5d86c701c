"""What every module of this folder leans on: precision, evaluation mode, checks of tensors.

Latent mathematics (softmax differences, gradient penalties, quadrature) loses its small values in half
precision, so all of it is done in float32, or in float64 for float64 latents, with autocast switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidInputError

Head = Callable[[Tensor], Tensor]
"""A classification head: latents `(batch, dim)` in, logits `(batch, classes)` out, examples independent."""


def work_dtype(*tensors: Tensor) -> torch.dtype:
    """The precision to compute in: float64 if any tensor is float64, float32 otherwise."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which autocast is off for `device`; nothing where it is off already, which is most often."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device_type=device.type, enabled=False)
    return nullcontext()


@contextmanager
def evaluating(head: object) -> Iterator[None]:
    """Put every submodule of `head` in evaluation mode, and back into its own mode whatever happens.

    For a bound method of a module (`layer.classify`) these are the module's submodules.
    The flags are set directly: `Module.eval` may be overridden with side effects (merging of adapters), and
    `Module.train` would put a submodule that was deliberately frozen in evaluation mode back to training.
    """
    owner = head if isinstance(head, nn.Module) else getattr(head, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def run_head(head: Head, z: Tensor) -> Tensor:
    """Logits of `head` at `z` in float32 or float64, whatever precision the head's parameters are kept in.

    A module in half precision is evaluated with up-cast copies of its parameters, through which gradients
    reach the originals: rounding every product to 8 bits would drown a small attribution or divergence. Any
    other callable is handed latents in float32 or float64 and has to cast them itself.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`.
        z: latents `(batch, dim)`.

    Returns:
        Logits `(batch, classes)`.

    Raises:
        HeadError: when the head does not return one row of logits per example.
    """
    tensors: dict[str, Tensor] = {}
    if isinstance(head, nn.Module):
        tensors = {**dict(head.named_parameters()), **dict(head.named_buffers())}
    # Quantised weights are integers and stay as they are.
    floating = {name: t for name, t in tensors.items() if t.is_floating_point()}
    dtype = work_dtype(z, *floating.values())
    state = {name: t.to(dtype) for name, t in floating.items() if t.dtype != dtype}
    with no_autocast(z.device):
        if state and isinstance(head, nn.Module):
            logits = torch.func.functional_call(head, state, (z.to(dtype),))
        else:
            logits = head(z.to(dtype))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != z.shape[0]:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise HeadError(
            f"the head returned {given} for latents {tuple(z.shape)}; one row of logits per example, "
            f"({z.shape[0]}, classes), is needed. Pass the part of the model that maps latents to logits."
        )
    return logits.to(work_dtype(logits))


def check_latents(z: Tensor, name: str = "z") -> None:
    """Raise InvalidInputError unless `z` is a floating-point tensor `(batch >= 1, dim >= 1)`."""
    if not isinstance(z, Tensor) or z.ndim != 2 or not z.is_floating_point() or 0 in z.shape:
        given = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        hint = "; pool token latents to one vector per example first" if name == "z" else ""
        raise InvalidInputError(
            f"{name} must be a floating-point matrix with one row per example and no empty dimension, got {given}{hint}"
        )


def check_shape(tensor: Tensor, shape: tuple[int, ...], name: str, why: str) -> None:
    """Raise InvalidInputError unless `tensor` has exactly `shape`."""
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
        given = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InvalidInputError(f"{name} must have shape {shape} ({why}), got {given}")


def check_indices(index: Tensor, batch: int, bound: int, name: str) -> None:
    """Raise InvalidInputError unless `index` is an integer tensor `(batch,)` with values in `[0, bound)`."""
    check_shape(index, (batch,), name, "one integer per example")
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise InvalidInputError(f"{name} must hold integers, got {index.dtype}; convert with .long()")
    if index.numel() == 0:
        return
    low, high = (int(value) for value in torch.stack(torch.aminmax(index)).tolist())
    if low < 0 or high >= bound:
        raise InvalidInputError(f"{name} must lie in [0, {bound}), got values from {low} to {high}")

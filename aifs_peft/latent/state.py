"""What AIFS knows about one head: mask, basis, displacements and running scores, as persistent buffers.

Buffers, so that PEFT, `Trainer` checkpoints and DDP save, restore and move them with no extra code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aifs_peft.errors import CheckpointMismatchError, InvalidInputError

# Name -> the precision that must survive `.half()` and `.to(torch.bfloat16)`: a mask rounded to bfloat16
# and thresholded is another mask, and a float16 sum of attributions underflows.
_DTYPES: dict[str, torch.dtype] = {
    "mask": torch.float32,
    "basis": torch.float32,
    "displacements": torch.float32,
    "class_displacements": torch.float32,
    "centre": torch.float32,
    "reader": torch.float32,
    "ema": torch.float64,
    "evidence": torch.float64,
    "groups": torch.int64,
    "weights": torch.float64,
    "memory": torch.float64,
    "num_updates": torch.int64,
}

# Distance of `basis.T @ basis` from the identity: 32-bit rounding, and a basis that went through 16 bit on its way.
BASIS_TOLERANCE = 2e-2
# Of groups that are no attribute values, say environments.
MOST_GROUPS = 2**31
_DAMAGED = "the saved AIFS state is damaged: {problem} Load an earlier checkpoint, or train the adapter again."


class AIFSState(nn.Module):
    """The state of one AIFS adapter beside its head. All buffers are persistent.

    Args:
        dim: width `d` of the latent `z`.
        shapes: sizes of the buffers by name, kept up to date in place; the adapter's configuration shares this
            dictionary, so that a loader which fixes sizes beforehand (transformers' own) knows them. Sizes that
            contradict `dim` are ignored.

    Attributes:
        mask: `(d,)` float32 in `[0, 1]`, or `(r,)` when there is a basis of `r` directions. Zeros at first: no
            intervention before the first update.
        basis: `(d, r)` float32, orthonormal columns; `(d, 0)` when there is none.
        displacements: `(A, d)` float32, one per attribute value; `(0, d)` when there is none.
        class_displacements: `(K, d)` float32, one per class; `(0, d)` when there is none.
        centre: `(d,)` float32, the latent in the middle between the classes and between the attribute values, which
            explanations start from; `(0,)` when unknown.
        reader: `(A, d + 1)` float32, weights and, last, bias that read the attribute value off a latent, see
            `aifs_peft.explain.fit_reader`; `(0, d + 1)` when there is none.
        ema: `(d,)` float64, running attribution scores.
        evidence: float64 of any shape, what discovery measured; `(0,)` when it did not run.
        groups: `(n,)` int64, the inferred attribute value or environment of each training example; `(0,)` when unknown.
        weights: `(n,)` float64, how often a method wants each training example drawn; `(0,)` when it does not say.
        memory: float64 of any shape, running numbers that a method keeps from step to step; `(0,)` when it has none.
        num_updates: int64 scalar, how often the mask was updated.

    Example:
        >>> state = AIFSState(3)
        >>> state.update(mask=torch.tensor([1.0]), basis=torch.tensor([[1.0], [0.0], [0.0]]))
        >>> int(state.num_updates), state.half().mask.dtype, state.has_basis
        (1, torch.float32, True)
    """

    mask: Tensor
    basis: Tensor
    displacements: Tensor
    class_displacements: Tensor
    centre: Tensor
    reader: Tensor
    ema: Tensor
    evidence: Tensor
    groups: Tensor
    weights: Tensor
    memory: Tensor
    num_updates: Tensor

    def __init__(self, dim: int, shapes: dict[str, list[int]] | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.shapes = {} if shapes is None else shapes
        sizes = _sizes_at_first(dim)
        wanted = sizes | {name: tuple(size) for name, size in self.shapes.items() if name in _DTYPES}
        if self._shape_problem(wanted) is None:
            sizes = wanted
        for name, dtype in _DTYPES.items():
            # Of a size that a file says and nothing holds yet, no memory is taken: one zero, seen from everywhere.
            self.register_buffer(name, torch.zeros((), dtype=dtype).expand(sizes[name]))
        self._record_shapes()

    def _values(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _DTYPES}

    def _record_shapes(self) -> None:
        self.shapes.update({name: list(getattr(self, name).shape) for name in _DTYPES})

    @property
    def has_basis(self) -> bool:
        """Whether there is at least one direction."""
        return self.basis.shape[1] > 0

    @torch.no_grad()
    def update(self, *, count: bool = True, **values: Tensor | float | list[float]) -> None:
        """Replace buffers by name, checked and in their own precision and device.

        Args:
            count: whether this is a mask update, which adds one to `num_updates`.
            **values: any of the attributes above.

        Raises:
            InvalidInputError: for an unknown name, a shape that does not fit `dim`, a value that is not finite,
                a mask outside `[0, 1]`, a basis that is not orthonormal, or groups that are no rows of the
                displacements. Nothing is changed then.
        """
        unknown = sorted(set(values) - set(_DTYPES))
        if unknown:
            raise InvalidInputError(f"unknown state {unknown}; known: {sorted(_DTYPES)}.")
        device = self.mask.device
        new = {
            name: torch.as_tensor(value).detach().to(device, _DTYPES[name], copy=True).contiguous()
            for name, value in values.items()
        }
        shapes = {name: tuple(new.get(name, getattr(self, name)).shape) for name in _DTYPES}
        problem = self._shape_problem(shapes) or _value_problem({**self._values(), **new})
        if problem:
            raise InvalidInputError(problem)
        for name, value in new.items():
            setattr(self, name, value)
        self._record_shapes()
        if count and "num_updates" not in new:
            self.num_updates += 1

    def reset(self, keep: Collection[str] = ()) -> None:
        """Back to what a new state holds, but for the buffers in `keep`.

        Mask and scores that count the directions of a basis mean nothing without it, and go with it. So does the count
        of updates where the scores that it counts are all zero.

        Args:
            keep: names of buffers.

        Raises:
            InvalidInputError: for an unknown name.

        Example:
            >>> state = AIFSState(3)
            >>> state.update(mask=[0.5, 0.0, 1.0], ema=[1.0, 2.0, 0.5], centre=[1.0, 1.0, 1.0])
            >>> state.reset(keep={"mask", "ema"})
            >>> state.mask.tolist(), state.centre.tolist(), int(state.num_updates)
            ([0.5, 0.0, 1.0], [], 0)
        """
        unknown = sorted(set(keep) - set(_DTYPES))
        if unknown:
            raise InvalidInputError(f"unknown state {unknown}; known: {sorted(_DTYPES)}.")
        kept = set(keep)
        if self.has_basis and "basis" not in kept:
            kept -= {"mask", "ema", "num_updates"}
        if not bool(self.ema.any()):
            kept -= {"num_updates"}
        sizes = _sizes_at_first(self.dim)
        self.update(count=False, **{name: torch.zeros(sizes[name]) for name in _DTYPES if name not in kept})

    def _shape_problem(self, shapes: dict[str, tuple[int, ...]]) -> str | None:
        """The first buffer whose shape does not fit this latent width, in words; None when all fit."""
        d = self.dim
        basis = shapes["basis"]
        if len(basis) != 2 or basis[0] != d:
            return f"basis must have shape ({d}, r), got {basis}."
        if shapes["mask"] not in {(d,), (basis[1],)}:
            return f"mask must have shape ({d},) or, in the basis, ({basis[1]},), got {shapes['mask']}."
        for name in ("displacements", "class_displacements"):
            if len(shapes[name]) != 2 or shapes[name][1] != d:
                return f"{name} must have shape (values, {d}), got {shapes[name]}."
        if shapes["centre"] not in {(0,), (d,)}:
            return f"centre must have shape ({d},) or (0,), got {shapes['centre']}."
        if len(shapes["reader"]) != 2 or shapes["reader"][1] != d + 1:
            return f"reader must have shape (values, {d + 1}), got {shapes['reader']}."
        if len(shapes["ema"]) != 1 or shapes["ema"][0] not in {d, basis[1]}:
            return f"ema must have shape ({d},), got {shapes['ema']}."
        for name in ("groups", "weights"):
            if len(shapes[name]) != 1:
                return f"{name} must have shape (n,), got {shapes[name]}."
        return f"num_updates must be a scalar, got shape {shapes['num_updates']}." if shapes["num_updates"] else None

    def check(self) -> None:
        """Refuse sizes and values that no training makes.

        Raises:
            CheckpointMismatchError: saying which buffer, and what is wrong with it.
        """
        values = self._values()
        wrong = self._shape_problem({name: tuple(value.shape) for name, value in values.items()})
        wrong = wrong or _value_problem(values)
        if wrong:
            raise CheckpointMismatchError(_DAMAGED.format(problem=wrong))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AIFSState:  # noqa: ARG002 - torch's signature
        """Follow moves to another device, but not changes of precision."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Give every buffer a place in memory of its own, of its own size.

        Zeros that take no memory are refused by safetensors, and of several empty tensors, which torch all keeps at
        address 0, `accelerator.save_state` would leave out all but one.
        """
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, dtype in _DTYPES.items():
            value: Tensor = destination[prefix + name]
            if not value.numel() and not value.is_meta:
                empty = np.empty(value.shape, str(dtype).removeprefix("torch."))  # NumPy's have an address
                destination[prefix + name] = torch.from_numpy(empty)
            elif value.untyped_storage().nbytes() != value.nbytes:
                destination[prefix + name] = value.clone(memory_format=torch.contiguous_format)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """Take the sizes of what was saved, after checking them against the latent width."""
        saved = {name: state_dict[prefix + name] for name in _DTYPES if prefix + name in state_dict}
        shapes = {name: tuple(saved.get(name, getattr(self, name)).shape) for name in _DTYPES}
        problem = self._shape_problem(shapes)
        if problem:
            raise CheckpointMismatchError(
                f"the saved AIFS state belongs to another head: {problem} Load it onto the base model it was "
                "trained with, or train a new adapter."
            )
        wrong = _value_problem({**self._values(), **saved})
        if wrong:
            raise CheckpointMismatchError(_DAMAGED.format(problem=wrong))
        for name, value in saved.items():
            current = getattr(self, name)
            if current.shape != value.shape or not current.is_contiguous():
                self._buffers[name] = torch.empty(value.shape, dtype=_DTYPES[name], device=current.device)
            # `assign=True` would otherwise keep whatever precision is in the file.
            state_dict[prefix + name] = value.to(_DTYPES[name])
        self._record_shapes()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"dim={self.dim}, directions={self.basis.shape[1]}, num_updates={int(self.num_updates)}"


def _sizes_at_first(dim: int) -> dict[str, tuple[int, ...]]:
    """Sizes of the buffers by name before anything is known of a head whose latents are `dim` wide."""
    sizes: dict[str, tuple[int, ...]] = dict.fromkeys(_DTYPES, (0,))
    sizes |= {"mask": (dim,), "basis": (dim, 0), "ema": (dim,), "num_updates": ()}
    return sizes | {"displacements": (0, dim), "class_displacements": (0, dim), "reader": (0, dim + 1)}


def _value_problem(values: dict[str, Tensor]) -> str | None:
    """The first buffer with values that no training makes, in words; None when all are possible."""
    for name, value in values.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return f"{name} holds NaN or infinite values; look for the step that made them."
    mask, basis, groups = values["mask"], values["basis"], values["groups"]
    if mask.numel() and not (mask.min() >= 0 and mask.max() <= 1):
        return f"mask must lie in [0, 1], got [{mask.min():.4g}, {mask.max():.4g}]."
    if basis.shape[1]:
        gram = basis.double().T @ basis.double()
        if not torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype, device=gram.device), atol=BASIS_TOLERANCE):
            return "basis must have orthonormal columns."
    count, classes = len(values["displacements"]), len(values["class_displacements"])
    # One row per combination of `m` attributes with a value per class each.
    if count and classes and count not in {classes**m for m in range(1, count.bit_length() + 1)}:
        return f"displacements must have a power of {classes} rows, the number of class_displacements; got {count}."
    most = count or MOST_GROUPS
    if groups.numel() and not (groups.min() >= 0 and groups.max() < most):
        return f"groups must lie in 0..{most - 1}, got values from {int(groups.min())} to {int(groups.max())}."
    if values["num_updates"] < 0:
        return f"num_updates must be at least 0, got {int(values['num_updates'])}."
    return None

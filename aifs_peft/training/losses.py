"""The terms of a loss: summed, checked, and reported under their own names; and a loss that the user gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aifs_peft.errors import InvalidConfigError, NonFiniteError
from aifs_peft.training.processes import Processes

REMEDY = (
    "lower the learning rate or the term's weight (alpha for invariance, beta for sensitivity), or train in float32"
)

# The largest number whose square is one: beyond it the norm of a gradient is infinite in single precision.
LARGEST = torch.finfo(torch.float32).max ** 0.5

LossFunction = Callable[..., Tensor]
"""`Trainer(compute_loss_func=...)`: `(outputs, labels, num_items_in_batch) -> scalar`."""


class LossTerms:
    """Adds up the terms of each batch and keeps their running means for the log.

    Args:
        processes: for the mean over all of them.
        remedy: what to do about a term that is not finite, for the message.

    Example:
        >>> terms = LossTerms()
        >>> terms.add({"cross_entropy": torch.tensor(2.0), "invariance": torch.tensor(0.5)}, torch.zeros(1, 3), step=0)
        tensor(2.5000)
        >>> terms.drain()
        {'cross_entropy': 2.0, 'invariance': 0.5}
    """

    def __init__(self, processes: Processes | None = None, remedy: str = REMEDY) -> None:
        self._processes, self._remedy = processes or Processes(), remedy
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    def add(self, terms: dict[str, Tensor], z: Tensor, step: int) -> Tensor:
        """The loss of one batch.

        Args:
            terms: scalars with their graph.
            z: latents of the batch, to tell a bad encoder from a bad term.
            step: optimizer steps so far, for the message.

        Returns:
            Their sum.

        Raises:
            NonFiniteError: naming the first cause; also for a loss whose square is not finite.
        """
        loss = torch.stack([value.float() for value in terms.values()]).sum()
        if not bool(loss.abs() < LARGEST):
            self._explain(terms, z, step)
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._batches += 1
        return loss

    def _explain(self, terms: dict[str, Tensor], z: Tensor, step: int) -> None:
        if not bool(z.isfinite().all()):
            bad = int((~z.isfinite().all(1)).sum())
            raise NonFiniteError(
                f"latents of {bad} of {len(z)} examples are NaN or infinite at step {step}, before any loss; check "
                "the batch's input values, the encoder's weights, and the learning rate when it is trained"
            )
        names = {name: value.item() for name, value in terms.items() if not bool(value.abs() < LARGEST)}
        told = ", ".join(f"{name} = {value:.4g}" for name, value in names.items()) or "the sum of all terms"
        raise NonFiniteError(
            f"loss term {told} at step {step} is not finite, or its square is not: the training has diverged; "
            f"{self._remedy}"
        )

    def drain(self) -> dict[str, float]:
        """Means of the terms over the batches of all processes since the last call; called by every process."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        total = self._processes.reduce_sum(torch.cat([sums, sums.new_tensor([self._batches])]))
        self._sums, self._batches = {}, 0
        return {name: float(value / total[-1]) for name, value in zip(names, total[:-1], strict=True)}


class GivenLoss:
    """A user's loss on the outputs of one batch, in the place of the method's plain cross-entropy.

    It is asked for the mean over the batch: `num_items_in_batch` is the number of labels in this forward pass, and
    gradients are averaged over accumulated batches and processes afterwards, as for every other term.

    Args:
        function: `compute_loss_func` of the trainer.
        outputs: of the model, with `logits` of the clean latents.
        labels: `(batch,)` int64.

    Example:
        >>> given = GivenLoss(lambda outputs, labels, num_items_in_batch: outputs.sum() / num_items_in_batch,
        ...                   torch.ones(2, 3), torch.tensor([0, 1]))
        >>> given(), given.used
        (tensor(3.), True)
    """

    def __init__(self, function: LossFunction, outputs: Any, labels: Tensor) -> None:
        self._function, self._outputs, self._labels = function, outputs, labels
        self.used = False

    def __call__(self, shift: Tensor | None = None) -> Tensor:
        """The loss, a scalar with its graph.

        Args:
            shift: added to the logits that the function sees, `(batch, classes)`; None for none.
        """
        self.used = True
        count = torch.tensor(len(self._labels), device=self._labels.device)
        outputs = self._outputs
        if shift is not None:
            outputs = copy.copy(outputs)
            outputs["logits"] = outputs["logits"].float() + shift
        return self._function(outputs, self._labels, num_items_in_batch=count)

    def require_used(self, method: str) -> None:
        """Refuse a method that did not ask for it.

        Args:
            method: its name, for the message.

        Raises:
            InvalidConfigError: before any step was taken with a loss that is not the user's.
        """
        if not self.used:
            raise InvalidConfigError(
                f"compute_loss_func was given, but method {method!r} weighs the cross-entropy of each example itself "
                "and has no place for it; leave compute_loss_func out, or train a method whose cross-entropy is a "
                "plain mean, such as 'aifs' or 'erm'"
            )

"""The terms of a loss: summed, checked, and reported under their own names."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from aifs_peft.errors import NonFiniteError


class LossTerms:
    """Adds up the terms of each batch and keeps their running means for the log.

    Args:
        accelerator: of the trainer, for the mean over processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
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
            NonFiniteError: naming the first cause.
        """
        loss = torch.stack([value.float() for value in terms.values()]).sum()
        if not bool(loss.isfinite()):
            if not bool(z.isfinite().all()):
                bad = int((~z.isfinite().all(1)).sum())
                raise NonFiniteError(
                    f"latents of {bad} of {len(z)} examples are NaN or infinite at step {step}, before any loss; check "
                    "the batch's input values, the encoder's weights, and the learning rate when it is trained"
                )
            names = {name: value.item() for name, value in terms.items() if not bool(value.isfinite())}
            raise NonFiniteError(
                f"loss term {', '.join(f'{k} = {v}' for k, v in names.items())} at step {step}; lower the learning "
                "rate or the term's weight (alpha for invariance, beta for sensitivity), or train in float32"
            )
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._batches += 1
        return loss

    def drain(self) -> dict[str, float]:
        """Means of the terms over the batches of all processes since the last call; called by every process."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        sums = torch.cat([sums, sums.new_tensor([self._batches])])
        total = self.accelerator.reduce(sums, reduction="sum")
        self._sums, self._batches = {}, 0
        return {name: float(value / total[-1]) for name, value in zip(names, total[:-1], strict=True)}

"""Latents of the training set by the encoder as it was before tuning, kept for look-up in each step."""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.context import EpochContext

# Above this many numbers (256 MiB in float32) they are kept in half precision.
FULL_PRECISION_LIMIT = 2**26


class InitialLatents:
    """The latents, by position in the training set. Made by `prepare`, so a resumed run has the same.

    Args:
        z: `(n, dim)` float32, on the CPU. Kept in float16 above `FULL_PRECISION_LIMIT` numbers, unless a value does
            not fit it.

    Example:
        >>> InitialLatents(torch.eye(3)).rows(torch.tensor([2]), torch.zeros(1))
        tensor([[0., 0., 1.]])
    """

    def __init__(self, z: Tensor) -> None:
        fits = z.numel() > FULL_PRECISION_LIMIT and float(z.abs().max()) <= torch.finfo(torch.float16).max
        self.z = z.half() if fits else z

    @classmethod
    def collect(cls, context: EpochContext) -> InitialLatents:
        """One pass of the untuned encoder over the training set, in evaluation mode.

        Args:
            context: of `Method.prepare`.

        Raises:
            InvalidConfigError: where no encoder can be run.
        """
        if context.encode_untuned is None:
            raise InvalidConfigError(
                "this method reads the latents of the untuned encoder, and this training loop gives none: train with "
                "AIFSTrainer or fit_on_latents"
            )
        return cls(context.encode_untuned().z)

    def rows(self, index: Tensor, like: Tensor) -> Tensor:
        """Latents of a batch.

        Args:
            index: `(batch,)` int64 positions in the training set.
            like: a tensor of the device and precision wanted.

        Returns:
            `(batch, dim)` without a graph.
        """
        return self.z[index.cpu()].to(like.device, like.dtype)

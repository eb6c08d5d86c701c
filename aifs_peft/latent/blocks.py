"""Several latents of one example side by side: layers of an encoder, or encoders of several kinds of input.

Left as they are, the one with the largest numbers would be all that principal components, distances and weight decay
see. So each is centred and scaled to the same total variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidInputError

# Below this share of the variance of all, what varies in a block is rounding, and is not blown up.
_LEAST_VARIANCE = 1e-12


class ScaledBlocks(nn.Module):
    """Joins the latents of an example, each minus its mean and scaled to the same total variance.

    Means and scales are buffers, saved with the model that holds them, and stay in float32. Before `fit` the latents
    are joined as they are.

    Args:
        widths: of the latents, in order.

    Attributes:
        mean: `(dim,)`, of the joined latents.
        scale: `(blocks,)`, what each latent is multiplied by.
        examples: int64 scalar, how many examples `fit` saw; 0 before it.

    Raises:
        InvalidInputError: without a width, or for one below 1.

    Example:
        >>> blocks = ScaledBlocks([1, 1])
        >>> z = torch.tensor([[0.0, 0.0], [2.0, 10.0]])
        >>> blocks.fit(z)
        >>> blocks([z[:, :1], z[:, 1:]]).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
    """

    mean: Tensor
    scale: Tensor
    examples: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = [int(width) for width in widths]
        if not self.widths or min(self.widths) < 1:
            raise InvalidInputError(f"the widths of the latents must be at least 1; got {list(widths)}.")
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(len(self.widths)))
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))

    @property
    def dim(self) -> int:
        """Width of the joined latent."""
        return sum(self.widths)

    @property
    def fitted(self) -> bool:
        """Whether means and scales are those of data."""
        return int(self.examples) > 0

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """The joined latent `(batch, dim)`, at least float32.

        Args:
            parts: the latents, each `(batch, width)`.

        Raises:
            InvalidInputError: for other widths.
        """
        given = [part.shape[-1] for part in parts]
        if given != self.widths:
            raise InvalidInputError(f"latents of the widths {given} were given; needed are {self.widths}.")
        joined = torch.cat([part if part.dtype == torch.float64 else part.float() for part in parts], dim=-1)
        factors = self.scale.repeat_interleave(torch.tensor(self.widths, device=self.scale.device))
        return (joined - self.mean) * factors

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Take means and scales from examples: each latent gets the same total variance, 1 per dimension on average.

        Args:
            z: the latents joined as they are, `(n, dim)`, at least two rows.

        Raises:
            InvalidInputError: for another shape, or values that are not finite.
        """
        if z.dim() != 2 or len(z) < 2 or z.shape[1] != self.dim or not bool(z.isfinite().all()):
            raise InvalidInputError(
                f"scales need finite latents of shape (n, {self.dim}) with at least 2 rows; got {tuple(z.shape)}."
            )
        z = z.double()
        mean = z.mean(0)
        variances = torch.stack([part.sum() for part in (z - mean).square().mean(0).split(self.widths)])
        share = self.dim / len(self.widths)
        # A latent that never varies stays at its mean, whatever it is multiplied by.
        floor = _LEAST_VARIANCE * max(float(variances.max()), torch.finfo(torch.float32).tiny)
        scale = torch.where(variances > floor, (share / variances.clamp(min=floor)).sqrt(), torch.ones_like(variances))
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.examples.fill_(len(z))

    def shares(self, directions: Tensor) -> Tensor:
        """How much of each direction of the joined latents lies in each of them.

        Args:
            directions: `(directions, dim)`, such as a basis of discovered directions, transposed.

        Returns:
            `(directions, blocks)`, shares of the squared length; each row sums to one.

        Example:
            >>> ScaledBlocks([2, 1]).shares(torch.tensor([[0.0, 3.0, 4.0]], dtype=torch.float64)).tolist()
            [[0.36, 0.64]]
        """
        squares = torch.stack([part.square().sum(1) for part in directions.split(self.widths, 1)], 1)
        return squares / squares.sum(1, keepdim=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScaledBlocks:  # noqa: ARG002 - torch's signature
        """Follow moves to another device, but not changes of precision."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        return self

    def extra_repr(self) -> str:
        """Widths, for `print(model)`."""
        return f"widths={self.widths}, fitted={self.fitted}"

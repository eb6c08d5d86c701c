"""What a linear head and an encoder make of class and attribute, for training_dynamics.py and tuned_dynamics.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aifs_peft.explain.share import mean_share
from aifs_peft.latent.state import AIFSState

CELLS = tuple((k, v) for k in (0, 1) for v in (0, 1))


@dataclass(frozen=True)
class Cells:
    """Latents of a test set, each cell of label and attribute about as often.

    Attributes:
        z: latents `(n, d)`.
        y: their labels.
        a: their attribute values.
    """

    z: Tensor
    y: Tensor
    a: Tensor

    def rows(self) -> list[Tensor]:
        """Positions of each cell's examples."""
        return [torch.nonzero((self.y == k) & (self.a == v)).squeeze(1) for k, v in CELLS]

    def take(self, rows: Tensor) -> Cells:
        """Some of the examples."""
        return Cells(self.z[rows], self.y[rows], self.a[rows])


def offsets(cells: Cells) -> tuple[Tensor, Tensor]:
    """What the class and what the attribute moves a latent by, from the four cells' means: `(d,)` each."""
    means = torch.stack([cells.z[rows].mean(0) for rows in cells.rows()]).view(2, 2, -1)
    return (means[1] - means[0]).mean(0), (means[:, 1] - means[:, 0]).mean(0)


def of_decisions(head: nn.Module, cells: Cells, alpha: Tensor, beta: Tensor) -> dict[str, float]:
    """What moves the decisions of a linear head of two classes, and how good they are.

    Args:
        head: the head.
        cells: what it is tried on.
        alpha: what the class moves a latent by, `(d,)`.
        beta: what the attribute does.
    """
    z, y, a = cells.z, cells.y, cells.a
    weight = head.weight[1] - head.weight[0]  # type: ignore[index]

    def right(latents: Tensor, target: Tensor) -> Tensor:
        return head(latents).argmax(1).eq(target).double()  # type: ignore[no-any-return]

    hit = right(z, y)
    core, spurious = (v / v.norm() for v in (alpha, beta))
    return {
        "sensitivity": float(weight @ alpha),
        "reliance": float(weight @ beta),
        "core_share": mean_share(head, z, z.mean(0), core[:, None]),
        "spurious_share": mean_share(head, z, z.mean(0), spurious[:, None]),
        "core_alone": float(right(z - (a[:, None] - 0.5) * beta, y).mean()),
        "spurious_alone": float(right(z - (y[:, None] - 0.5) * alpha, a).mean()),
        "aligned": float(hit[y == a].mean()),
        "conflicting": float(hit[y != a].mean()),
    }


def worst_cell(head: nn.Module, cells: Cells) -> float:
    """Accuracy of the worst of the four cells."""
    return min(float(head(cells.z[rows]).argmax(1).eq(cells.y[rows]).double().mean()) for rows in cells.rows())


def of_latents(cells: Cells) -> dict[str, float]:
    """How large class and attribute are in the latents.

    - `core_contrast`, `spurious_contrast`: how many standard deviations apart they are, in the direction in which a
      linear reader tells them apart best. The direction comes from one half of the examples, the distance from the
      other, so that chance adds nothing.
    - `core_variance`, `spurious_variance`: their share of the latents' variance.
    - `offsets_cosine`: of the two offsets.
    """
    alpha, beta = offsets(cells)
    centred = cells.z - cells.z.mean(0)
    variance = float(centred.square().sum(1).mean())
    halves = [torch.cat([rows[half::2] for rows in cells.rows()]) for half in (0, 1)]
    parts = [cells.take(rows) for rows in halves]
    contrasts = np.mean([_contrasts(*parts), _contrasts(*parts[::-1])], axis=0)
    return {
        "core_contrast": float(contrasts[0]),
        "spurious_contrast": float(contrasts[1]),
        "core_variance": float(alpha.square().sum()) / 4 / variance,
        "spurious_variance": float(beta.square().sum()) / 4 / variance,
        "offsets_cosine": float(torch.cosine_similarity(alpha, beta, dim=0)),
    }


def _contrasts(learn: Cells, held: Cells) -> NDArray[np.float64]:
    """Contrasts of class and attribute on one half in the best directions of the other."""
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(_within(learn).double().numpy(), assume_centered=True)[0]
    directions = np.linalg.solve(covariance, torch.stack(offsets(learn), dim=1).double().numpy())
    apart = torch.stack(offsets(held), dim=1).double().numpy()
    spread = (_within(held).double().numpy() @ directions).std(0)
    return np.asarray((directions * apart).sum(0) / spread, dtype=np.float64)


def _within(cells: Cells) -> Tensor:
    """Latents less the means of their cells."""
    out = cells.z.clone()
    for rows in cells.rows():
        out[rows] -= cells.z[rows].mean(0)
    return out


def held_by(basis: Tensor, direction: Tensor) -> float:
    """Share of a direction `(d,)`, squared, that lies in a basis `(d, r)`."""
    return float((basis.double().T @ direction.double()).square().sum() / direction.double().square().sum())


class MaskWatch:
    """The mask's movement from one look to the next, and its entries along class and attribute."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    def __call__(self, state: AIFSState, core: Tensor, spurious: Tensor) -> dict[str, float]:
        """Numbers of one epoch; none before the first mask.

        Args:
            state: of the adapter.
            core: unit direction of the class, `(d,)`.
            spurious: of the attribute.
        """
        mask = state.mask.double()
        if float(mask.sum()) == 0:
            return {}
        mask = mask / mask.sum()
        numbers = {}
        if self._mask is not None and self._mask.shape == mask.shape:
            numbers["mask_change"] = float((mask - self._mask).abs().sum() / 2)
        self._mask = mask
        if not state.has_basis:
            for name, direction in (("core", core), ("spurious", spurious)):
                numbers[f"mask_{name}"] = float(mask @ direction.double().square()) * len(mask)
        return numbers

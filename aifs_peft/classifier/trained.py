"""A head trained by gradient with one of the training methods, on latents in principal coordinates."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.latent.heads import linear_parameters
from aifs_peft.methods import Method
from aifs_peft.training.latent_trainer import LatentFit, LatentSchedule, fit_on_latents

# Share of the rows that a method which refits the last layer on validation data gets as such.
_HELD_OUT = 0.2


@dataclass(frozen=True)
class TrainedHead:
    """A trained head and the coordinates it works in.

    Attributes:
        fit: what training gave.
        reduction: of the latents.
        scale: of each coordinate, `(k,)`.
        precise: the head in double precision: logits of one example and of many differ by rounding that nobody sees.
    """

    fit: LatentFit
    reduction: Reduction
    scale: NDArray[Any]
    precise: nn.Module

    def linear(self) -> LinearHead | None:
        """The head on whitened coordinates; None if it is not linear."""
        parts = linear_parameters(self.fit.head)
        if parts is None:
            return None
        weight, bias = (part.detach().double().numpy() for part in parts if part is not None)
        return LinearHead(weight * self.scale, bias)

    @torch.no_grad()
    def logits(self, latents: NDArray[Any]) -> NDArray[np.float64]:
        """Logits `(n, K)` of latents `(n, d)`."""
        projection = self.reduction.components * (self.scale / self.reduction.scale)[:, None]
        X = (latents.astype(np.float64) - self.reduction.mean) @ projection.T
        return np.asarray(self.precise(torch.as_tensor(X)).numpy())


def train_head(
    method: Method,
    X: NDArray[Any],
    index: NDArray[np.int64],
    num_labels: int,
    reduction: Reduction,
    *,
    schedule: LatentSchedule | None,
    columns: dict[str, torch.Tensor],
) -> TrainedHead:
    """Train a head on reduced latents.

    Args:
        method: with its settings, its seed among them.
        X: whitened coordinates `(n, k)`.
        index: labels `0..K-1`, `(n,)`.
        num_labels: `K`.
        reduction: of the latents.
        schedule: the optimisation; None takes the defaults.
        columns: what the method reads beside labels.
    """
    # Principal coordinates with one common scale: the latents rotated, as a frozen encoder's head would see them.
    # Whitened ones would hide from a method which directions vary most.
    scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))
    Z, y = torch.as_tensor(np.ascontiguousarray(X * scale, dtype=np.float32)), torch.as_tensor(index)
    held = np.zeros(len(y), dtype=bool)
    wanted = method.validation_columns()
    if wanted:
        held = _stratified_share(index, _HELD_OUT, np.random.default_rng(method.settings.seed))
    train, rest = torch.as_tensor(~held), torch.as_tensor(held)
    validation = (Z[rest], y[rest], {n: v[rest] for n, v in columns.items() if n in wanted}) if wanted else None
    fit = fit_on_latents(
        method.name, Z[train], y[train], num_labels=num_labels, settings=method.settings, schedule=schedule,
        columns={name: values[train] for name, values in columns.items()}, validation=validation,
    )  # fmt: skip
    return TrainedHead(fit, reduction, scale, copy.deepcopy(fit.head).double())


def _stratified_share(y: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random share of each class, `(n,)` bool."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        chosen[rows[: max(1, round(share * len(rows)))]] = True
    return chosen

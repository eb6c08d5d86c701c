"""Base vectors of prediction shortcuts among the features of a last layer, and a layer that ignores them.

The two fits of `shortcutprobe` on plain tensors; which parts of them are published is said there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft.latent import invariance_loss

# Weight `(classes, width)` and bias `(classes,)` of a linear layer; None where it has no bias.
Layer = tuple[Tensor, Tensor | None]

MOMENTUM = 0.9


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent with momentum 0.9 over shuffled batches.

    Args:
        epochs: passes.
        learning_rate: constant.
        batch_size: rows per step.
        seed: of the order.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int

    def minimise(self, parameters: list[Tensor], loss: Callable[[Tensor], Tensor], rows: Tensor) -> None:
        """Change `parameters` in place to make `loss(batch of rows)` small."""
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.SGD(parameters, lr=self.learning_rate, momentum=MOMENTUM)
        for _ in range(self.epochs):
            for batch in rows[torch.randperm(len(rows), generator=generator)].split(self.batch_size):
                optimizer.zero_grad()
                loss(batch).backward()
                optimizer.step()


def high_loss_half(losses: Tensor, labels: Tensor) -> Tensor:
    """Which examples are in the half of their class with the higher losses.

    Args:
        losses: `(n,)`.
        labels: `(n,)` int64.

    Returns:
        `(n,)` bool; of an odd number the middle one is in the low-loss half.

    Example:
        >>> high_loss_half(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([0, 0, 0, 1])).tolist()
        [True, False, False, False]
    """
    high = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        order = rows[losses[rows].argsort(descending=True, stable=True)]
        high[order[: len(rows) // 2]] = True
    return high


def mistake_directions(features: Tensor, labels: Tensor, predicted: Tensor, count: int) -> Tensor:
    """Directions in which the misclassified examples of a class differ from the others of that class.

    Args:
        features: `(n, width)`.
        labels: `(n,)` int64.
        predicted: `(n,)` int64.
        count: most directions wanted.

    Returns:
        `(width, r)` with orthonormal columns, strongest first; `r` is at most the number of classes with both kinds.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [4.0, 0.0]])
        >>> mistake_directions(features, torch.tensor([0, 0]), torch.tensor([0, 1]), 2).abs()
        tensor([[1.],
                [0.]])
    """
    wrong, differences = predicted != labels, []
    for label in labels.unique():
        mistakes, others = (labels == label) & wrong, (labels == label) & ~wrong
        if bool(mistakes.any()) and bool(others.any()):
            differences.append(features[mistakes].mean(0) - features[others].mean(0))
    if not differences:
        return features.new_zeros(features.shape[1], 0)
    _, singular, rows = torch.linalg.svd(torch.stack(differences), full_matrices=False)
    rank = int((singular > 1e-6 * singular.max().clamp_min(1e-12)).sum())
    directions: Tensor = rows[: min(count, rank)].T.contiguous()
    return directions


def shortcut_basis(
    features: Tensor,
    labels: Tensor,
    layer: Layer,
    rows: Tensor,
    *,
    count: int,
    mistake_share: float,
    semantic_weight: float,
    descent: Descent,
) -> Tensor:
    """Directions whose part of the features explains the predictions, and without which the class is still predicted.

    Starts from `mistake_directions` and descends on `CE(layer(s), predicted) + semantic_weight CE(layer(h - s), y)`,
    `s` being the projection of the features `h`; misclassified rows have `mistake_share` of the weight.

    Args:
        features: `(n, width)`, centred.
        labels: `(n,)` int64.
        layer: the trained last layer, kept fixed.
        rows: positions to fit on, `(m,)` int64.
        count: most directions wanted.
        mistake_share: in [0, 1].
        semantic_weight: at least 0.
        descent: the optimisation.

    Returns:
        `(width, r)` with orthonormal columns; `r = 0` where no class has both mistakes and others.

    Example:
        >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.1], [2.0, 0.2], [-2.0, -0.1]])
        >>> labels, layer = torch.tensor([0, 0, 1, 1]), (torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), None)
        >>> basis = shortcut_basis(
        ...     features, labels, layer, torch.arange(4), count=1, mistake_share=0.3, semantic_weight=0.0,
        ...     descent=Descent(epochs=1, learning_rate=1e-4, batch_size=4, seed=0),
        ... )
        >>> bool(basis[0].abs() > 0.99)
        True
    """
    predicted = F.linear(features, *layer).argmax(1)
    start = mistake_directions(features, labels, predicted, count)
    if not start.shape[1]:
        return start
    wrong = predicted != labels
    weights = torch.zeros(len(labels))
    for part, share in ((rows[wrong[rows]], mistake_share), (rows[~wrong[rows]], 1 - mistake_share)):
        weights[part] = share * len(rows) / max(len(part), 1)
    vectors = start.clone().requires_grad_()

    def loss(batch: Tensor) -> Tensor:
        h, basis = features[batch], torch.linalg.qr(vectors).Q
        shortcut = (h @ basis) @ basis.T
        explains = F.cross_entropy(F.linear(shortcut, *layer), predicted[batch], reduction="none")
        keeps = F.cross_entropy(F.linear(h - shortcut, *layer), labels[batch], reduction="none")
        return (weights[batch] * (explains + semantic_weight * keeps)).mean()

    descent.minimise([vectors], loss, rows)
    basis: Tensor = torch.linalg.qr(vectors.detach()).Q
    return basis


def invariant_layer(
    features: Tensor,
    labels: Tensor,
    layer: Layer,
    basis: Tensor,
    donors: Tensor,
    *,
    spuriousness_weight: float,
    descent: Descent,
) -> Layer:
    """Retrain a last layer so that the part of the features along `basis` does not move its predictions.

    Minimises `CE(layer(h), y) + spuriousness_weight KL(layer(h) || layer(h'))`, where `h'` is `h` with its part along
    the basis replaced by that of a donor.

    Args:
        features: `(n, width)`.
        labels: `(n,)` int64.
        layer: to start from; not changed.
        basis: `(width, r)` with orthonormal columns.
        donors: `(n,)` int64, whose part each example is given.
        spuriousness_weight: at least 0.
        descent: the optimisation.

    Returns:
        The new layer.

    Example:
        >>> features = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [-3.0, -1.0], [3.0, -1.0]])
        >>> labels, layer = torch.tensor([1, 1, 0, 0]), (torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), None)
        >>> weight, _ = invariant_layer(
        ...     features, labels, layer, torch.tensor([[1.0], [0.0]]), torch.tensor([1, 0, 3, 2]),
        ...     spuriousness_weight=5.0, descent=Descent(epochs=200, learning_rate=0.02, batch_size=4, seed=0),
        ... )
        >>> difference = (weight[1] - weight[0]).abs()
        >>> bool(difference[1] > 5 * difference[0])
        True
    """
    weight, bias = (None if given is None else given.clone().requires_grad_() for given in layer)
    assert weight is not None  # noqa: S101 - for the type checker
    part = features @ basis
    swapped = features + (part[donors] - part) @ basis.T

    def loss(batch: Tensor) -> Tensor:
        logits, moved = F.linear(features[batch], weight, bias), F.linear(swapped[batch], weight, bias)
        return F.cross_entropy(logits, labels[batch]) + spuriousness_weight * invariance_loss(logits, moved)

    descent.minimise([weight] if bias is None else [weight, bias], loss, torch.arange(len(labels)))
    return weight.detach(), None if bias is None else bias.detach()

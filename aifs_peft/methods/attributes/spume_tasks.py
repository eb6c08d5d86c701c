"""SPUME's computations: how spurious attributes are, meta-tasks drawn accordingly, and their loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN = -1.0
"""Score of an attribute that all examples of a class have, or none: nothing to compare."""


def spuriousness(correct: Tensor, labels: Tensor, attributes: Tensor, num_labels: int) -> Tensor:
    """`tanh |log(p1 / p0)|` for each class and attribute: accuracy with the attribute against accuracy without.

    Args:
        correct: whether each prediction was right, `(n,)` bool.
        labels: `(n,)` int64.
        attributes: `(n, V)`, 1 where an example has an attribute.
        num_labels: K.

    Returns:
        `(K, V)` float64 in [0, 1], 0 where both accuracies are zero; `UNKNOWN` where one side has no example.

    Example:
        >>> correct = torch.tensor([True, True, True, False])
        >>> have = torch.tensor([[1], [1], [0], [0]])
        >>> spuriousness(correct, torch.zeros(4, dtype=torch.long), have, 2).round(decimals=3)
        tensor([[ 0.6000],
                [-1.0000]], dtype=torch.float64)
    """
    scores = torch.full((num_labels, attributes.shape[1]), UNKNOWN, dtype=torch.float64)
    for label in labels.unique().tolist():
        rows = labels == label
        have, right = attributes[rows].double(), correct[rows].double()
        with_it, without = have.sum(0), len(have) - have.sum(0)
        right_with = right @ have
        p1 = right_with / with_it.clamp_min(1)
        p0 = (right.sum() - right_with) / without.clamp_min(1)
        both_zero = (p1 == 0) & (p0 == 0)
        ratio = torch.where(both_zero, 0.0, (p1 / p0).log())
        known = (with_it > 0) & (without > 0)
        scores[label] = torch.where(known, ratio.abs().tanh(), UNKNOWN)
    return scores


@dataclass(frozen=True)
class ClassPool:
    """One class's examples and what can be drawn of them.

    Attributes:
        rows: positions in the training set, `(m,)` int64.
        have: `(m, V)` bool.
        possible: `(V, V)` bool: there is an example with the first attribute and not the second, and the reverse.
    """

    rows: NDArray[np.int64]
    have: NDArray[np.bool_]
    possible: NDArray[np.bool_]


def class_pools(labels: Tensor, attributes: Tensor) -> dict[int, ClassPool]:
    """The pools of all classes that occur.

    Args:
        labels: `(n,)` int64.
        attributes: `(n, V)`, 0 or 1.

    Example:
        >>> pools = class_pools(torch.tensor([0, 0, 1]), torch.tensor([[1, 0], [0, 1], [1, 1]]))
        >>> pools[0].possible.tolist(), pools[1].possible.any()
        ([[False, True], [True, False]], np.False_)
    """
    pools = {}
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)
        have = attributes[rows].float()
        both = have.T @ have
        only_first = both.diagonal()[:, None] > both
        pools[label] = ClassPool(rows.numpy(), have.bool().numpy(), (only_first & only_first.T).numpy())
    return pools


def pair_weights(scores: Tensor, possible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of each ordered pair (support attribute, query attribute) of one class.

    Each attribute is drawn in proportion to `score - min score + 1e-10`; pairs without images on both sides are drawn
    again, which is the distribution on the possible pairs alone.

    Args:
        scores: `(V,)` float64, with `UNKNOWN`.
        possible: `(V, V)` bool.

    Returns:
        `(V, V)`, adding up to 1, or zeros when no pair is possible.

    Example:
        >>> pair_weights(torch.tensor([1.0, 0.0]), ~np.eye(2, dtype=bool)).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """
    values = scores.numpy()
    known = values > UNKNOWN
    if not known.any():
        return np.zeros(possible.shape)
    single = np.where(known, values - values[known].min() + 1e-10, 0.0)
    weights = np.outer(single, single) * possible
    total = weights.sum()
    return np.asarray(weights / total if total > 0 else weights, dtype=np.float64)


def tasks_of(positions: Tensor, length: int, num_labels: int, shots: int) -> Tensor:
    """Which task each place of a batch belongs to. Places come in pairs: support, query.

    A batch holds as many tasks as have room with `shots` pairs of each class, at least one.

    Args:
        positions: `(b,)` int64 in `[0, length)`.
        length: size of the batch.
        num_labels: K.
        shots: support (and query) images of a class in a task.

    Returns:
        `(b,)` int64.

    Example:
        >>> tasks_of(torch.arange(9), 9, 2, 1).tolist()
        [0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    pairs = max(length // 2, 1)
    tasks = max(1, pairs // (num_labels * shots))
    return (positions // 2).clamp_max(pairs - 1) * tasks // pairs


def task_order(
    pools: dict[int, ClassPool], scores: Tensor, *, draws: int, batch: int, shots: int, rng: np.random.Generator
) -> Tensor:
    """An epoch of meta-tasks: in each batch support and query examples in turn, classes round-robin.

    In each task and class, two attributes are drawn; its support examples have the first and not the second, its
    query examples the second and not the first. A class without a possible pair gives any of its examples.

    Args:
        pools: see `class_pools`.
        scores: `(K, V)`, see `spuriousness`.
        draws: length of the epoch.
        batch: examples per forward pass.
        shots: see `tasks_of`.
        rng: of all draws.

    Returns:
        Positions in the training set, `(draws,)` int64.

    Example:
        >>> labels, have = torch.tensor([0, 0, 1, 1]), torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]])
        >>> pools, scores = class_pools(labels, have), torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> order = task_order(pools, scores, draws=4, batch=4, shots=1, rng=np.random.default_rng(0))
        >>> labels[order].tolist()  # support and query of each class
        [0, 0, 1, 1]
    """
    classes = sorted(pools)
    weights = {label: pair_weights(scores[label], pools[label].possible) for label in classes}
    ends = {label: weights[label].cumsum() for label in classes}
    order = np.empty(draws, dtype=np.int64)
    for start in range(0, draws, batch):
        length = min(batch, draws - start)
        tasks = tasks_of(torch.arange(length), length, scores.shape[0], shots).numpy()
        labels = np.asarray(classes)[np.arange(length) // 2 % len(classes)]
        for task, label in sorted({*zip(tasks.tolist(), labels.tolist(), strict=True)}):
            places = np.flatnonzero((tasks == task) & (labels == label))
            for side, rows in enumerate(_sides(pools[label], ends[label], rng)):
                own = places[places % 2 == side]
                order[start + own] = rng.choice(rows, len(own))
    return torch.as_tensor(order)


def _sides(
    pool: ClassPool, ends: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that support and query may be drawn from, for one pair of attributes."""
    if not len(ends) or not ends[-1] > 0:
        return pool.rows, pool.rows
    drawn = np.searchsorted(ends, rng.random() * ends[-1], side="right")
    # Rounding may carry the product up to the total itself.
    pair = int(min(drawn, np.searchsorted(ends, ends[-1])))
    support, query = divmod(pair, pool.have.shape[1])
    has_support, has_query = pool.have[:, support], pool.have[:, query]
    return pool.rows[has_support & ~has_query], pool.rows[has_query & ~has_support]


def centroid_loss(embedding: Tensor, labels: Tensor, num_labels: int, shots: int, temperature: float) -> Tensor:
    """Cross-entropy of queries (odd places) against the class centroids of their task's support (even places).

    Args:
        embedding: `(b, width)` of a batch laid out by `task_order`.
        labels: `(b,)` int64.
        num_labels: K.
        shots: see `tasks_of`.
        temperature: T.

    Returns:
        A scalar; 0, with a graph, when no query has a centroid of its class.

    Example:
        >>> e = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> centroid_loss(e, torch.tensor([0, 0, 1, 1]), 2, 1, 1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    place = torch.arange(len(labels), device=labels.device)
    task, support = tasks_of(place, len(labels), num_labels, shots), place % 2 == 0
    cells = (int(task.max()) + 1) * num_labels
    cell = task * num_labels + labels
    counts = embedding.new_zeros(cells).index_add(0, cell[support], embedding.new_ones(int(support.sum())))
    sums = embedding.new_zeros(cells, embedding.shape[1]).index_add(0, cell[support], embedding[support])
    centroids = F.normalize(sums / counts.clamp_min(1)[:, None], dim=1).unflatten(0, (-1, num_labels))
    queries = ~support & (counts[cell] > 0)
    if not bool(queries.any()):
        return embedding.sum() * 0.0
    cosine = torch.einsum("qd,qkd->qk", F.normalize(embedding[queries], dim=1), centroids[task[queries]])
    missing = (counts == 0).unflatten(0, (-1, num_labels))[task[queries]]
    logits = (temperature * cosine).masked_fill(missing, float("-inf"))
    return F.cross_entropy(logits, labels[queries])


def cluster_attributes(z: Tensor, labels: Tensor, clusters: int, seed: int) -> Tensor:
    """Number of the k-means cluster each example lies in, clusters of one class after those of another.

    Args:
        z: latents `(n, dim)`.
        labels: `(n,)` int64.
        clusters: per class; fewer where a class has fewer distinct latents.
        seed: of k-means.

    Returns:
        `(n,)` int64.

    Example:
        >>> z = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.0]])
        >>> codes = cluster_attributes(z, torch.tensor([0, 0, 0, 0, 1]), 2, seed=0)
        >>> bool(codes[0] == codes[1] != codes[2] == codes[3]), int(codes[4])
        (True, 2)
    """
    from sklearn.cluster import KMeans

    values = ((z - z.mean(0)) / z.std(0).clamp_min(1e-6)).double().numpy() if len(z) > 1 else z.double().numpy()
    codes, start = torch.zeros_like(labels), 0
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)
        k = min(clusters, len(np.unique(values[rows.numpy()], axis=0)))
        fit = KMeans(k, n_init=4, random_state=seed).fit(values[rows.numpy()])
        codes[rows] = start + torch.as_tensor(fit.labels_).long()
        start += k
    return codes

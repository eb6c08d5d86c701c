"""RaVL's first stage: clusters of region features, and which of them a classifier wrongly leans on.

Source: Varma et al., "RaVL: Discovering and Mitigating Spurious Correlations in Fine-Tuned Vision-Language Models",
NeurIPS 2024, arXiv 2411.04097; gaps, weights, sign test and influence are those of its official code (MIT), written
anew from a description. Mini-batch k-means on unit vectors stands for k-medoids, whose distances are quadratic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError


@dataclass(frozen=True)
class RegionClusters:
    """What was found.

    Attributes:
        centroids: unit vectors `(k, dim)`.
        spurious: which clusters passed every test, `(k,)` bool.
        gaps: `(k, K)`, weighted accuracy with the cluster minus without, per class.
        influence: `(k,)`, in [0, 1].
        silhouette: of the clustering that was kept.
    """

    centroids: NDArray[np.float64]
    spurious: NDArray[np.bool_]
    gaps: NDArray[np.float64]
    influence: NDArray[np.float64]
    silhouette: float


def cluster_range(num_labels: int, most: int) -> list[int]:
    """Numbers of clusters to try: 2K to 5K - 1 (the paper's), 4 to 32 for two classes, at most `most` of them.

    Example:
        >>> cluster_range(2, 8), cluster_range(3, 20)
        ([4, 8, 12, 16, 20, 24, 28, 32], [6, 7, 8, 9, 10, 11, 12, 13, 14])
    """
    low, high = (4, 32) if num_labels == 2 else (2 * num_labels, 5 * num_labels - 1)
    return sorted({round(k) for k in np.linspace(low, high, min(most, high - low + 1))})


def cluster_gaps(
    inside: NDArray[np.bool_], labels: NDArray[np.int64], correct: NDArray[np.bool_], num_labels: int
) -> NDArray[np.float64]:
    """`w (accuracy in - accuracy out)` per cluster and class, `w = 2 min(n_in, n_out) / (n_in + n_out)`.

    Args:
        inside: whether an example has a region in a cluster, `(m, k)`.
        labels: `(m,)`.
        correct: whether an example is classified correctly, `(m,)`.
        num_labels: K.

    Returns:
        `(k, K)`, 0 where one side is empty.

    Example:
        >>> inside = np.array([[True], [True], [False], [False]])
        >>> cluster_gaps(inside, np.zeros(4, dtype=int), np.array([True, True, True, False]), 2).tolist()
        [[0.5, 0.0]]
    """
    gaps = np.zeros((inside.shape[1], num_labels))
    for label in np.unique(labels):
        rows = labels == label
        have, right = inside[rows].astype(np.float64), correct[rows].astype(np.float64)
        n_in = have.sum(0)
        n_out = len(have) - n_in
        right_in = right @ have
        accuracy_in = right_in / np.maximum(n_in, 1)
        accuracy_out = (right.sum() - right_in) / np.maximum(n_out, 1)
        weight = 2 * np.minimum(n_in, n_out) / len(have)
        gaps[:, label] = weight * (accuracy_in - accuracy_out)
    return gaps


def cluster_influence(
    code: NDArray[np.int64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    gaps: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How often a cluster holds the region that speaks most for a wrong prediction.

    Among misclassified examples that have a region in the cluster, whose label has a negative gap there and that have
    more than one region: the share whose region with the highest score of the predicted class lies in the cluster.

    Args:
        code: cluster of each region, `(m, R)`; -1 where there is no region.
        scores: class probabilities of each region, `(m, R, K)`.
        labels: `(m,)`.
        predicted: `(m,)`.
        gaps: see `cluster_gaps`.

    Returns:
        `(k,)`: the largest share over labels; 0 where there is no such example.

    Example:
        >>> code = np.array([[0, 1], [0, 1]])  # two wrong examples of class 0, each with a region in both clusters
        >>> scores = np.array([[[0.1, 0.9], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]])
        >>> wrong, gaps = np.array([1, 1]), np.array([[-0.5, 0.5], [0.0, 0.0]])
        >>> cluster_influence(code, scores, np.zeros(2, dtype=int), wrong, gaps).tolist()
        [0.5, 0.0]
    """
    rows = np.flatnonzero((labels != predicted) & ((code >= 0).sum(1) > 1))
    own = np.where(code[rows] >= 0, scores[rows, :, predicted[rows]], -np.inf)
    loudest = code[rows, own.argmax(1)]
    influence = np.zeros(len(gaps))
    for cluster in range(len(gaps)):
        has = (code[rows] == cluster).any(1)
        for label in np.flatnonzero(gaps[cluster] < 0):
            chosen = has & (labels[rows] == label)
            if chosen.any():
                influence[cluster] = max(influence[cluster], (loudest[chosen] == cluster).mean())
    return influence


def find_spurious_clusters(
    features: NDArray[np.float64],
    present: NDArray[np.bool_],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    ks: Sequence[int],
    min_influence: float,
    sample: int,
    seed: int,
) -> RegionClusters:
    """Cluster regions, and keep the clusters that help some classes, harm others and are behind wrong predictions.

    Args:
        features: of regions, `(m, R, dim)`.
        present: which there are, `(m, R)`.
        scores: class probabilities of regions, `(m, R, K)`.
        labels: `(m,)`.
        predicted: by the whole examples, `(m,)`.
        ks: numbers of clusters to try; the best silhouette wins.
        min_influence: clusters with less are not spurious.
        sample: regions on which the silhouette is measured.
        seed: of k-means and the sample.

    Returns:
        Clusters and what was measured.

    Raises:
        InvalidInputError: if there are fewer distinct regions than clusters to try.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> features = np.array([[4.0, 0], [0, 4.0], [-4.0, 0]])[rng.integers(3, size=(60, 2))]
        >>> features = features + 0.1 * rng.normal(size=(60, 2, 2))
        >>> present, scores = np.ones((60, 2), dtype=bool), np.full((60, 2, 2), 0.5)
        >>> labels = np.arange(60) % 2
        >>> found = find_spurious_clusters(
        ...     features, present, scores, labels, labels, ks=[2, 3], min_influence=0.25, sample=100, seed=0
        ... )
        >>> len(found.centroids), bool(found.spurious.any())  # without a wrong prediction nothing is spurious
        (3, False)
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=2, keepdims=True), 1e-12)
    centroids, silhouette = _cluster(unit[present], ks, sample, seed)
    code = np.where(present, (unit @ centroids.T).argmax(2), -1)
    inside = (code[:, :, None] == np.arange(len(centroids))).any(1)
    gaps = cluster_gaps(inside, labels, labels == predicted, scores.shape[2])
    influence = cluster_influence(code, scores, labels, predicted, gaps)
    spurious = (gaps > 0).any(1) & (gaps < 0).any(1) & (influence >= min_influence)
    return RegionClusters(centroids, spurious, gaps, influence, silhouette)


def _cluster(
    points: NDArray[np.float64], ks: Sequence[int], sample: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Unit centroids of the clustering with the best silhouette, and that silhouette."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import silhouette_score

    distinct = len(np.unique(points, axis=0))
    ks = [k for k in ks if k < distinct]
    if not ks:
        raise InvalidInputError(
            f"{distinct} distinct regions are too few to be clustered; hold out more examples for RaVL's discovery"
        )
    chosen = np.random.default_rng(seed).permutation(len(points))[:sample]
    best: tuple[float, NDArray[np.float64]] | None = None
    for k in ks:
        fit = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=1024).fit(points)
        codes = fit.labels_[chosen]
        apart = 1 < len(np.unique(codes)) < len(codes)
        score = float(silhouette_score(points[chosen], codes, metric="cosine")) if apart else -1.0
        if best is None or score > best[0]:
            best = score, fit.cluster_centers_
    assert best is not None  # noqa: S101 - ks is not empty
    norms = np.linalg.norm(best[1], axis=1, keepdims=True)
    return best[1] / np.maximum(norms, 1e-12), best[0]

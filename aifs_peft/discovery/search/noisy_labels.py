"""Wrong labels and a shortcut look alike: examples at the other class's place. What tells them apart is the class.

Under a shortcut the class can still be told among examples of one attribute value; where labels are wrong, the value
*is* the class, and nothing tells the label beside it. The gate measures that by a contrast (`class_verdict`), which
labels with errors make small: with a quarter of them wrong, half of it is left. So where the values lie so far apart
that no example between the classes can be among the conflicting ones, held-out examples are asked instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, IntArray, conflicting, deal, one_hot
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.search.finding import Partition

MISLABELLED = "holds the examples of a clearer partition with nothing of the class beside it: mislabelled?"
"""Why a partition that passes is none: most of what it calls conflicting are wrong labels."""


def class_beside(X: Array, y: IntArray, attribute: IntArray, *, config: DiscoveryConfig) -> tuple[float, float]:
    """How well held-out examples of one attribute value are told apart by class.

    Least squares with all four cells of class and attribute weighing the same, out of fold; ROC-AUC within each value.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        attribute: Values 0 and 1, likewise; each of the four cells has at least as many examples as there are folds.
        config: Its `noisy_labels`.

    Returns:
        The mean of both areas, and its standard error if there was nothing to tell.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.8, y, 1 - y)
        >>> X = rng.normal(size=(2000, 8)); X[:, 0] += 6 * a
        >>> area, error = class_beside(X, y, a, config=DiscoveryConfig())
        >>> abs(area - 0.5) < 3 * error
        True
        >>> X[:, 1] += y
        >>> area, error = class_beside(X, y, a, config=DiscoveryConfig())
        >>> area > 0.5 + 10 * error
        True
    """
    # Here: at import they would draw from Python's random numbers (scikit-learn's progress bars do).
    from sklearn.linear_model import Ridge
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    own = config.noisy_labels
    cell = 2 * y + attribute
    weights = len(y) / (4.0 * np.bincount(cell, minlength=4)[cell])
    # The attribute is told, so that the fit owes it nothing; its own column is left out of the score.
    told = np.column_stack([X / X.std(axis=0), 2.0 * attribute - 1.0])
    score = np.zeros(len(y))
    for rest, held in StratifiedKFold(own.folds).split(told, cell):
        ridge = Ridge(alpha=own.ridge * len(rest)).fit(told[rest], 2.0 * y[rest] - 1.0, sample_weight=weights[rest])
        score[held] = told[held, :-1] @ ridge.coef_[:-1]
    areas, variances = [], []
    for value in (0, 1):
        own_class = y[attribute == value]
        ones = float(own_class.sum())
        zeros = len(own_class) - ones
        areas.append(float(roc_auc_score(own_class, score[attribute == value])))
        variances.append((ones + zeros + 1.0) / (12.0 * ones * zeros))  # of the Mann-Whitney statistic by chance
    return float(np.mean(areas)), float(np.sqrt(np.sum(variances))) / 2.0


def classes_beside(X: Array, y: IntArray, attribute: IntArray, *, config: DiscoveryConfig) -> tuple[float, float]:
    """`class_beside` for more than two classes: each class against the one that the value goes with.

    Of each cell the area is that under the curve of the two classes' scores, among the examples of the value; the mean
    is weighted by the inverse variances that chance gives, so that many cells of one example count as well.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attribute: Values, likewise.
        config: Its `noisy_labels`, and the floor of a cell's weight in `heads`.

    Returns:
        The mean area, and its standard error if there was nothing to tell; 0.5 and infinity where nothing conflicts
        with a value that has an aligned example per fold.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 2000); a = np.where(rng.random(2000) < 0.8, y, rng.integers(0, 3, 2000))
        >>> X = rng.normal(size=(2000, 8)); X[:, :3] += 6 * np.eye(3)[a]
        >>> area, error = classes_beside(X, y, a, config=DiscoveryConfig())
        >>> abs(area - 0.5) < 3 * error
        True
        >>> X[:, 3:6] += np.eye(3)[y]
        >>> area, error = classes_beside(X, y, a, config=DiscoveryConfig())
        >>> area > 0.5 + 10 * error
        True
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import Ridge

    own, K = config.noisy_labels, int(max(y.max(), attribute.max())) + 1
    cell = K * y + attribute
    counts = np.bincount(cell, minlength=K * K)
    weights = 1.0 / np.maximum(counts, config.heads.cell_floor)[cell]
    weights *= len(y) / weights.sum()
    # The values are told, so that the fit owes them nothing; their own columns are left out of the scores.
    told, labels = np.hstack([X / X.std(axis=0), 2.0 * one_hot(attribute, K, X.dtype)]), one_hot(y, K, X.dtype)
    fold, scores = deal(np.argsort(cell, kind="stable"), own.folds), np.zeros((len(y), K))
    for j in range(own.folds):
        rest, held = fold != j, fold == j
        ridge = Ridge(alpha=own.ridge * np.count_nonzero(rest)).fit(told[rest], labels[rest], weights[rest])
        scores[held] = X[held] / X.std(axis=0) @ ridge.coef_[:, :-K].T
    areas, precisions = [], []
    for value in range(K):
        for other in np.flatnonzero(counts.reshape(K, K)[:, value]):
            rows = np.flatnonzero((attribute == value) & ((y == other) | (y == value)))
            ones, zeros = counts[K * other + value], counts[K * value + value]
            if other == value or zeros < own.folds:
                continue
            ranks = rankdata(scores[rows, other] - scores[rows, value])
            above = ranks[y[rows] == other].sum() - ones * (ones + 1.0) / 2.0
            areas.append(above / (ones * zeros))
            precisions.append(12.0 * ones * zeros / (ones + zeros + 1.0))  # of the Mann-Whitney statistic by chance
    if not areas:
        return 0.5, float("inf")
    return float(np.average(areas, weights=precisions)), float(1.0 / np.sqrt(np.sum(precisions)))


def class_not_told(X: Array, y: IntArray, attribute: IntArray, *, config: DiscoveryConfig) -> str:
    """Why a partition of more than two classes is wrong labels by held-out examples, or "" where it is not.

    Wrong labels that are spread over many classes give the class a contrast by chance, but nothing to tell it by.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attribute: Values, likewise.
        config: Its `noisy_labels`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> true = rng.integers(0, 5, 2000); y = np.where(rng.random(2000) < 0.9, true, rng.integers(0, 5, 2000))
        >>> X = rng.normal(size=(2000, 8)); X[:, :5] += 6 * np.eye(5)[true]
        >>> class_not_told(X, y, true, config=DiscoveryConfig()).startswith(gates.NO_CLASS)
        True
    """
    area, error = classes_beside(X, y, attribute, config=config)
    if not np.isfinite(error) or area >= 0.5 + config.noisy_labels.many_least_errors * error:
        return ""
    return f"{gates.NO_CLASS}: mislabelled? (held-out examples: area {area:.2f})"


def told_beside(
    X: Array, y: IntArray, attributes: Sequence[IntArray], contrast: float, *, config: DiscoveryConfig
) -> bool:
    """Whether held-out examples of one attribute value tell the class, of more than two classes.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attributes: Partitions that must all show it: what was refined with the class held, and with the class let go.
        contrast: Of the attribute, without what chance gives.
        config: Its `noisy_labels`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 2000); a = np.where(rng.random(2000) < 0.8, y, rng.integers(0, 3, 2000))
        >>> X = rng.normal(size=(2000, 8)); X[:, :3] += 6 * np.eye(3)[a]
        >>> told_beside(X, y, [a], 6.0, config=DiscoveryConfig())
        False
        >>> X[:, 3:6] += np.eye(3)[y]
        >>> told_beside(X, y, [a], 6.0, config=DiscoveryConfig())
        True
    """
    own = config.noisy_labels
    least = own.many_area[int(contrast >= own.strength)]
    for attribute in attributes:
        area, error = classes_beside(X, y, attribute, config=config)
        if area < max(least, 0.5 + own.many_errors * error):
            return False
    return True


def judge_again(
    partitions: Sequence[Partition], X: Array, y: IntArray, clearer: Sequence[Partition], *, config: DiscoveryConfig
) -> tuple[list[Partition], list[Partition]]:
    """Ask held-out examples where the gate saw too little of the class, and refuse what holds wrong labels.

    Args:
        partitions: Refined at one number of components, with the gate's word.
        X: Those components, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        clearer: Mislabelled examples that other numbers of components have shown.
        config: All settings.

    Returns:
        The partitions, and those of them that are wrong labels.
    """
    heard: dict[bytes, bool] = {}
    judged, wrong = [], []
    for partition in partitions:
        if not _apart(partition, y, config):
            judged.append(partition)
            continue
        attribute = np.asarray(partition.responsibilities.argmax(axis=1))
        key = np.packbits(attribute.astype(np.bool_)).tobytes()
        if key not in heard:
            heard[key] = _told(X, y, attribute, config)
        if heard[key]:
            judged.append(replace(partition, record=replace(partition.record, accepted=True, reason="accepted")))
        else:
            judged.append(partition)
            wrong.append(partition)
    return [_without_wrong(p, [*clearer, *wrong], y, config) for p in judged], wrong


def _apart(partition: Partition, y: IntArray, config: DiscoveryConfig) -> bool:
    """Whether only the class is missing, and the attribute's values are too far apart for hard examples."""
    record, own = partition.record, config.noisy_labels
    if not record.reason.startswith(gates.NO_CLASS) or record.gain < 0.0 or record.association < own.association:
        return False
    attribute = np.asarray(partition.responsibilities.argmax(axis=1))
    noise, _ = gates.class_noise(attribute, y, 2, record.k)
    return record.strength**2 - noise >= own.strength**2


def _told(X: Array, y: IntArray, attribute: IntArray, config: DiscoveryConfig) -> bool:
    own = config.noisy_labels
    if int(np.bincount(2 * y + attribute, minlength=4).min()) < own.folds:
        return False
    area, error = class_beside(X, y, attribute, config=config)
    return area - own.errors * error >= own.area


def _without_wrong(partition: Partition, wrong: Sequence[Partition], y: IntArray, config: DiscoveryConfig) -> Partition:
    """The partition, refused where a clearer one shows that most of its conflicting examples are wrong labels.

    Of more classes many ends are compared, and it takes as many as pass: `consensus._unless_mislabelled`.
    """
    if not (partition.record.accepted or partition.close):
        return partition
    moved = conflicting(partition.responsibilities, y)
    for other in wrong:
        theirs = conflicting(other.responsibilities, y)
        held = np.count_nonzero(moved & theirs) / np.count_nonzero(theirs)
        if other.record.gain > partition.record.gain and held >= config.noisy_labels.held:
            refused = replace(partition.record, accepted=False, reason=MISLABELLED)
            return replace(partition, record=refused, close=False)
    return partition

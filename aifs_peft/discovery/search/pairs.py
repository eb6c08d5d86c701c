"""More than two classes: the search with two classes on pairs of them, put together.

Where many examples conflict, or an attribute is weak, the search with two classes finds it on the examples of each pair
of classes when no partition of all classes shows it. In a pair, an example with a third class's value looks like a
conflicting one, too: that an example conflicts is well known then, its value is decided afterwards, jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.search.two_classes import find_partition


@dataclass(frozen=True)
class PairedPartition:
    """What the searches on pairs of classes say together.

    Args:
        attribute: The rival's value for examples that conflict in some pair, of several the most certain, shape `(n,)`.
        accepted: Share of the pairs in which the gate of two classes was passed. Where the rest of them can no longer
            bring it to what is needed, they are not looked at, and count as pairs in which it was not.
    """

    attribute: IntArray
    accepted: float


def search_pairs(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> PairedPartition:
    """Look for an attribute on pairs of classes.

    Costs the search with two classes on all examples, times `K - 1`, or less where only `many_classes.pairs` of the
    pairs are looked at.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: All settings.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 32)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 2 * np.eye(3)[y]
        >>> found = search_pairs(X - X.mean(axis=0), y, 3, rng=rng, config=DiscoveryConfig())
        >>> conflicting = found.attribute != y
        >>> found.accepted, bool(np.mean(a[conflicting] != y[conflicting]) > 0.95)
        (1.0, True)
    """
    certainty, attribute, accepted = np.full(len(y), 0.5), y.copy(), 0
    pairs = chosen_pairs(n_classes, config.many_classes.pairs)
    needed = min(config.gate.pairs, 1.0) * len(pairs)
    for place, pair in enumerate(pairs):
        if accepted + len(pairs) - place < needed:
            break
        rows = np.flatnonzero(np.isin(y, pair))
        if len(rows) < config.inputs.min_rows:
            continue
        second = (y[rows] == pair[1]).astype(np.int64)
        partition, _, _ = find_partition(X[rows] - X[rows].mean(axis=0), second, rng=rng, config=config)
        if partition is None:
            continue
        accepted += 1
        conflicting = partition.responsibilities[np.arange(len(rows)), 1 - second]
        surer = conflicting > certainty[rows]
        certainty[rows[surer]] = conflicting[surer]
        attribute[rows[surer]] = np.asarray(pair)[1 - second[surer]]
    return PairedPartition(attribute, accepted / len(pairs))


def chosen_pairs(n_classes: int, most: int) -> list[tuple[int, int]]:
    """All pairs of classes, or those of classes that lie close to each other on a ring, every class as often.

    Args:
        n_classes: `K`.
        most: Number of pairs from which on no further round of the ring is begun; at least one round is made.

    Example:
        >>> chosen_pairs(3, 15), len(chosen_pairs(6, 15)), len(chosen_pairs(20, 15))
        ([(0, 1), (1, 2), (0, 2)], 15, 20)
    """
    pairs: list[tuple[int, int]] = []
    for step in range(1, n_classes // 2 + 1):
        # Half-way round an even ring every pair would come twice.
        starts = n_classes // 2 if 2 * step == n_classes else n_classes
        pairs += [(min(c, (c + step) % n_classes), max(c, (c + step) % n_classes)) for c in range(starts)]
        if len(pairs) >= most:
            break
    return pairs

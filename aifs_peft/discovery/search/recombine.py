"""More than two classes: ends of the refinement put together, judged by how well they explain held-out examples.

Where class and attribute are equally strong, most starts end between the two: right in some classes, or for some values
only. Classes of one end beside classes of another are a better start than either, and so are the conflicting examples
of both. What comes of it is kept where it explains the latents better than what is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, BoolArray, IntArray, conflicting
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.mixture.predictive import HeldOut
from aifs_peft.discovery.mixture.refine import refine_until_stable
from aifs_peft.discovery.proposals.starts import Start


@dataclass(frozen=True)
class End:
    """Where the refinement of one start ended.

    Args:
        start: From where.
        responsibilities: Weights of the attribute values, shape `(n, K)`.
        explained: `HeldOut.gain`, in nats per example.
        times: How many of the starts that bear each other out it stands for; 0 for what is not one of them.
    """

    start: Start
    responsibilities: Array
    explained: float
    times: int = 0

    @property
    def together(self) -> bool:
        """Whether it comes of ends that were put together."""
        return self.start.source == "recombined"

    def moved(self, y: IntArray) -> BoolArray:
        """Which examples conflict, shape `(n,)`."""
        return conflicting(self.responsibilities, y)


def reach(
    X: Array,
    y: IntArray,
    start: Start,
    n_classes: int,
    *,
    times: int = 0,
    held_out: HeldOut,
    rng: np.random.Generator,
    config: DiscoveryConfig,
) -> End:
    """Refine a start, and see how well it explains the latents where it ends.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        start: From where.
        n_classes: `K`.
        times: See `End`.
        held_out: The same examples in folds, the same for all ends that are compared.
        rng: Source of the folds of the refinement.
        config: All settings.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.8, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 8)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 3 * np.eye(3)[y]
        >>> start = Start("half", 0.5, np.where(rng.random(1500) < 0.5, a, y))
        >>> held_out = HeldOut.of(X, y, 3, rng=rng, config=DiscoveryConfig())
        >>> end = reach(X, y, start, 3, held_out=held_out, rng=rng, config=DiscoveryConfig())
        >>> bool(np.mean(end.responsibilities.argmax(axis=1) == a) > 0.98), end.explained > 0.5
        (True, True)
    """
    R = refine_until_stable(X, y, start.attribute, n_classes, rng=rng, config=config)
    return End(start, R, held_out.gain(R), times)


def recombine(
    X: Array,
    y: IntArray,
    ends: list[End],
    n_classes: int,
    *,
    held_out: HeldOut,
    rng: np.random.Generator,
    config: DiscoveryConfig,
) -> list[End]:
    """Put ends together, refine the result, and keep it where it is new or better.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        ends: At least one.
        n_classes: `K`.
        held_out: See `reach`.
        rng: Source of the choices.
        config: Its `many_classes` says how often, and when to give up.

    Returns:
        The new ends that were kept.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 2000); a = np.where(rng.random(2000) < 0.7, y, rng.integers(0, 4, 2000))
        >>> X = rng.normal(size=(2000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 5 * np.eye(4)[y]
        >>> first, second = np.where(y < 2, a, y), np.where(y < 2, y, a)  # each knows two of the classes
        >>> ends = [End(Start("known", 0.0, v), np.eye(4)[v], 0.1) for v in (first, second)]
        >>> held_out = HeldOut.of(X, y, 4, rng=rng, config=DiscoveryConfig())
        >>> new = recombine(X, y, ends, 4, held_out=held_out, rng=rng, config=DiscoveryConfig())
        >>> best = max(new, key=lambda end: end.explained)
        >>> bool(np.mean(best.responsibilities.argmax(axis=1) == a) > 0.98)
        True
    """
    own, pool, new, idle = config.many_classes, sorted(ends, key=lambda end: -end.explained), [], 0
    # From what is alike to an end, or to where the refinement has begun before, it would only end there again.
    known = [np.asarray(end.responsibilities.argmax(axis=1)) for end in ends]
    for _ in range(own.children):
        if len(pool) < 2 or idle >= own.patience:
            break
        best = pool[: own.parents]
        first, second = rng.choice(len(best), 2, replace=False)
        values = [best[i].responsibilities.argmax(axis=1) for i in (first, second)]
        attribute = _together(values[0], values[1], y, n_classes, rng)
        idle += 1
        if not (attribute != y).any() or any(alike(attribute, other, y, own.same_child) for other in known):
            continue
        known.append(attribute)
        start = Start("recombined", float("nan"), attribute)
        child = reach(X, y, start, n_classes, held_out=held_out, rng=rng, config=config)
        if child.explained > best[0].explained + own.least_gain:
            idle = 0
        moved = child.moved(y)
        same = [end for end in best if gates.jaccard(moved, end.moved(y)) >= config.refinement.stable]
        if all(child.explained > end.explained for end in same):
            pool.append(child)
            new.append(child)
            known.append(np.asarray(child.responsibilities.argmax(axis=1)))
            pool.sort(key=lambda end: -end.explained)
    return new


def alike(first: IntArray, second: IntArray, y: IntArray, least: float) -> bool:
    """Whether two partitions give the same value to a large part of what either calls conflicting.

    Args:
        first: Attribute values, shape `(n,)`.
        second: The other ones.
        y: Labels, likewise.
        least: The smallest such part.

    Example:
        >>> y = np.array([0, 0, 1, 1])
        >>> alike(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1]), y, 0.5), alike(y, 1 - y, y, 0.1)
        (True, False)
    """
    either = (first != y) | (second != y)
    return bool(np.count_nonzero((first == second) & either) >= least * np.count_nonzero(either))


def _together(first: IntArray, second: IntArray, y: IntArray, K: int, rng: np.random.Generator) -> IntArray:
    """Attribute values from two partitions: what either says, what both say, or some classes from one of them.

    In the last case the conflicting examples of one class, or of one value, are forgotten half of the time.
    """
    kind = int(rng.integers(4))
    if kind == 0:
        return np.where(first != y, first, second)
    if kind == 1:
        return np.where(first == second, first, y)
    values = np.where((rng.random(K) < 0.5)[y], first, second)
    if kind == 2:
        forgotten = int(rng.integers(K))
        of = y if rng.random() < 0.5 else values
        values = np.where(of == forgotten, y, values)
    return values

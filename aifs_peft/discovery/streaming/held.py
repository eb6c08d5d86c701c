"""The rows that are held in memory: those of the principal components, of the search, and of the heads.

All rows are read block by block. What needs rows again and again (EM from many starts, convex fits) works on some of
them: on all where there are up to `InputConfig.held_rows`, as if there were no blocks, else on a sample of that many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DiscoveryConfig, InputConfig, ReductionConfig
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.inputs import fit_rows
from aifs_peft.discovery.principal_components import Reduction, principal_components
from aifs_peft.discovery.streaming.source import LatentSource


def reduce_source(source: LatentSource, *, rng: np.random.Generator, config: ReductionConfig) -> Reduction:
    """Principal components of latents that are read in blocks: the same as of an array with the same rows.

    Args:
        source: The latents.
        rng: Source of the row sample.
        config: Size of the sample, see `principal_components`.

    Raises:
        InvalidInputError: See `principal_components`.

    Example:
        >>> from aifs_peft.discovery.config import ReductionConfig
        >>> from aifs_peft.discovery.streaming.arrays import ArrayLatents
        >>> Z = np.random.default_rng(0).normal(size=(300, 4)); small = ReductionConfig(max_rows=100)
        >>> by_blocks = reduce_source(ArrayLatents(Z), rng=np.random.default_rng(1), config=small)
        >>> at_once = principal_components(Z, rng=np.random.default_rng(1), config=small)
        >>> bool(np.all(by_blocks.components == at_once.components))
        True
    """
    n = len(source)
    rows = np.arange(n) if n <= config.max_rows else np.sort(rng.choice(n, config.max_rows, replace=False))
    sample = source.take(rows)
    return source.processes.first(lambda: principal_components(sample, rng=rng, config=config))


def search_rows(
    labels: IntArray, hints: Sequence[Claim], *, rng: np.random.Generator, config: InputConfig
) -> IntArray | None:
    """The rows that the search is made on; `None` for all.

    A random sample that keeps some of each class, and all examples whose value a hint knows where these are few.

    Args:
        labels: In `0..K-1`, shape `(n,)`.
        hints: Candidates of the user.
        rng: Source of the sample.
        config: How many rows are held.

    Example:
        >>> labels = np.arange(1000) % 2
        >>> search_rows(labels, [], rng=np.random.default_rng(0), config=InputConfig()) is None
        True
        >>> len(search_rows(labels, [], rng=np.random.default_rng(0), config=InputConfig(held_rows=200)))
        200
    """
    if len(labels) <= config.held_rows:
        return None
    rng = rng.spawn(1)[0]  # what the search draws later does not depend on how many rows there are
    rows = [fit_rows(labels, replace(config, fit_rows=config.held_rows), rng)]
    for hint in hints:
        known = np.flatnonzero(hint.values >= 0) if isinstance(hint, Hint) else rows[0][:0]
        if len(known) <= config.held_rows // 2:
            rows.append(known)
    return np.unique(np.concatenate(rows))


def held_hints(hints: Sequence[Claim], rows: IntArray) -> list[Claim]:
    """The hints for some of the rows.

    Args:
        hints: For all rows.
        rows: Those held.
    """
    return [replace(hint, values=hint.values[rows]) if isinstance(hint, Hint) else hint for hint in hints]


def head_rows(
    labels: IntArray, conflicting: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig
) -> tuple[IntArray, Array] | None:
    """The rows that heads are fitted to, and how many rows each of them stands for; `None` for all.

    Every cell of class and conflict keeps the same number of rows, a smaller one keeps all it has: the few conflicting
    examples and rare classes are what a head against a shortcut rests on.

    Args:
        labels: In `0..K-1`, shape `(n,)`.
        conflicting: Which attributes conflict, as a number, 0 where none; shape `(n,)`.
        rng: Source of the sample.
        config: How many rows are held.

    Example:
        >>> labels = np.arange(1000) % 2; conflicting = (np.arange(1000) < 50).astype(int)
        >>> config = DiscoveryConfig(inputs=InputConfig(held_rows=250))
        >>> rows, weights = head_rows(labels, conflicting, rng=np.random.default_rng(0), config=config)
        >>> len(rows), int(conflicting[rows].sum()), float(weights.sum())
        (250, 50, 1000.0)
    """
    most = config.inputs.held_rows
    if len(labels) <= most:
        return None
    _, cell, sizes = np.unique(
        labels * (int(conflicting.max()) + 1) + conflicting, return_inverse=True, return_counts=True
    )
    quota = _even_quota(sizes, most)
    chosen = [
        rng.permutation(np.flatnonzero(cell == c))[: quota[c]] if quota[c] < sizes[c] else np.flatnonzero(cell == c)
        for c in range(len(sizes))
    ]
    rows = np.sort(np.concatenate(chosen))
    return rows, (sizes / quota)[cell[rows]]


def _even_quota(sizes: IntArray, most: int) -> IntArray:
    """How many of each cell's rows are kept, `most` in all: smaller cells are whole, the others share alike."""
    quota = np.zeros(len(sizes), dtype=np.int64)
    left = most
    for done, c in enumerate(np.argsort(sizes, kind="stable")):
        quota[c] = max(min(sizes[c], left // (len(sizes) - done)), 1)
        left -= quota[c]
    return quota

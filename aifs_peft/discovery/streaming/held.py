"""The rows that are held in memory: those of the principal components, of the search, and of the heads.

All rows are read block by block. What needs rows again and again (EM from many starts, convex fits) works on some of
them: on all where there are up to `InputConfig.held_rows`, as if there were no blocks, else on a sample of that many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aifs_peft.discovery.arrays import IntArray
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import InputConfig, ReductionConfig
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

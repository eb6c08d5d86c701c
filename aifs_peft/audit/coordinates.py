"""Latents in the principal components of an audit: held where they are few, else computed block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aifs_peft.audit.within import ClassMoments
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.held import reduce_source
from aifs_peft.discovery.streaming.source import LatentSource, reduced

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]


@dataclass(frozen=True)
class Coordinates:
    """Latents in their principal components, with the class of each.

    Args:
        source: the latents.
        reduction: of them.
        y: classes `(n,)` in `0..n_classes-1`.
        n_classes: `K`.
        held: all rows, `(n, k)`; `None` where they are too many to be held.
    """

    source: LatentSource
    reduction: Reduction
    y: IntArray
    n_classes: int
    held: Array | None

    @classmethod
    def of(
        cls,
        source: LatentSource,
        y: IntArray,
        n_classes: int,
        *,
        rng: np.random.Generator,
        config: DiscoveryConfig = DEFAULT_CONFIG,
    ) -> Coordinates:
        """The coordinates of latents; as many rows are held as discovery holds.

        Args:
            source: the latents.
            y: classes `(n,)` in `0..n_classes-1`.
            n_classes: `K`.
            rng: source of the rows that components are computed from.
            config: how many rows are held, and how many components there are.

        Example:
            >>> from aifs_peft.discovery.streaming.arrays import ArrayLatents
            >>> rng = np.random.default_rng(0)
            >>> latents = ArrayLatents(rng.normal(size=(300, 4)))
            >>> Coordinates.of(latents, np.arange(300) % 2, 2, rng=rng).width
            4
        """
        reduction = reduce_source(source, rng=rng, config=config.reduction)
        held = reduced(source, reduction) if len(source) <= config.inputs.held_rows else None
        return cls(source, reduction, y, n_classes, held)

    @property
    def width(self) -> int:
        """Number of components `k`."""
        return self.reduction.dim

    def moments(self, k: int) -> ClassMoments:
        """Means of the classes and the covariance within them, of the first `k` components."""
        if self.held is not None:
            return ClassMoments.of(self.held[:, :k], self.y, self.n_classes)
        return self._moments.leading(k)

    @cached_property
    def _moments(self) -> ClassMoments:
        """Of all components, in one pass for all who ask."""
        return ClassMoments.streamed(self._blocks(), self.y, self.n_classes)

    def products(self, readers: Array) -> Array:
        """Products of every row's first `k` coordinates with `readers (k, m)`, `(n, m)` float64; one pass."""
        out = np.empty((len(self.y), readers.shape[1]))
        for part, block in self._blocks():
            out[part] = block[:, : len(readers)].astype(np.float64) @ readers
        return out

    def rows(self, index: IntArray) -> Array:
        """The coordinates of some rows, by their rising numbers, `(m, k)`."""
        return self.held[index] if self.held is not None else reduced(self.source, self.reduction, index)

    def sample(self, rng: np.random.Generator, config: DiscoveryConfig = DEFAULT_CONFIG) -> IntArray:
        """Rising numbers of all rows that are held; of more rows, those of a random sample of that many.

        Args:
            rng: source of the sample; nothing is drawn where all rows are held.
            config: how many rows are held.
        """
        n = len(self.y)
        return np.arange(n) if self.held is not None else np.sort(rng.permutation(n)[: config.inputs.held_rows])

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        return ((part, self.reduction.transform(block)) for part, block in self.source.blocks())

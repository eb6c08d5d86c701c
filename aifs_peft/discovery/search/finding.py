"""What a search without hints gives, before it is told in the coordinates of the user's latents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.mixture.em import Mixture
from aifs_peft.discovery.reduced import ReducedLatents, leading
from aifs_peft.discovery.result import Candidate


@dataclass(frozen=True)
class Partition:
    """A refined partition of the rows it was fitted on, and the mixture that assigns further rows.

    Args:
        record: What the gate saw.
        responsibilities: Of those rows, shape `(n, K)`.
        mixture: The mixture's parameters for them.
        close: Whether it passes every line of the gate but that it is not clearly stronger than the class.
    """

    record: Candidate
    responsibilities: Array
    mixture: Mixture
    close: bool = False

    def assign(self, X: ReducedLatents, y: IntArray, rows: IntArray) -> Array:
        """Responsibilities of all rows.

        Args:
            X: Reduced latents, shape `(n, k)`.
            y: Labels, shape `(n,)`.
            rows: Rows that the partition was fitted on: their responsibilities stay as they are.

        Returns:
            Shape `(n, K)`, float32.
        """
        R = self.mixture.responsibilities(leading(X, self.record.k), y).astype(np.float32, copy=False)
        R[rows] = self.responsibilities
        return R

    def over(self, X: Array, y: IntArray) -> Partition:
        """The same partition of other rows, as its mixture assigns them.

        Args:
            X: Their reduced latents, shape `(m, k)`.
            y: Their labels, shape `(m,)`.
        """
        R = self.mixture.responsibilities(leading(X, self.record.k), y)
        return replace(self, responsibilities=R.astype(np.float32, copy=False))


@dataclass(frozen=True)
class Finding:
    """One attribute, or the statement that none was found.

    Args:
        responsibilities: Of all rows, shape `(n, K)`, or `None`.
        record: The candidate that was taken, or `None`.
        evidence: How far it lies above its gate.
        tried: All candidates.
        why: Why nothing was found.
        rough: Whether no mixture confirms the partition, see `Discovery.rough_`.
        rivals: Other partitions that may be one of several shortcuts.
    """

    responsibilities: Array | None = None
    record: Candidate | None = None
    evidence: float = 0.0
    tried: list[Candidate] = field(default_factory=list)
    why: str = ""
    rough: bool = False
    rivals: tuple[Partition, ...] = ()

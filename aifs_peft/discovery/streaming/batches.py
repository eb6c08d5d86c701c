"""Latents that come in batches with their labels, from anything that can be gone through again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import Array
from aifs_peft.discovery.inputs import unusable_rows
from aifs_peft.discovery.streaming.source import LatentSource, as_block, full_blocks
from aifs_peft.errors import InvalidInputError


class LatentBatches(LatentSource):
    """Latents and labels from batches `(Z, y)`, of which one at a time is held.

    The first pass, made here, counts the rows and keeps the labels; every later one must give the same rows in the same
    order, which their labels are compared for.

    Args:
        batches: Batches `(Z, y)` with `Z (b, d)` and `y (b,)`, arrays or tensors, of any size `b`: an iterable that
            starts anew each time it is gone through (a list, a `DataLoader` without `shuffle`), or a function without
            arguments that returns an iterator.

    Attributes:
        labels: Of all rows, shape `(n,)`.

    Raises:
        InvalidInputError: For a generator, which can be gone through only once; and for batches that are no pairs, of
            another width than the first, or empty.

    Example:
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> batches = LatentBatches(lambda: ((Z[i : i + 64], y[i : i + 64]) for i in range(0, 1000, 64)))
        >>> found = discover(batches, batches.labels, random_state=0)
        >>> bool(np.all(found.groups_ == discover(Z, y, random_state=0).groups_))
        True
    """

    labels: NDArray[Any]

    def __init__(self, batches: Iterable[tuple[Any, Any]] | Callable[[], Iterable[tuple[Any, Any]]]) -> None:
        self._make = batches if callable(batches) else batches.__iter__
        if not callable(batches) and iter(batches) is batches:
            raise InvalidInputError(
                f"A {type(batches).__name__} was given, which can be gone through only once; batches are gone through "
                "several times, each time from the beginning. Pass the function that makes them, as in "
                "LatentBatches(lambda: make_batches()), or an object whose __iter__ starts anew, such as a DataLoader."
            )
        self.shape, self.dtype = (0, 0), np.dtype(np.float32)
        self.labels = np.empty(0)
        rows, labels, types = 0, [], []
        bad, largest = 0, 0.0
        for Z, y in self._batches():
            if not rows:
                self.shape = (0, Z.shape[1])
            rows += len(Z)
            labels.append(y)
            types.append(Z.dtype)
            unusable, size = unusable_rows([Z])
            bad, largest = bad + unusable, max(largest, size)
        if not rows:
            raise InvalidInputError("The batches hold no rows; needed is at least one batch (Z, y) with rows.")
        self.shape, self.dtype = (rows, self.shape[1]), np.result_type(*set(types))
        self.labels = np.concatenate(labels)
        self._extremes = (bad, largest)

    def extremes(self) -> tuple[int, float]:
        """See `LatentSource`; known from the first pass."""
        return self._extremes

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`."""
        return full_blocks(self._again())

    def _again(self) -> Iterator[tuple[slice, Array]]:
        """The batches of a later pass, which are compared with those of the first."""
        start = 0
        for Z, y in self._batches():
            if not np.array_equal(y, self.labels[start : start + len(y)]):
                raise InvalidInputError(
                    f"The batches gave other labels from row {start} on than in the first pass. Needed are the same "
                    "rows in the same order each time: no shuffling, no random sampling, no rows left out by chance."
                )
            yield slice(start, start + len(Z)), np.asarray(Z, dtype=self.dtype)
            start += len(Z)
        if start != len(self):
            raise InvalidInputError(
                f"The batches gave {start} rows, and {len(self)} in the first pass. Needed are the same rows in the "
                "same order each time: pass a function that makes the batches anew, not one that returns the same "
                "generator."
            )

    def _batches(self) -> Iterator[tuple[Array, NDArray[Any]]]:
        """One pass over the batches, each checked; empty ones are left out."""
        for number, batch in enumerate(self._make()):
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InvalidInputError(
                    f"Batch {number} is a {type(batch).__name__}; needed are pairs (Z, y) of latents (b, d) and labels "
                    "(b,). Of dictionaries, pass the two as in LatentBatches(lambda: ((b['latents'], b['label']) for b "
                    "in batches))."
                )
            Z, y = as_block(batch[0]), np.asarray(to_numpy(batch[1]))
            width = self.shape[1] or (Z.shape[1] if Z.ndim == 2 else 0)
            if Z.ndim != 2 or y.shape != (len(Z),) or Z.dtype.kind != "f" or Z.shape[1] != width or not width:
                wanted = f"({len(Z)}, {self.shape[1]})" if self.shape[1] else "(b, d)"
                raise InvalidInputError(
                    f"Batch {number} holds latents of shape {Z.shape} and labels of shape {y.shape}; needed are "
                    f"{wanted} numbers and one label for each row."
                )
            if len(Z):
                yield Z, y

"""The pool: unlabelled latents in the coordinates of the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.inputs import as_latents
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.columns import is_column
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import LatentSource, check_finite
from aifs_peft.errors import InvalidInputError

UNLABELLED = "hint:unlabelled"


@dataclass(frozen=True)
class Pool:
    """Unlabelled examples, as a claim that an attribute goes with the label less often there.

    Args:
        X: Their latents in reduced coordinates, shape `(m, k)`.
        source: Its name among the candidates.
    """

    X: Array
    source: str = UNLABELLED

    def within(self, old: Reduction, new: Reduction) -> Pool:
        """The same examples in the coordinates of another reduction of the same latents.

        Args:
            old: Reduction in whose coordinates they are given.
            new: Reduction in whose coordinates they are wanted.
        """
        turned = old.components @ new.components.T
        moved = (self.X * old.scale) @ turned + (old.mean - new.mean) @ new.components.T
        return Pool(np.asarray(moved / new.scale, dtype=np.float32), self.source)


def as_pool(unlabelled: Any, reduction: Reduction, *, config: DiscoveryConfig) -> Pool:
    """Unlabelled latents, checked and reduced.

    Args:
        unlabelled: Latents, shape `(m, d)`, NumPy, torch, or a source that is read in blocks.
        reduction: Of the training set, whose latents have width `d`.
        config: Fewest rows, and most that are looked at.

    Raises:
        InvalidInputError: For another shape or width, NaN or infinite values, or fewer rows than are needed.

    Example:
        >>> from aifs_peft.discovery.principal_components import principal_components
        >>> rng = np.random.default_rng(0); Z = rng.normal(size=(200, 4))
        >>> pool = as_pool(Z[:60], principal_components(Z, 3, rng=rng), config=DiscoveryConfig())
        >>> pool.X.shape
        (60, 3)
    """
    try:
        latents = as_latents(_rows_of(unlabelled, config.inputs.fit_rows))
    except InvalidInputError as error:
        raise InvalidInputError(f"unlabelled: {error}") from error
    width, least = reduction.components.shape[1], config.unlabelled.min_rows
    if latents.shape[1] != width:
        raise InvalidInputError(
            f"unlabelled has shape {latents.shape}; needed are latents of width {width}, those of the same encoder "
            "as the labelled examples. Encode both with one encoder and one way of pooling."
        )
    if len(latents) < least:
        examples = "example" if len(latents) == 1 else "examples"
        raise InvalidInputError(
            f"unlabelled holds {len(latents)} {examples}; at least {least} are needed to see how they differ from the "
            "labelled ones, some hundred are better. Add more, or leave it out."
        )
    if len(latents) > config.inputs.fit_rows:
        # Evenly spaced rows, not a draw: no source of chance is touched by a pool.
        latents = latents[_evenly(len(latents), config.inputs.fit_rows)]
    latents = _distinct(latents, least)
    largest = float(np.max(np.abs(latents.astype(np.float64) - reduction.mean)))
    if largest > config.unlabelled.most_scales * float(reduction.scale[0]):
        raise InvalidInputError(
            f"unlabelled holds values that lie up to {largest:.3g} from the mean of the labelled examples, whose "
            f"largest standard deviation is {float(reduction.scale[0]):.3g}; needed are latents of the same encoder. "
            "Encode and scale both the same way."
        )
    return Pool(reduction.transform(latents))


def _distinct(latents: Array, least: int) -> Array:
    """Equal rows once, in the order given: a row that is there five times tells no more than once.

    Fewer than `least` would say nothing at all; then all stay, and the gate refuses them.
    """
    _, first = np.unique(latents, axis=0, return_index=True)
    return latents if len(first) == len(latents) or len(first) < least else latents[np.sort(first)]


def _evenly(m: int, most: int) -> IntArray:
    return np.linspace(0, m - 1, most).astype(np.int64)


def _rows_of(unlabelled: Any, most: int) -> Any:
    """Of a source that is read in blocks the rows that are looked at, once all were seen to be finite."""
    if not (isinstance(unlabelled, LatentSource) or is_column(unlabelled)):
        return unlabelled
    source = as_source(unlabelled)
    check_finite(source)
    return source.take(np.arange(len(source)) if len(source) <= most else _evenly(len(source), most))

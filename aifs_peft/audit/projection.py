"""Two axes to look at latents along: one of the class, one of the attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.audit.within import WithinClasses
from aifs_peft.discovery import Discovery

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

MAX_POINTS = 3000
ROWS_PER_COMPONENT = 5


def axes(coordinates: Coordinates, discovery: Discovery) -> Array:
    """Coordinates of every example along class and attribute, `(n, 2)`, mean 0, in standard deviations within groups.

    Each axis is the leading discriminant of the offsets that were found. Where nothing was found, the first is the
    leading discriminant of the classes, and the second the first principal component within them.

    Args:
        coordinates: of the latents.
        discovery: what was found.

    Example:
        >>> from aifs_peft.discovery import discover
        >>> from aifs_peft.discovery.streaming.arrays import ArrayLatents
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 400); Z = rng.normal(size=(400, 4)); Z[:, 0] += 6 * y
        >>> along = axes(Coordinates.of(ArrayLatents(Z), y, 2, rng=rng), discover(Z, y, random_state=0))
        >>> bool(abs(np.corrcoef(along[:, 0], y)[0, 1]) > 0.9)
        True
    """
    y, reduction = coordinates.y, coordinates.reduction
    k = max(2, min(coordinates.width, len(y) // ROWS_PER_COMPONENT))
    within = WithinClasses.of(coordinates.moments(k))
    if discovery.found:
        offsets = (discovery.class_displacements_, discovery.displacements_)
        white = [within.white(_centred(reduction.project(part)[:, :k])) for part in offsets]
        along = _along(coordinates, within, k, np.stack([_leading(part) for part in white]))
    else:
        along = _along(coordinates, within, k, _leading(within.means)[None], first=True)
        along[:, 1] -= within.centres[y, 0]
    cell = np.unique(y * discovery.responsibilities_.shape[1] + discovery.groups_, return_inverse=True)[1]
    counts = np.bincount(cell)
    means = np.stack([np.bincount(cell, column) for column in along.T], axis=1) / counts[:, None]
    spread = np.sqrt(np.mean((along - means[cell]) ** 2, axis=0))
    return np.asarray((along - along.mean(axis=0)) / np.maximum(spread, 1e-12))


def _along(coordinates: Coordinates, within: WithinClasses, k: int, directions: Array, *, first: bool = False) -> Array:
    """Every row along unit directions `(m, k)` of the white coordinates, and with `first` its first coordinate."""
    X = coordinates.held
    if X is None:
        readers = within.reading(directions)
        return coordinates.products(np.hstack([readers, np.eye(len(readers), 1)]) if first else readers)
    places = within.white(X[:, :k])
    columns = [places @ direction for direction in directions]
    return np.stack([*columns, *([X[:, 0].astype(np.float64)] if first else [])], axis=1)


def _centred(offsets: Array) -> Array:
    return np.asarray(offsets - offsets.mean(axis=0))


def _leading(offsets: Array) -> Array:
    """Unit direction `(k,)` along which offsets `(m, k)` differ most, pointing from the first to the last of them."""
    direction = np.linalg.svd(offsets, full_matrices=False)[2][0]
    sign = float((offsets[-1] - offsets[0]) @ direction)
    return np.asarray(direction if sign >= 0 else -direction)


def projection_frame(
    along: Array,
    conflicting: NDArray[np.bool_],
    label_names: Sequence[Any],
    inferred_names: Sequence[Any],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Points to plot: at most 3,000, of which conflicting examples are at most half.

    Args:
        along: see `axes`, `(n, 2)`.
        conflicting: `(n,)`.
        label_names: label of each example, `(n,)`.
        inferred_names: name of the inferred value of each, `(n,)`.
        rng: chooses the points.

    Returns:
        `row`, `class_axis`, `attribute_axis`, `label`, `inferred`, by row.
    """
    rows = np.arange(len(along))
    if len(rows) > MAX_POINTS:
        few = rng.permutation(np.flatnonzero(conflicting))[: MAX_POINTS // 2]
        rest = rng.permutation(np.flatnonzero(~conflicting))[: MAX_POINTS - len(few)]
        rows = np.sort(np.concatenate([few, rest]))
    return pd.DataFrame(
        {
            "row": rows,
            "class_axis": along[rows, 0],
            "attribute_axis": along[rows, 1],
            "label": [label_names[i] for i in rows.tolist()],
            "inferred": [inferred_names[i] for i in rows.tolist()],
        }
    )

"""What discovery needs of its input, and the errors that say so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.errors import InvalidInputError

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

MIN_PER_CLASS = 5
MIN_ROWS = 50


def as_latents(Z: Any) -> Array:
    """`Z` as a two-dimensional floating array, `(n, d)`, without a copy where it already is one.

    Torch tensors on any device, and float16/32/64 or integer arrays are accepted; float16 stays float16
    (rows are converted in chunks later, so that memory does not triple).

    Raises:
        InvalidInputError: When it is not two-dimensional and numeric, is empty, or holds NaN or infinite
        values.
    """
    Z = np.asarray(to_numpy(Z))
    if Z.ndim != 2 or Z.shape[0] == 0 or Z.shape[1] == 0:
        raise InvalidInputError(
            f"Latents of shape {Z.shape} were given; needed is (n, d) with n, d >= 1. "
            "Pool the encoder's output to one vector per example."
        )
    if Z.dtype.kind not in "fiub":
        raise InvalidInputError(f"Latents of dtype {Z.dtype} were given; needed is a real number type. Convert them.")
    if Z.dtype.kind != "f":
        Z = Z.astype(np.float32)
    bad = sum(int(np.count_nonzero(~np.isfinite(Z[i : i + 8192]).all(axis=1))) for i in range(0, len(Z), 8192))
    if bad:
        raise InvalidInputError(
            f"{bad} of {len(Z)} rows of Z hold NaN or infinite values; all must be finite. "
            "Look at the encoder's precision (float16 overflows above 65504), or leave those rows out."
        )
    latents: Array = Z
    return latents


def encode_labels(y: ArrayLike, n: int) -> tuple[NDArray[Any], IntArray]:
    """Distinct labels `(K,)` and each example's index among them `(n,)`.

    Raises:
        InvalidInputError: When the labels are not one per latent, or all the same.
    """
    labels = np.asarray(to_numpy(y))
    if labels.shape != (n,):
        raise InvalidInputError(f"Labels of shape {labels.shape} were given for {n} latents; needed is ({n},).")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InvalidInputError(
            "Labels hold NaN or infinite values; every example needs a class. Leave those rows out."
        )
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InvalidInputError(
            f"All {n} labels are {classes[0]!r}: one class was given, at least two are needed to look for a shortcut."
        )
    return classes, index.astype(np.int64)

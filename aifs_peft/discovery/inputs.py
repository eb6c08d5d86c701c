"""What discovery needs of its input, and the errors that say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import Array, IntArray, row_chunks
from aifs_peft.discovery.config import LARGEST_LATENT, InputConfig
from aifs_peft.errors import InvalidInputError


def as_latents(Z: Any) -> Array:
    """`Z` as a two-dimensional floating array, `(n, d)`, without a copy where it already is one.

    Torch tensors on any device, and float16/32/64 or integer arrays are accepted; float16 stays float16
    (rows are converted in chunks later, so that memory does not triple).

    Raises:
        InvalidInputError: When it is not two-dimensional and numeric, is empty, or holds NaN or infinite
            values.
    """
    given = type(Z).__name__
    try:
        Z = np.asarray(to_numpy(Z))
    except (ValueError, OverflowError) as error:  # a ragged list
        raise InvalidInputError(f"Latents that make no array were given ({error}); needed is (n, d).") from error
    if Z.ndim == 0:
        raise InvalidInputError(
            f"A {given} was given as latents; needed is an array of numbers (n, d). Load or take the array out of it; "
            "of a sparse matrix give toarray()."
        )
    if Z.ndim != 2 or Z.shape[0] == 0 or Z.shape[1] == 0:
        raise InvalidInputError(
            f"Latents of shape {Z.shape} were given; needed is (n, d) with n, d >= 1. "
            "Pool the encoder's output to one vector per example."
        )
    if Z.dtype.kind not in "fiub":
        raise InvalidInputError(f"Latents of dtype {Z.dtype} were given; needed is a real number type. Convert them.")
    if Z.dtype.kind != "f":
        Z = Z.astype(np.float32)
    bad, largest = unusable_rows(Z[chunk] for chunk in row_chunks(len(Z)))
    refuse_unusable(bad, len(Z), largest)
    latents: Array = Z
    return latents


def unusable_rows(blocks: Iterable[Array]) -> tuple[int, float]:
    """In how many rows values are NaN or infinite, and the largest absolute value of the blocks without such rows.

    Example:
        >>> unusable_rows([np.array([[1.0, -3.0]]), np.array([[1.0, np.nan], [0.0, 9.0]])])
        (1, 3.0)
    """
    bad, largest = 0, 0.0
    for block in blocks:
        size = _largest_size(block)
        if np.isfinite(size):
            largest = max(largest, size)
        else:
            bad += int(np.count_nonzero(~np.isfinite(block).all(axis=1)))
    return bad, largest


def _largest_size(block: Array) -> float:
    """The largest absolute value of a block; NaN or infinite where one of its values is."""
    if block.size == 0:
        return 0.0
    if block.dtype == np.float16 and block.flags.c_contiguous:
        # Without the sign, bits of half precision are ordered as the values are; ten times as fast as comparing them.
        bits = block.view(np.uint16) & np.uint16(0x7FFF)
        return float(np.uint16(bits.max()).view(np.float16))
    return float(np.maximum(np.max(block), -np.min(block)))


def refuse_unusable(bad: int, n: int, largest: float) -> None:
    """Raise where latents cannot be worked with.

    Args:
        bad: Rows with NaN or infinite values.
        n: Number of rows.
        largest: Largest absolute value of the others.

    Raises:
        InvalidInputError: Saying what is wrong.
    """
    if bad:
        raise InvalidInputError(
            f"{bad} of {n} rows of Z hold NaN or infinite values; all must be finite. "
            "Look at the encoder's precision (float16 overflows above 65504), or leave those rows out."
        )
    if largest > LARGEST_LATENT:
        raise InvalidInputError(
            f"Z holds values up to {largest:.3g}, whose squares and sums are beyond what floating point holds; needed "
            f"are values up to {LARGEST_LATENT:g}. Divide the latents by their standard deviation."
        )


def encode_labels(y: ArrayLike, n: int) -> tuple[NDArray[Any], IntArray]:
    """Distinct labels, and each example's index among them.

    Args:
        y: Labels, shape `(n,)`: integers or strings, an array, a list or a torch tensor.
        n: Number of latents.

    Returns:
        Labels `(K,)`, sorted, and indices `(n,)` in `0..K-1`.

    Raises:
        InvalidInputError: When the labels are not one per latent, hold NaN, or are all the same.

    Example:
        >>> classes, index = encode_labels(["cat", "ant", "cat"], 3)
        >>> classes.tolist(), index.tolist()
        (['ant', 'cat'], [1, 0, 1])
    """
    try:
        labels = np.asarray(to_numpy(y))
    except (ValueError, OverflowError) as error:  # a ragged list
        raise InvalidInputError(f"Labels that make no array were given ({error}); needed is one per latent.") from error
    if labels.shape != (n,):
        raise InvalidInputError(f"Labels of shape {labels.shape} were given for {n} latents; needed is ({n},).")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InvalidInputError(
            "Labels hold NaN or infinite values; every example needs a class. Leave those rows out."
        )
    try:
        classes, index = np.unique(labels, return_inverse=True)
    except TypeError as error:  # values that cannot be sorted: None, or texts beside numbers
        kinds = ", ".join(sorted({type(label).__name__ for label in labels.tolist()}))
        raise InvalidInputError(f"Labels of the types {kinds} were given; give one, such as str.") from error
    if len(classes) < 2:
        raise InvalidInputError(
            f"All {n} labels are {classes[0]!r}: one class was given, at least two are needed to look for a shortcut."
        )
    return classes, index.astype(np.int64)


def too_few(y: IntArray, config: InputConfig) -> str:
    """Why the examples are too few to tell a minority from chance, or an empty text.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        config: How many are enough.

    Example:
        >>> too_few(np.array([0, 1] * 10), InputConfig())
        'too few examples to tell: 20 in all (needs 50), smallest class 10 (needs 5)'
    """
    smallest = int(np.bincount(y).min())
    if len(y) >= config.min_rows and smallest >= config.min_per_class:
        return ""
    return (
        f"too few examples to tell: {len(y)} in all (needs {config.min_rows}), "
        f"smallest class {smallest} (needs {config.min_per_class})"
    )


def fit_rows(y: IntArray, config: InputConfig, rng: np.random.Generator) -> IntArray:
    """Rows that candidates are fitted on: all, or a random sample that keeps some of each class.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        config: Size of the sample, and rows that a rare class keeps in it.
        rng: Source of the sample.

    Returns:
        Row numbers, rising.

    Example:
        >>> small = InputConfig(fit_rows=20, fit_rows_per_class=5)
        >>> len(fit_rows(np.array([0, 1] * 50), small, np.random.default_rng(0)))
        20
    """
    if len(y) <= config.fit_rows:
        return np.arange(len(y))
    chosen = rng.permutation(len(y))[: config.fit_rows]
    rare = np.flatnonzero(np.bincount(y[chosen], minlength=y.max() + 1) < config.fit_rows_per_class)
    missing = [np.flatnonzero(y == c)[: config.fit_rows_per_class] for c in rare]
    return np.unique(np.concatenate([chosen, *missing]))


def even_rows(y: IntArray, rows: IntArray, config: InputConfig, rng: np.random.Generator) -> IntArray:
    """Rows that two classes are searched in: as many of each where one is clearly rarer than the other.

    The gate was calibrated on classes of about equal size. Of 24 draws of dominoes at 1:4 and 1:9 whose digit does not
    go with the class, 20 raised an alarm; among as many examples of each class one did.

    Args:
        y: Labels 0 and 1, shape `(n,)`.
        rows: Rows of any class.
        config: Size of the sample, and what is clearly rarer.
        rng: Source of the sample, not used where `rows` are returned as they are.

    Returns:
        Row numbers, rising.

    Example:
        >>> y = (np.arange(100) < 80).astype(int); even = even_rows(
        ...     y, np.arange(100), InputConfig(), np.random.default_rng(0)
        ... )
        >>> np.bincount(y[even]).tolist()
        [20, 20]
    """
    # Of all examples, since a sample may hold few of a rare class.
    rare, frequent = sorted(np.bincount(y, minlength=2).tolist())
    if frequent <= config.unequal * rare:
        return rows
    size = min(rare, config.fit_rows // 2)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == c))[:size] for c in (0, 1)]))

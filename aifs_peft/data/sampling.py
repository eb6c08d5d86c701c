"""Exact shares: attributes and label noise drawn so that the measured share is the requested one.

Independent coin flips would give a share that wanders by `sqrt(p (1 - p) / n)`; here the number of flips is
fixed, spread over the classes by largest remainders, and only *which* examples flip is random.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError


def check_share(name: str, value: float) -> float:
    """Return `value` as a float if it lies in [0, 1].

    Raises:
        InvalidInputError: it does not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise InvalidInputError(f"{name} must be a share in [0, 1]; got {value}")
    return float(value)


def check_cut(validation: float, test: float) -> None:
    """Check the shares of validation and test.

    Raises:
        InvalidInputError: one is not positive, or together they leave nothing to train on.
    """
    check_share("validation_share", validation)
    check_share("test_share", test)
    if validation <= 0 or test <= 0 or validation + test >= 1:
        raise InvalidInputError(
            f"validation_share and test_share must be positive and leave rows to train on; got {validation}, {test}"
        )


def stratified_cut(
    strata: NDArray[np.int64], validation: float, test: float, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Cut rows into train, validation and test, in the same shares within every stratum.

    Args:
        strata: stratum index (class, cell, ...) per row, shape `(n,)`.
        validation: share of validation, in (0, 1).
        test: share of the test, in (0, 1).
        rng: decides which rows of a stratum go where.

    Returns:
        Row numbers of `train`, `validation` and `test`, sorted.

    Raises:
        InvalidInputError: shares out of range, or that leave nothing to train on.

    Example:
        >>> parts = stratified_cut(np.array([0] * 80 + [1] * 20), 0.1, 0.2, np.random.default_rng(0))
        >>> {split: int((rows >= 80).sum()) for split, rows in parts.items()}
        {'train': 14, 'validation': 2, 'test': 4}
    """
    check_cut(validation, test)
    parts: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for value in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == value))
        first, second = round(len(rows) * test), round(len(rows) * (test + validation))
        for split, part in zip(("test", "validation", "train"), np.split(rows, [first, second]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(pieces)) for split, pieces in parts.items()}


def check_count(name: str, value: int | None, available: int) -> int:
    """Return how many examples to use: `value`, or all `available` ones for `None`.

    Raises:
        InvalidInputError: more are asked for than there are, or fewer than one.
    """
    if value is None:
        return available
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= value <= available:
        raise InvalidInputError(f"{name} must lie in 1..{available} (what the source offers); got {value}")
    return int(value)


def exact_flips(strata: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose exactly `round(share * n)` examples, in proportion to the strata.

    Args:
        strata: stratum index (class, environment, ...) per example, shape `(n,)`, values from 0.
        share: share to choose, in [0, 1].
        rng: generator that decides which examples of a stratum are chosen.

    Returns:
        Boolean, shape `(n,)`. The share is within `0.5 / n` of the request, in a stratum within `1 / n_s`.

    Example:
        >>> chosen = exact_flips(np.array([0] * 60 + [1] * 40), 0.05, np.random.default_rng(0))
        >>> int(chosen[:60].sum()), int(chosen[60:].sum())
        (3, 2)
    """
    check_share("share", share)
    counts = np.bincount(strata)
    quota = share * counts
    take = np.floor(quota + 1e-9).astype(np.int64)
    missing = round(share * len(strata)) - int(take.sum())
    order = np.argsort(-(quota - take), kind="stable")
    order = order[take[order] < counts[order]]
    take[order[:missing]] += 1
    chosen = np.zeros(len(strata), dtype=bool)
    for stratum, number in enumerate(take):
        chosen[rng.permutation(np.flatnonzero(strata == stratum))[:number]] = True
    return chosen


def aligned_attribute(
    labels: NDArray[np.int64], share: float, num_values: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw an attribute that equals the label for exactly a given share of the examples.

    The rest of each class is spread evenly over the other values, so `1 / num_values` is independence.

    Args:
        labels: class indices `(n,)`, values in `0..num_values - 1`.
        share: aligned share, in [0, 1].
        num_values: number of attribute values (at least 2), the number of classes.
        rng: generator.

    Returns:
        Attribute values, int64, shape `(n,)`.

    Example:
        >>> y = np.repeat(np.arange(2), 50)
        >>> a = aligned_attribute(y, 0.9, 2, np.random.default_rng(0))
        >>> float((a == y).mean())
        0.9
    """
    if num_values < 2 or (labels.size and labels.max() >= num_values):
        raise InvalidInputError(
            f"an aligned attribute needs as many values as classes, at least 2; got {num_values} values "
            f"for labels up to {labels.max() if labels.size else 'none'}"
        )
    values = labels.astype(np.int64).copy()
    conflicting = exact_flips(labels, 1.0 - share, rng)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(conflicting & (labels == label)))
        shift = (np.arange(len(rows)) + rng.integers(num_values - 1)) % (num_values - 1) + 1
        values[rows] = (label + shift) % num_values
    return values


def noisy_labels(
    labels: NDArray[np.int64], share: float, num_classes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Replace exactly a given share of the labels, in every class, by another class.

    Args:
        labels: clean class indices `(n,)`.
        share: share of wrong labels, in [0, 1].
        num_classes: number of classes.
        rng: generator.

    Returns:
        Labels, int64, shape `(n,)`, that differ from the clean ones for `round(share * n)` examples.
    """
    return aligned_attribute(labels, 1.0 - check_share("label_noise", share), num_classes, rng)


def subsample(
    rows: NDArray[np.int64], follows: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Drop the fewest rows so that a share of the rest follows the label.

    Args:
        rows: row numbers to choose from.
        follows: boolean over the whole table: the attribute index equals the label.
        share: wanted share, in [0, 1].
        rng: decides which rows are dropped.

    Returns:
        The kept row numbers, in their order; the share holds up to one row.

    Example:
        >>> follows = np.arange(100) < 40
        >>> kept = subsample(np.arange(100), follows, 0.8, np.random.default_rng(0))
        >>> len(kept), float(follows[kept].mean())
        (50, 0.8)
    """
    yes, no = rng.permutation(rows[follows[rows]]), rng.permutation(rows[~follows[rows]])
    # The largest total whose two parts are both available.
    total = min(len(yes) / share if share > 0 else np.inf, len(no) / (1 - share) if share < 1 else np.inf)
    take_yes, take_no = min(len(yes), round(total * share)), min(len(no), round(total * (1 - share)))
    if take_yes + take_no == 0:
        raise InvalidInputError(f"no row is left at an aligned share of {share}")
    return np.sort(np.concatenate([yes[:take_yes], no[:take_no]]))

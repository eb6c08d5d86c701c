"""Several attributes as one: its values are the combinations of theirs.

Of `m` attributes with one value per class, the joint attribute has `K**m` values. The first `K` are those where every
attribute takes the value of the same class, so that the joint value equals the label where an example is aligned in
all of them; the others follow in lexicographic order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DEFAULT_CONFIG, SeveralConfig


def most_attributes(n_classes: int, config: SeveralConfig = DEFAULT_CONFIG.several) -> int:
    """How many attributes a joint one can hold; at least one.

    Args:
        n_classes: `K`.
        config: Its `max_joint_values` bounds `K**m`.

    Example:
        >>> most_attributes(2), most_attributes(10), most_attributes(100)
        (8, 2, 1)
    """
    count = 1
    while 1 < n_classes ** (count + 1) <= config.max_joint_values:
        count += 1
    return count


def count_attributes(n_values: int, n_classes: int) -> int:
    """The `m` of `n_values = n_classes**m`.

    Args:
        n_values: Number of joint values.
        n_classes: `K`.

    Example:
        >>> count_attributes(10, 10), count_attributes(8, 2)
        (1, 3)
    """
    count = 1
    while n_classes**count < n_values:
        count += 1
    return count


@lru_cache(maxsize=8)
def joint_values(n_classes: int, n_attributes: int) -> IntArray:
    """The value of each attribute in each joint value, `(K**m, m)`; read-only.

    Args:
        n_classes: `K`.
        n_attributes: `m`.

    Example:
        >>> joint_values(2, 2).tolist()
        [[0, 0], [1, 1], [0, 1], [1, 0]]
    """
    aligned = [(value,) * n_attributes for value in range(n_classes)]
    rest = [v for v in product(range(n_classes), repeat=n_attributes) if len(set(v)) > 1]
    table = np.array(aligned + rest, dtype=np.int64)
    table.flags.writeable = False
    return table


def combine(values: IntArray, n_classes: int) -> IntArray:
    """Joint value of each row: the row of `joint_values` that it equals.

    Args:
        values: One value per attribute, shape `(n, m)`.
        n_classes: `K`.

    Returns:
        Shape `(n,)`.

    Example:
        >>> combine(np.array([[1, 1], [1, 0], [0, 0]]), 2).tolist()
        [1, 3, 0]
    """
    powers = n_classes ** np.arange(values.shape[1])
    table = joint_values(n_classes, values.shape[1])
    place = np.empty(len(table), dtype=np.int64)
    place[table @ powers] = np.arange(len(table))
    return np.asarray(place[values @ powers])


def values_of_classes(classes: IntArray, n_attributes: int, n_classes: int) -> IntArray:
    """Joint values that count some of the classes, as those that count all of them.

    Args:
        classes: Those that occur, sorted, among `0..n_classes-1`; shape `(c,)`.
        n_attributes: `m`.
        n_classes: `K`.

    Returns:
        Shape `(c**m,)`.

    Example:
        >>> values_of_classes(np.array([0, 2]), 1, 3).tolist(), values_of_classes(np.array([0, 2]), 2, 3).tolist()
        ([0, 2], [0, 2, 4, 7])
    """
    return combine(classes[joint_values(len(classes), n_attributes)], n_classes)


def joint_responsibilities(parts: Sequence[Array]) -> Array:
    """Posterior of the joint attribute, `(n, K**m)`, from that of each, `(n, K)`, independent given the latent.

    Example:
        >>> joint_responsibilities([np.array([[0.9, 0.1]]), np.array([[0.0, 1.0]])]).tolist()
        [[0.0, 0.1, 0.9, 0.0]]
    """
    table = joint_values(parts[0].shape[1], len(parts))
    out = parts[0][:, table[:, 0]].copy()
    for part, column in zip(parts[1:], table.T[1:], strict=True):
        out *= part[:, column]
    return out


def marginals(R: Array, n_classes: int) -> Array:
    """Posterior of each attribute from that of the joint one.

    Args:
        R: Posterior of the joint attribute, shape `(n, K**m)`.
        n_classes: `K`.

    Returns:
        Shape `(n, m, K)`.

    Example:
        >>> marginals(np.array([[0.0, 0.1, 0.9, 0.0]]), 2).tolist()
        [[[0.9, 0.1], [0.0, 1.0]]]
    """
    table = joint_values(n_classes, count_attributes(R.shape[1], n_classes))
    onehot = np.eye(n_classes, dtype=R.dtype)
    return np.stack([R @ onehot[column] for column in table.T], axis=1)


def joint_offsets(offsets: Array) -> Array:
    """Offset of each joint value, `(K**m, k)`: the sum of those of its attributes, `(m, K, k)`.

    Example:
        >>> joint_offsets(np.array([[[0.0], [1.0]], [[0.0], [10.0]]])).ravel().tolist()
        [0.0, 11.0, 10.0, 1.0]
    """
    m, K, _ = offsets.shape
    table = joint_values(K, m)
    return np.asarray(np.sum([part[column] for part, column in zip(offsets, table.T, strict=True)], axis=0))


def conflicts(values: IntArray, y: IntArray) -> IntArray:
    """Which attributes conflict with the label, as one number per example in `[0, 2**m)`; 0 where none.

    Args:
        values: One value per attribute, shape `(n, m)`.
        y: Labels, shape `(n,)`.

    Returns:
        Shape `(n,)`.

    Example:
        >>> conflicts(np.array([[0, 0], [1, 0], [1, 1]]), np.array([0, 0, 0])).tolist()
        [0, 1, 3]
    """
    return np.asarray((values != y[:, None]) @ (2 ** np.arange(values.shape[1])))

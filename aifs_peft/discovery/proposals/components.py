"""Proposals from leading components: an attribute of large variance splits a component in two.

Held-out margins find a minority; where an attribute goes with the label only a little more often than not, there is
none.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import GateThresholds
from aifs_peft.discovery.gate import association, association_noise


def cut_components(X: Array, y: IntArray, n_components: int, gate: GateThresholds) -> list[IntArray]:
    """Two-valued attributes from the signs of the leading components, where they go with the label beyond chance.

    Args:
        X: Reduced latents, shape `(n, k)`, mean zero.
        y: Labels 0 and 1, shape `(n,)`.
        n_components: Number of components to cut.
        gate: Its `association_errors` say what is beyond chance.

    Returns:
        Attribute values `(n,)`, numbered so that most examples have their label's: one array per component kept.

    Example:
        >>> y = np.arange(400) % 2; a = np.where(np.arange(400) < 100, 1 - y, y)
        >>> found = cut_components((2.0 * a - 1.0)[:, None], y, 1, GateThresholds())
        >>> len(found), bool((found[0] == a).all())
        (1, True)
    """
    chance = association_noise(y, gate)
    found = []
    for column in X[:, :n_components].T:
        above = (column > 0).astype(np.int64)
        attribute = above if np.mean(above == y) > 0.5 else 1 - above
        if association(attribute, y, 2) > chance:
            found.append(attribute)
    return found

"""All proposals for more than two classes."""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.proposals.margins import held_out_margins, propose
from aifs_peft.discovery.proposals.skewed_pairs import skewed_pairs
from aifs_peft.discovery.proposals.starts import Start
from aifs_peft.discovery.proposals.trimmed import trimmed_discriminant


def propose_many(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> list[Start]:
    """Trimmed discriminants and held-out margins at several numbers of components.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: Where proposals are made (`many_classes`, `proposals`).

    Returns:
        Starts, each with at least one conflicting example.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.9, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 12)); X[:, :3] += 6 * np.eye(3)[a]; X[:, 3:6] += 2 * np.eye(3)[y]
        >>> starts = propose_many(X - X.mean(axis=0), y, 3, rng=rng, config=DiscoveryConfig())
        >>> len(starts), bool(max(np.mean(start.attribute == a) for start in starts) > 0.95)
        (4, True)
    """
    own, rows = config.many_classes, config.reduction.rows_per_component
    starts = []
    for k in usable_components(own.start_components, X.shape[1], len(y), rows):
        data = np.ascontiguousarray(X[:, :k])
        for trim in own.start_trims:
            fit = trimmed_discriminant(data, y, n_classes, trim=trim, config=config.proposals)
            starts.append(Start("trimmed", trim, fit.attribute))
        margin, rival = held_out_margins(data, y, n_classes, rng=rng, config=config.proposals)
        starts += [Start("margins", s, propose(margin, rival, y, n_classes, s)) for s in own.margin_shares]
    return [start for start in starts if (start.attribute != y).any()]


def propose_skewed(X: Array, y: IntArray, n_classes: int, *, config: DiscoveryConfig) -> list[Start]:
    """Pairs of classes cut in two where they are skewed, at several numbers of components.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        config: Where they are made (`many_classes`), and how (`proposals`).

    Returns:
        Starts, each with at least one conflicting example.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 12)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 5 * np.eye(3)[y]
        >>> starts = propose_skewed(X - X.mean(axis=0), y, 3, config=DiscoveryConfig())
        >>> len(starts), bool(max(np.mean(start.attribute == a) for start in starts) > 0.95)
        (2, True)
    """
    rows = config.reduction.rows_per_component
    starts = []
    for k in usable_components(config.many_classes.skewed_components, X.shape[1], len(y), rows):
        attribute = skewed_pairs(np.ascontiguousarray(X[:, :k]), y, n_classes, config=config)
        starts.append(Start("skewed pairs", float("nan"), attribute))
    return [start for start in starts if (start.attribute != y).any()]

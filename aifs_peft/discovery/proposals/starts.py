"""All proposals for two classes, those that are alike left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, one_hot
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.gate import jaccard
from aifs_peft.discovery.mixture.em import Moments, fit_mixture
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.proposals.components import cut_components
from aifs_peft.discovery.proposals.margins import held_out_margins, propose
from aifs_peft.discovery.proposals.trimmed import trimmed_discriminant


@dataclass(frozen=True)
class Start:
    """A proposed attribute.

    Args:
        source: What proposed it: `"trimmed"`, `"margins"` or `"component"`.
        share: Share of each class that was left out, proposed or cut off.
        attribute: Attribute value of each example, shape `(n,)`.
    """

    source: str
    share: float
    attribute: IntArray


def propose_starts(X: Array, y: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig) -> list[Start]:
    """Trimmed discriminants, mixtures from held-out margins, and cut components: those that differ from all before.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        rng: Source of the folds.
        config: Where proposals are made (`two_classes`, `proposals`).

    Returns:
        Starts, each with at least one conflicting example.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 8)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> starts = propose_starts(X - X.mean(axis=0), y, rng=rng, config=DiscoveryConfig())
        >>> starts[0].source, bool(np.mean(starts[0].attribute == a) > 0.9)
        ('trimmed', True)
    """
    starts = [*_trimmed(X, y, config), *_margins(X, y, rng, config)]
    cuts = cut_components(X, y, config.two_classes.cut_components, config.gate)
    starts += [Start("component", 0.5, attribute) for attribute in cuts]
    kept: list[Start] = []
    for start in starts:
        moved = start.attribute != y
        alike = (jaccard(moved, other.attribute != y) >= config.two_classes.same_start for other in kept)
        if moved.any() and not any(alike):
            kept.append(start)
    return kept


def _trimmed(X: Array, y: IntArray, config: DiscoveryConfig) -> list[Start]:
    wanted, rows = config.two_classes.trimmed_components, config.reduction.rows_per_component
    starts = []
    for k in sorted({min(c, X.shape[1]) for c in usable_components(wanted, X.shape[1], len(y), rows)}):
        data = np.ascontiguousarray(X[:, :k])
        for trim in config.two_classes.trims:
            fit = trimmed_discriminant(data, y, 2, trim=trim, config=config.proposals)
            starts.append(Start("trimmed", trim, fit.attribute))
    return starts


def _margins(X: Array, y: IntArray, rng: np.random.Generator, config: DiscoveryConfig) -> list[Start]:
    """The smallest margins alone are a poor partition; a mixture started from them is a better one."""
    data = Moments.of(np.ascontiguousarray(X[:, : min(config.two_classes.margin_components, X.shape[1])]), y, 2)
    margin, rival = held_out_margins(data.X, y, 2, rng=rng, config=config.proposals)
    starts = []
    for share in config.two_classes.margin_shares:
        fit = fit_mixture(data, one_hot(propose(margin, rival, y, 2, share), 2), config=config.mixture)
        starts.append(Start("margins", share, fit.responsibilities(data.X, y).argmax(axis=1)))
    return starts

"""Where nothing was found and classes are unequal: what evenly weighted classes would give, and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.discovery.linear_heads.plain import fit_even

# The largest class over the smallest one; the examples of a class that folds are made of.
UNEQUAL, FEWEST = 1.5, 10


@dataclass(frozen=True)
class EvenClasses:
    """Shares classified rightly by logistic regression on held-out folds, with evenly weighted classes and without.

    Args:
        worst: of the worst class.
        average: of all examples.
        plain_worst: of the worst class, without weights.
        plain_average: of all examples, without weights.
        sentence: the same in words.
    """

    worst: float
    average: float
    plain_worst: float
    plain_average: float
    sentence: str

    def to_dict(self) -> dict[str, float | str]:
        """Plain values by name."""
        return asdict(self)


def even_classes(coordinates: Coordinates, *, rng: np.random.Generator) -> EvenClasses | None:
    """Compare evenly weighted classes with plain training, as `AIFSClassifier` does; None where that says nothing.

    That is where classes are about equal, one has too few examples, or both are right for the same per cent.

    Args:
        coordinates: of the latents; where not all are held, a sample of as many rows is looked at.
        rng: source of the sample and of the folds.

    Example:
        >>> from aifs_peft.discovery.streaming.arrays import ArrayLatents
        >>> rng = np.random.default_rng(0)
        >>> y = (rng.random(2000) < 0.1).astype(int); X = rng.normal(size=(2000, 2)); X[:, 0] += 2 * y
        >>> even = even_classes(Coordinates.of(ArrayLatents(X), y, 2, rng=rng), rng=rng)
        >>> bool(even.worst > even.plain_worst + 0.2), even.average < even.plain_average
        (True, True)
    """
    counts = np.bincount(coordinates.y)
    if len(counts) < 2 or counts.min() < FEWEST or counts.max() < UNEQUAL * counts.min():
        return None
    rows = coordinates.sample(rng)
    X, y = coordinates.rows(rows), coordinates.y[rows]
    weights = len(coordinates.y) / (len(counts) * counts[y])
    fit = fit_even(X, y, len(counts), rng=rng, weights=weights, scale=coordinates.reduction.scale)
    if not fit.differs:
        return None
    (worst, average), (plain_worst, plain_average) = fit.held_out, fit.plain
    sentence = f"Classes are unequal; with evenly weighted classes in logistic regression: {fit.told()}."
    return EvenClasses(float(worst), float(average), float(plain_worst), float(plain_average), sentence)

"""What a few known values are worth: their tie to the label, and heads, judged on known examples that were held out.

The sampler believes its own model: where that does not hold, or where the values say nothing, its shares are as sure as
where it does. Known examples that it did not see are the only witness. They are few, so that everything here comes
with its standard error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, softmax

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray
from aifs_peft.discovery.config import DiscoveryConfig, HeadConfig
from aifs_peft.discovery.hints.held_out import Trial
from aifs_peft.discovery.hints.in_classes import in_classes, to_classes
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.linear_heads.choice import hinted_head
from aifs_peft.discovery.linear_heads.logistic import fit_logistic
from aifs_peft.discovery.linear_heads.refit import refit_head


@dataclass(frozen=True)
class Score:
    """Accuracy of a head on held-out known examples: the worse of the aligned and the conflicting ones.

    Args:
        worst: From the mean and the spread of their margins, which is less noisy than counting hits.
        error: Its standard error.
    """

    worst: float
    error: float

    def above(self, other: Score) -> tuple[float, float]:
        """How much better it is than another one, and the standard error of that."""
        return self.worst - other.worst, float(np.hypot(self.error, other.error))


@dataclass(frozen=True)
class KnownHeads:
    """How heads fare on held-out known examples, and what a head refitted on all known ones needs.

    Args:
        values: Known attribute values, -1 where unknown, shape `(n,)`.
        offsets: Of the attribute, in the first reduced coordinates, for the refitted head, shape `(K, k)`.
        plain: Logistic regression with evenly weighted classes.
        hinted: The additive head of the hint.
        refitted: The head refitted on the known examples.
        gap: Of the plain head, by how much aligned examples are more often right than conflicting ones, and the
            standard error of that.
    """

    values: IntArray
    offsets: Array
    plain: Score
    hinted: Score
    refitted: Score
    gap: tuple[float, float]

    def useful(self, config: HeadConfig) -> bool:
        """Whether the plain head leans on the attribute, and the refitted one gains, both by more than noise.

        Without the first a gain says nothing of the values: known examples are often picked evenly, and refitting on
        an even sample helps whatever their values are.
        """
        gain, error = self.refitted.above(self.plain)
        return gain > config.refit_errors * error and self.gap[0] > config.refit_gap_errors * self.gap[1]

    def better(self, config: HeadConfig) -> bool:
        """Whether the refitted head is better than the hint's own by more than noise."""
        gain, error = self.refitted.above(self.hinted)
        return gain > config.refit_errors * error


def association(trial: Trial, hint: Hint, n_classes: int) -> tuple[float, float]:
    """The tie of an attribute and the label by held-out examples, and its standard error.

    How often examples of unknown value *seem* aligned lies between what known aligned and known conflicting examples
    seem when held out; where it lies is the share of aligned ones (quantification by adjusted counts, Forman, 2008).

    Args:
        trial: Fits without each fold of the known examples.
        hint: Values, of the rows that the trial was fitted on.
        n_classes: `K`.

    Returns:
        As `Candidate.association`; NaN, and an infinite error, where one of both kinds is not known.
    """
    y, rows, K = trial.data.y, trial.rows, n_classes
    unknown = np.flatnonzero(hint.values < 0)
    seem, all_seem = np.empty(len(rows)), 0.0
    aligned = np.zeros(len(rows), dtype=bool)
    for j, fit in enumerate(trial.fits):
        p = softmax(fit.log_likelihood(trial.data).astype(np.float64), axis=1)
        classes = to_classes(fit.prior)
        shown, out = (p @ classes)[np.arange(len(y)), y], trial.fold == j
        seem[out] = shown[rows[out]]
        aligned[out] = classes[hint.values[rows[out]], y[rows[out]]] == 1
        all_seem += float(np.mean([shown[unknown[y[unknown] == c]].mean() for c in range(K)])) / len(trial.fits)
    if aligned.all() or not aligned.any():
        return float("nan"), float("inf")
    cell = y[rows] * hint.n_values + hint.values[rows]
    (high, high_error), (low, low_error) = (_part(seem, cell, part) for part in (aligned, ~aligned))
    share = (all_seem - low) / (high - low)
    error = float(np.hypot((1.0 - share) * low_error, share * high_error) / abs(high - low))
    return share - (1.0 - share) / (K - 1), error * K / (K - 1)


def _part(values: Array, cell: IntArray, part: BoolArray) -> tuple[float, float]:
    """Mean over the cells of a part, and its standard error."""
    _, inverse, counts = np.unique(cell[part], return_inverse=True, return_counts=True)
    means = np.bincount(inverse, values[part]) / counts
    freedom = max(len(inverse) - len(counts), 1)
    variance = float(np.sum((values[part] - means[inverse]) ** 2)) / freedom
    return float(means.mean()), float(np.sqrt(variance * np.mean(1.0 / counts) / len(counts)))


def _score(logits: Array, y: IntArray, cell: IntArray, aligned: BoolArray) -> Score:
    """The worse part."""
    return min(_parts(logits, y, cell, aligned), key=lambda score: score.worst)


def _parts(logits: Array, y: IntArray, cell: IntArray, aligned: BoolArray) -> list[Score]:
    """The aligned and the conflicting part, every cell of label and value counting the same in it."""
    others = logits.copy()
    others[np.arange(len(y)), y] = -np.inf
    margin = logits[np.arange(len(y)), y] - others.max(axis=1)
    scores = []
    for part in (aligned, ~aligned):
        _, inverse, counts = np.unique(cell[part], return_inverse=True, return_counts=True)
        weight = 1.0 / counts[inverse] / len(counts)
        mean = float(weight @ margin[part])
        z = mean / max(float(np.sqrt(weight @ (margin[part] - mean) ** 2)), 1e-9)
        # Of the normal distribution's share above 0, by the delta method.
        density = float(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))
        scores.append(Score(float(ndtr(z)), density * float(np.sqrt((1.0 + 0.5 * z * z) * np.sum(weight**2)))))
    return scores


def known_heads(
    X: Array, y: IntArray, n_classes: int, hint: Hint, trials: list[Trial], chosen: Trial, config: DiscoveryConfig
) -> KnownHeads | None:
    """Heads with and without the hint on known examples that none of them saw.

    Args:
        X: Reduced latents, shape `(n, k)`, of the rows that the trials were fitted on.
        y: Labels in `0..K-1`, shape `(n,)`.
        n_classes: `K`.
        hint: Values of the attribute where they are known.
        trials: Fits without each fold of the known examples, for some numbers of components.
        chosen: The one that the hint's own head is judged with.
        config: Penalties.

    Returns:
        The scores, with the refitted head of the number of components that is best for it; `None` where not both
        aligned and conflicting examples are known.
    """
    K, own = n_classes, config.heads
    classes = in_classes(chosen.fits[0], chosen.data, hint.values).classes
    values = np.maximum(hint.values, 0)
    aligned, cell = classes[values, y] == 1, y * hint.n_values + values
    if aligned[chosen.rows].all() or not aligned[chosen.rows].any():
        return None
    rest = np.flatnonzero(hint.values < 0)
    weights = 1.0 / np.maximum(np.bincount(y[rest], minlength=K), 1)[y[rest]]
    plain = fit_logistic(X[rest], y[rest], K, l2=own.refit_plain_l2, weights=weights)
    hinted, refitted = np.empty((len(y), K)), np.empty((len(y), K))
    scores: dict[int, Score] = {}
    for trial in trials:
        for j, fit in enumerate(trial.fits):
            # Each trial has its own order of the known examples, and its own folds.
            out = trial.rows[trial.fold == j]
            known = hint.values.copy()
            known[out] = -1
            shown = in_classes(fit, trial.data, known)
            if trial is chosen:
                keep = np.setdiff1d(np.arange(len(y)), out)
                beta = _padded(shown.offsets, X.shape[1])
                head = hinted_head(X[keep], y[keep], shown.responsibilities[keep], beta, config=config)
                hinted[out] = head.logits(X[out])
            refitted[out] = refit_head(X, y, known, plain, shown.offsets, config=own).logits(X[out])
        rows = trial.rows
        scores[trial.k] = _score(refitted[rows], y[rows], cell[rows], aligned[rows])
    best, rows = max(scores, key=lambda k: scores[k].worst), chosen.rows
    high, low = _parts(plain.logits(X[rows]), y[rows], cell[rows], aligned[rows])
    return KnownHeads(
        hint.values,
        np.mean([in_classes(f, t.data, hint.values).offsets for t in trials if t.k == best for f in t.fits], axis=0),
        min(high, low, key=lambda score: score.worst),
        _score(hinted[rows], y[rows], cell[rows], aligned[rows]),
        scores[best],
        high.above(low),
    )


def _padded(offsets: Array, k: int) -> Array:
    """Offsets `(K, j)` with zeros in the further coordinates, `(K, k)`."""
    return np.pad(offsets, ((0, 0), (0, k - offsets.shape[1])))

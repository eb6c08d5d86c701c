"""The heads that are fitted in closed form or by a convex fit: against a discovered attribute, or plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight

from aifs_peft.discovery import Discovery
from aifs_peft.discovery.assemble import rests_on_hint
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.discover import discover_reduced
from aifs_peft.discovery.hints.gain import KnownHeads
from aifs_peft.discovery.linear_heads.choice import HeadChoice, choose_head, choose_hinted_head
from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.linear_heads.plain import fit_even, fit_plain
from aifs_peft.discovery.linear_heads.refit import refit_head
from aifs_peft.discovery.mixture.joint import marginals
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.reduced import ReducedLatents


@dataclass(frozen=True)
class Examples:
    """What a head is fitted to.

    Attributes:
        X: reduced latents `(n, k)`, or what computes their rows.
        index: labels `0..K-1`, `(n,)`.
        classes: labels as given, sorted, `(K,)`.
        reduction: of the latents.
        weights: of the examples, `(n,)`; None weighs all alike.
    """

    X: ReducedLatents
    index: NDArray[np.int64]
    classes: NDArray[Any]
    reduction: Reduction
    weights: NDArray[np.float64] | None


@dataclass(frozen=True)
class ClosedFit:
    """A head on whitened coordinates, and how it came about."""

    head: LinearHead
    discovery: Discovery | None = None
    choice: HeadChoice | None = None


def fit_discovery(
    examples: Examples, class_weight: Mapping[Any, float] | str | None, *, seed: int, hints: Sequence[Any] = ()
) -> ClosedFit:
    """Look for a spurious attribute; the head against it, or the plain one where nothing is found.

    Args:
        examples: to fit to. Their weights go into the heads; the search looks at all of them alike.
        class_weight: for the plain head, see `AIFSClassifier`.
        seed: of the search, of folds and of counterfactuals.
        hints: see `collect_hints`.
    """
    X, y, weights = examples.X, examples.index, examples.weights
    discovery = discover_reduced(
        X, examples.reduction, y, examples.classes, rng=np.random.default_rng(seed), hints=hints
    )
    rng = np.random.default_rng(seed)
    if not discovery.found:
        head, told = _without_attribute(examples, class_weight, discovery.heads_, rng)
        message = f"{discovery.message_} The head is logistic regression, {told}."
        return ClosedFit(head, replace(discovery, message_=message))
    R = discovery.responsibilities_
    if rests_on_hint(discovery):
        known = discovery.heads_
        if known is not None and known.better(DEFAULT_CONFIG.heads):
            head, choice = _refitted(examples, known)
        else:
            beta = examples.reduction.project(discovery.displacements_)
            head, choice = choose_hinted_head(X[:], y, R, beta, weights=weights)
    else:
        R = marginals(R, len(examples.classes))
        choice = choose_head(X, y, R, rng=rng, rough=discovery.rough_, weights=weights)
        head = choice.shifted(fit_head(X, y, R, choice.setting, rng=rng, weights=weights))
    return ClosedFit(head, discovery, choice)


def _refitted(examples: Examples, known: KnownHeads) -> tuple[LinearHead, HeadChoice]:
    """The head that is refitted on the known examples."""
    own = DEFAULT_CONFIG.heads
    weights = _combined(examples, "balanced")
    X = examples.X[:]
    plain = fit_logistic(X, examples.index, len(examples.classes), l2=own.refit_plain_l2, weights=weights)
    head = refit_head(X, examples.index, known.values, plain, known.offsets, weights=examples.weights, config=own)
    scores = {name: score.worst for name in ("plain", "hinted", "refitted") for score in [getattr(known, name)]}
    reason = f"held-out known examples, the worse part: refitted {scores['refitted']:.3f}, hint {scores['hinted']:.3f}"
    return head, HeadChoice(HeadSetting("refitted", own.refit_l2), scores, reason)


def _without_attribute(
    examples: Examples,
    class_weight: Mapping[Any, float] | str | None,
    known: KnownHeads | None,
    rng: np.random.Generator,
) -> tuple[LinearHead, str]:
    """The head where nothing was found, and what was done, as the end of a sentence."""
    if class_weight != "balanced":
        told = "plain" if class_weight is None else "with the given class weights"
        return fit_erm(examples, class_weight, rng=rng), told
    if known is not None and known.useful(DEFAULT_CONFIG.heads):
        gain, error = known.refitted.above(known.plain)
        told = f"refitted on the known examples (held out, their worse part gains {gain:.2f} +- {error:.2f})"
        return _refitted(examples, known)[0], told
    weights = _combined(examples, class_weight)
    assert weights is not None  # noqa: S101 - "balanced" always gives weights
    scale = examples.reduction.scale
    fit = fit_even(examples.X, examples.index, len(examples.classes), rng=rng, weights=weights, scale=scale)
    told = "with evenly weighted classes"
    if fit.intercepts.moved:
        told += " and intercepts moved towards equal accuracy"
    if fit.differs:
        told += f" ({fit.told()})"
    return fit.head, told


def fit_erm(
    examples: Examples, class_weight: Mapping[Any, float] | str | None, *, rng: np.random.Generator
) -> LinearHead:
    """Logistic regression without an attribute.

    Args:
        examples: to fit to.
        class_weight: "balanced", a mapping of labels to weights, or None.
        rng: source of the folds.
    """
    weights = _combined(examples, class_weight)
    scale = examples.reduction.scale
    return fit_plain(examples.X, examples.index, len(examples.classes), rng=rng, weights=weights, scale=scale)[0]


def _combined(examples: Examples, class_weight: Mapping[Any, float] | str | None) -> NDArray[np.float64] | None:
    """What each example weighs by its class and by itself; evenly weighted classes have equal sums of weights."""
    own, y = examples.weights, examples.index
    if class_weight is None:
        return own
    if own is None:
        return np.asarray(compute_sample_weight(class_weight, examples.classes[y]))
    if isinstance(class_weight, str):
        sums = np.bincount(y, own, minlength=len(examples.classes))
        return np.asarray(own * sums.sum() / (len(sums) * sums[y]))
    return np.asarray(own * compute_sample_weight(class_weight, examples.classes[y]))

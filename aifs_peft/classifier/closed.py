"""The heads that are fitted in closed form or by a convex fit: against a discovered attribute, or plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight

from aifs_peft.discovery import Discovery
from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.assemble import rests_on_hint
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig
from aifs_peft.discovery.discover import discover_source
from aifs_peft.discovery.hints.gain import KnownHeads
from aifs_peft.discovery.linear_heads.choice import HeadChoice, choose_head, choose_hinted_head
from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.linear_heads.plain import fit_even, fit_plain
from aifs_peft.discovery.linear_heads.refit import refit_head
from aifs_peft.discovery.linear_heads.rows import sampled_rows
from aifs_peft.discovery.mixture.joint import conflicts, marginals
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.source import LatentSource, reduced
from aifs_peft.discovery.unlabelled.pool import UNLABELLED


@dataclass(frozen=True)
class Examples:
    """What a head is fitted to.

    Attributes:
        X: reduced latents `(n, k)`.
        index: labels `0..K-1`, `(n,)`.
        classes: labels as given, sorted, `(K,)`.
        reduction: of the latents.
        weights: of the examples, `(n,)`; None weighs all alike.
    """

    X: Array
    index: NDArray[np.int64]
    classes: NDArray[Any]
    reduction: Reduction
    weights: Array | None


@dataclass(frozen=True)
class Latents:
    """What a classifier is fitted to, of which a head may hold only some rows.

    Attributes:
        source: of all rows, `(n, d)`.
        index: labels `0..K-1`, `(n,)`.
        classes: labels as given, sorted, `(K,)`.
        reduction: of the latents.
        weights: of the examples, `(n,)`; None weighs all alike.
    """

    source: LatentSource
    index: NDArray[np.int64]
    classes: NDArray[Any]
    reduction: Reduction
    weights: Array | None

    def examples(self, rows: IntArray | None = None, share: Array | None = None) -> Examples:
        """Rows in reduced coordinates.

        Args:
            rows: rising row numbers; None takes all.
            share: how many rows each of them stands for; None counts one.
        """
        X = reduced(self.source, self.reduction, rows)
        weights = self.weights if rows is None or self.weights is None else self.weights[rows]
        if share is not None:
            weights = share if weights is None else weights * share
        index = self.index if rows is None else self.index[rows]
        return Examples(X, index, self.classes, self.reduction, weights)


@dataclass(frozen=True)
class ClosedFit:
    """A head on whitened coordinates, and how it came about."""

    head: LinearHead
    discovery: Discovery | None = None
    choice: HeadChoice | None = None


def fit_discovery(
    latents: Latents,
    class_weight: Mapping[Any, float] | str | None,
    *,
    seed: int,
    hints: Sequence[Any] = (),
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> ClosedFit:
    """Look for a spurious attribute; the head against it, or the plain one where nothing is found.

    Args:
        latents: to fit to. Their weights go into the heads; the search looks at all examples alike.
        class_weight: for the plain head, see `AIFSClassifier`.
        seed: of the search, of folds and of counterfactuals.
        hints: see `collect_hints`.
        config: of the search; its `inputs.held_rows` also bounds the rows that a head is fitted to.
    """
    discovery = discover_source(
        latents.source, latents.reduction, latents.index, latents.classes, rng=np.random.default_rng(seed),
        hints=hints, config=config,
    )  # fmt: skip
    values = np.stack([part.groups_ for part in discovery.parts_ or (discovery,)], axis=1)
    cells = 2 ** values.shape[1] * latents.index + conflicts(values, latents.index)
    heads = discovery.heads_
    known = np.flatnonzero(heads.values >= 0) if heads else np.empty(0, dtype=np.int64)
    rows, examples = _held_examples(latents, cells, known, seed, config)
    fit = latents.source.processes.first(
        lambda: _head_for(examples, discovery, rows, class_weight, np.random.default_rng(seed))
    )
    return ClosedFit(fit.head, replace(discovery, message_=discovery.message_ + fit.told), fit.choice)


def fit_erm(
    latents: Latents,
    class_weight: Mapping[Any, float] | str | None,
    *,
    seed: int,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> LinearHead:
    """Logistic regression without an attribute.

    Args:
        latents: to fit to.
        class_weight: "balanced", a mapping of labels to weights, or None.
        seed: of the folds.
        config: its `inputs.held_rows` bounds the rows that the head is fitted to.
    """
    _, examples = _held_examples(latents, latents.index, np.empty(0, dtype=np.int64), seed, config)
    return latents.source.processes.first(lambda: _plain(examples, class_weight, rng=np.random.default_rng(seed)))


def _held_examples(
    latents: Latents, cells: IntArray, known: IntArray, seed: int, config: DiscoveryConfig
) -> tuple[IntArray | slice, Examples]:
    """The rows that a head is fitted to, each cell as full as can be, and what it is given of them.

    Rows of known values are among them: they are what a head may be refitted on.
    """
    rows, times = sampled_rows(cells, config.inputs.held_rows, np.random.default_rng([seed, 1]))
    if times is None:
        return slice(None), latents.examples()
    every = np.union1d(rows, known)
    share = np.ones(len(every))
    share[np.searchsorted(every, rows)] = times
    return every, latents.examples(every, share)


@dataclass(frozen=True)
class _HeadFit:
    """A head, how it was chosen, and what is to be told of it."""

    head: LinearHead
    choice: HeadChoice | None = None
    told: str = ""


def _head_for(
    examples: Examples,
    discovery: Discovery,
    rows: IntArray | slice,
    class_weight: Mapping[Any, float] | str | None,
    rng: np.random.Generator,
) -> _HeadFit:
    """The head for what was found; `rows` of the discovery are the examples."""
    known = discovery.heads_
    if known is not None:
        known = replace(known, values=known.values[rows])
    if not discovery.found:
        head, told = _without_attribute(examples, class_weight, known, rng)
        return _HeadFit(head, told=f" The head is logistic regression, {told}.")
    X, y, weights, R = examples.X, examples.index, examples.weights, discovery.responsibilities_[rows]
    if rests_on_hint(discovery):
        if known is not None and known.better(DEFAULT_CONFIG.heads):
            return _HeadFit(*_refitted(examples, known))
        beta = examples.reduction.project(discovery.displacements_)
        of_pool = discovery.source_ == UNLABELLED and len(examples.classes) == 2
        return _HeadFit(*choose_hinted_head(X, y, R, beta, weights=weights, of_pool=of_pool))
    R = marginals(R, len(examples.classes))
    choice = choose_head(X, y, R, rng=rng, rough=discovery.rough_, weights=weights)
    return _HeadFit(choice.shifted(fit_head(X, y, R, choice.setting, rng=rng, weights=weights)), choice)


def _refitted(examples: Examples, known: KnownHeads) -> tuple[LinearHead, HeadChoice]:
    """The head that is refitted on the known examples."""
    own = DEFAULT_CONFIG.heads
    weights = _combined(examples, "balanced")
    X = examples.X
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
        return _plain(examples, class_weight, rng=rng), told
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


def _plain(
    examples: Examples, class_weight: Mapping[Any, float] | str | None, *, rng: np.random.Generator
) -> LinearHead:
    """Logistic regression that knows of no attribute."""
    weights = _combined(examples, class_weight)
    scale = examples.reduction.scale
    return fit_plain(examples.X, examples.index, len(examples.classes), rng=rng, weights=weights, scale=scale)[0]


def _combined(examples: Examples, class_weight: Mapping[Any, float] | str | None) -> Array | None:
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

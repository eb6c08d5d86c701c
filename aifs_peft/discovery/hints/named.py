"""Hints that are directions: an attribute named by text prompts of a CLIP model, or by any displacement of latents.

The direction says where the attribute shows, not who carries which value. Along it, what separates the classes is the
attribute alone: all classes share the same clusters, in other shares. That is a mixture in at most `A - 1`
dimensions, compared with the model in which every class has its own centre. A direction along which the classes just
differ, or nothing differs, gains nothing by sharing clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import softmax

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import Array, IntArray, one_hot, softmax_in_place
from aifs_peft.discovery.config import DiscoveryConfig, HintConfig
from aifs_peft.discovery.hints.in_classes import to_classes
from aifs_peft.discovery.hints.judge import Hinted, hint_verdict, measure, rejected
from aifs_peft.discovery.hints.sampler import AttributeFit, Whitened
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.result import Candidate
from aifs_peft.errors import InvalidInputError


@dataclass(frozen=True)
class Named:
    """A named attribute.

    Args:
        source: `"hint:attribute:NAME"`.
        values: Directions of the attribute's values in reduced coordinates, as displacements, shape `(A, k)`, `A >= 2`.
        weights: The same as weights on the reduced coordinates: their products are those of latents and directions.
        left: Part of the given directions' length that lies in the reduced coordinates, in [0, 1].
        tried: How many attributes are tried together, of which this is one.
    """

    source: str
    values: Array
    weights: Array
    left: float
    tried: int = 1

    def within(self, old: Reduction, new: Reduction) -> Named:
        """The same attribute in the coordinates of another reduction of the same latents.

        Args:
            old: Reduction in whose coordinates it is given.
            new: Reduction in whose coordinates it is wanted.
        """
        before = self.weights / old.scale
        inside = before @ (old.components @ new.components.T)
        left = self.left * float(np.linalg.norm(inside) / max(float(np.linalg.norm(before)), 1e-300))
        return Named(self.source, inside / new.scale, inside * new.scale, left, self.tried)


def named_hints(attributes: Any, reduction: Reduction) -> list[Named]:
    """Directions in reduced coordinates.

    Args:
        attributes: Mapping of names to arrays, or a sequence of arrays, which are then numbered. An array `(A, d)`
            holds one direction per value of the attribute, for example `embed_prompts(model, tokenizer, ["a photo of
            a man", "a photo of a woman"])`; only their differences count. An array `(d,)` is the axis of an attribute
            with two values.
        reduction: Of the latents of width `d`.

    Returns:
        One `Named` per attribute.

    Raises:
        InvalidInputError: For another shape, values that are not finite, or values that do not differ.

    Example:
        >>> from aifs_peft.discovery.principal_components import principal_components
        >>> Z = np.random.default_rng(0).normal(size=(50, 3))
        >>> reduction = principal_components(Z, 3, rng=np.random.default_rng(0))
        >>> [(h.source, h.values.shape) for h in named_hints({"colour": np.eye(3)[:2]}, reduction)]
        [('hint:attribute:colour', (2, 3))]
    """
    items = list(attributes.items()) if isinstance(attributes, Mapping) else list(enumerate(attributes))
    width = reduction.components.shape[1]
    hints = []
    for name, given in items:
        array = np.asarray(to_numpy(given))
        if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or array.shape[-1] != width:
            raise InvalidInputError(
                f"attributes[{name!r}] has shape {array.shape} and dtype {array.dtype}; needed are directions of width "
                f"{width}, the latents' own: ({width},), or (A, {width}) with one row per value. Embed text prompts "
                "with embed_prompts and a CLIP model, and take its projected image embeddings as latents."
            )
        array = np.atleast_2d(array.astype(np.float64))
        rows = np.vstack([-0.5 * array, 0.5 * array]) if len(array) == 1 else array - array.mean(axis=0)
        if not np.isfinite(rows).all() or float(np.abs(rows).max()) == 0.0:
            raise InvalidInputError(
                f"attributes[{name!r}] holds values that are not finite, or no two that differ; name different values."
            )
        inside = rows @ reduction.components.T
        left = float(np.linalg.norm(inside) / np.linalg.norm(rows))
        hints.append(
            Named(f"hint:attribute:{name}", inside / reduction.scale, inside * reduction.scale, left, len(items))
        )
    return hints


@dataclass(frozen=True)
class _Shared:
    """Clusters shared by all classes: centres `(A, r)`, covariance `(r, r)`, shares `(K, A)`."""

    centres: Array
    covariance: Array
    prior: Array

    def logits(self, t: Array, y: IntArray) -> Array:
        """`log pi(a | y) + log N(t | centre_a, covariance)`, shape `(n, A)`."""
        factor = cholesky(self.covariance, lower=True)
        white = solve_triangular(factor, (t[:, None] - self.centres[None]).reshape(-1, t.shape[1]).T, lower=True)
        density = -0.5 * np.sum(white**2, axis=0).reshape(len(t), -1) - float(np.sum(np.log(np.diag(factor))))
        return np.asarray(density + np.log(np.maximum(self.prior, 1e-12))[y] - 0.5 * t.shape[1] * np.log(2 * np.pi))


def _fit_shared(t: Array, y: IntArray, K: int, R: Array, config: HintConfig) -> tuple[_Shared, float]:
    """EM from responsibilities `R (n, A)`: the fit and its log-likelihood."""
    n, previous = len(t), -np.inf
    onehot = one_hot(y, K)
    for _ in range(config.named_steps):
        weight = np.maximum(R.sum(axis=0), 1e-9)
        centres = (R.T @ t) / weight[:, None]
        covariance = (t.T @ t - (centres * weight[:, None]).T @ centres) / n + 1e-6 * np.eye(t.shape[1])
        prior = (onehot.T @ R + 1.0) / (onehot.sum(axis=0) + R.shape[1])[:, None]
        fit = _Shared(centres, covariance, prior)
        R = fit.logits(t, y)
        current = softmax_in_place(R)
        if current - previous < config.named_tolerance * n:
            break
        previous = current
    return fit, current


def _null(t: Array, y: IntArray, K: int) -> float:
    """Log-likelihood with one centre per class."""
    centres = np.stack([t[y == c].mean(axis=0) for c in range(K)])
    residual = t - centres[y]
    covariance = residual.T @ residual / len(t) + 1e-6 * np.eye(t.shape[1])
    factor = cholesky(covariance, lower=True)
    quadratic = float(np.sum(residual * cho_solve((factor, True), residual.T).T))
    log_det = float(np.sum(np.log(np.diag(factor))))
    return float(-0.5 * quadratic - len(t) * (log_det + 0.5 * t.shape[1] * np.log(2 * np.pi)))


def _mixture(data: Whitened, directions: Array, config: HintConfig) -> tuple[_Shared, Array, float]:
    """Shared clusters in the span of whitened `directions (k, A)`: the fit, the span's basis `(k, r)`, and the gain."""
    basis, sizes, _ = np.linalg.svd(directions - directions.mean(axis=1, keepdims=True), full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes[0]]
    t = data.V.astype(np.float64) @ basis + (data.means @ basis)[data.y]
    scores = t @ (basis.T @ directions)
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    (n, A), K = scores.shape, len(data.means)
    start = np.full((n, A), 0.1 / A)
    start[np.arange(n), scores.argmax(axis=1)] += 0.9
    fit, likelihood = _fit_shared(t, data.y, K, start, config)
    # A centres of r numbers and K (A - 1) shares, against K centres.
    extra = (A - K) * basis.shape[1] + K * (A - 1)
    return fit, basis, 2.0 * (likelihood - _null(t, data.y, K)) - max(extra, 1) * float(np.log(n))


def _contrast(fit: _Shared) -> float:
    """Typical distance of two clusters in standard deviations within a cluster."""
    centred = fit.centres - fit.centres.mean(axis=0)
    white = solve_triangular(cholesky(fit.covariance, lower=True), centred.T, lower=True)
    A = len(centred)
    return float(np.sqrt(2.0 * A / (A - 1) * np.mean(np.sum(white**2, axis=0))))


def judge_named(
    X: Array, y: IntArray, n_classes: int, hint: Named, *, config: DiscoveryConfig, rows: IntArray
) -> Hinted:
    """Fit the shared clusters along a named attribute's directions and put them to the gate.

    Of many attributes tried together the best gains something by chance: each must gain twice the logarithm of their
    number on top, as for the best of so many models.

    A direction may say how the attribute moves latents, or, as a text embedding does, which product of latent and
    direction tells its values apart. Both are tried; of those that pass, that with clusters farther apart is used.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        hint: The directions.
        config: The gate's association, conflicts and class contrast count here, too.
        rows: Rows to fit on; the result covers all.

    Returns:
        The hint with its verdict.
    """
    gate, own = config.gate, config.hints
    if hint.left < own.named_left:
        return rejected(hint.source, "nothing of the direction is left in the latents, or beside what was found")
    k = min(X.shape[1], max(len(rows) // config.reduction.rows_per_component, 2))
    data = Whitened.of(np.ascontiguousarray(X[rows, :k]), y[rows], n_classes, own)
    displaced = solve_triangular(data.factor, hint.values[:, :k].T, lower=True)
    weighed = data.factor.T @ hint.weights[:, :k].T
    tried = []
    for directions in (displaced, weighed):
        fit, basis, gain = _mixture(data, directions, own)
        gain -= 2.0 * float(np.log(hint.tried))
        contrast = _contrast(fit)
        centred = fit.centres - fit.centres.mean(axis=0)
        numbers = measure(AttributeFit(centred @ basis.T, fit.prior, own.max_explained), data) | {"gain": gain}
        used = int(np.count_nonzero(to_classes(fit.prior).sum(axis=0)))
        reason = hint_verdict(numbers, len(rows), y[rows], used, gate, gate.class_strength)
        if gain <= 0.0:
            reason = "along this direction the classes differ, or nothing does: no clusters that they share"
        elif contrast < gate.named_contrast:
            reason = f"attribute contrast too small along this direction ({contrast:.2f} < {gate.named_contrast})"
        accepted = reason == "accepted"
        record = Candidate(hint.source, k, float("nan"), accepted=accepted, reason=reason, **numbers)
        tried.append((accepted, contrast, record, fit, basis))
    accepted, _, record, fit, basis = max(tried, key=lambda one: one[:2])
    if not accepted:
        return Hinted(record)
    whole = np.asarray(solve_triangular(data.factor, basis, lower=True, trans="T"))
    logits = fit.logits((X[:, :k] - data.centres.mean(axis=0)) @ whole, y)
    R = softmax(logits, axis=1) @ to_classes(fit.prior)
    return Hinted(record, R.astype(np.float32))

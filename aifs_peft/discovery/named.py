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
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from aifs_peft.discovery.gate import GateThresholds
from aifs_peft.discovery.hints import Hinted, hint_verdict, measure, to_classes
from aifs_peft.discovery.reduce import Reduction
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.sampler import AttributeFit, Whitened
from aifs_peft.errors import InvalidInputError

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

STEPS = 300
TOLERANCE = 1e-6
# Clusters closer than this, in standard deviations within a cluster, are one cloud cut in two. Lower than for
# candidates without a hint, which had every direction to choose from.
MIN_CONTRAST = 1.5


@dataclass(frozen=True)
class Named:
    """A named attribute.

    Args:
        source: `"hint:attribute:NAME"`.
        values: Directions of the attribute's values in reduced coordinates, shape `(A, k)`, `A >= 2`.
    """

    source: str
    values: Array


def named_hints(attributes: Any, reduction: Reduction) -> list[Named]:
    """Directions in reduced coordinates.

    Args:
        attributes: Mapping of names to arrays, or a sequence of arrays, which are then numbered. An array `(A, d)`
            holds one direction per value of the attribute, for example `embed_prompts(model, tokenizer, ["a photo of
            a man", "a photo of a woman"])`; only their differences count. An array `(d,)` is the axis of an attribute
            with two values.
        reduction: Of the latents of width `d`.

    Raises:
        InvalidInputError: For another shape, values that are not finite, or values that do not differ.

    Example:
        >>> from aifs_peft.discovery.reduce import principal_components
        >>> Z = np.random.default_rng(0).normal(size=(50, 3))
        >>> reduction = principal_components(Z, 3, rng=np.random.default_rng(0))
        >>> [(h.source, h.values.shape) for h in named_hints({"colour": np.eye(3)[:2]}, reduction)]
        [('hint:attribute:colour', (2, 3))]
    """
    items = list(attributes.items()) if isinstance(attributes, Mapping) else list(enumerate(attributes))
    width = reduction.components.shape[1]
    hints = []
    for name, given in items:
        if hasattr(given, "detach"):
            given = given.detach().cpu().float().numpy()
        array = np.asarray(given)
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
        hints.append(Named(f"hint:attribute:{name}", rows @ (reduction.components / reduction.scale[:, None]).T))
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


def _fit_shared(t: Array, y: IntArray, K: int, R: Array) -> tuple[_Shared, float]:
    """EM from responsibilities `R (n, A)`: the fit and its log-likelihood."""
    n, previous = len(t), -np.inf
    onehot = np.eye(K)[y]
    for _ in range(STEPS):
        weight = np.maximum(R.sum(axis=0), 1e-9)
        centres = (R.T @ t) / weight[:, None]
        covariance = (t.T @ t - (centres * weight[:, None]).T @ centres) / n + 1e-6 * np.eye(t.shape[1])
        prior = (onehot.T @ R + 1.0) / (onehot.sum(axis=0) + R.shape[1])[:, None]
        fit = _Shared(centres, covariance, prior)
        logits = fit.logits(t, y)
        top = logits.max(axis=1, keepdims=True)
        R = np.exp(logits - top)
        norm = R.sum(axis=1, keepdims=True)
        R /= norm
        current = float(np.sum(top) + np.sum(np.log(norm)))
        if current - previous < TOLERANCE * n:
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


def judge_named(X: Array, y: IntArray, n_classes: int, hint: Named, *, gate: GateThresholds, rows: IntArray) -> Hinted:
    """Fit the shared clusters along a named attribute's directions and put them to the gate.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        hint: The directions.
        gate: Its association, conflicts and class contrast count here, too.
        rows: Rows to fit on; the result covers all.
    """
    k = min(X.shape[1], max(len(rows) // 5, 2))
    data = Whitened.of(np.ascontiguousarray(X[rows, :k]), y[rows], n_classes)
    # A displacement seen by the metric within classes: L^-1 v. Its span is what the values can differ along.
    directions = solve_triangular(data.factor, hint.values[:, :k].T, lower=True)
    basis, sizes, _ = np.linalg.svd(directions - directions.mean(axis=1, keepdims=True), full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes[0]]
    t = data.V.astype(np.float64) @ basis + (data.means @ basis)[data.y]
    scores = t @ (basis.T @ directions)
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    A = scores.shape[1]
    start = np.full((len(t), A), 0.1 / A)
    start[np.arange(len(t)), scores.argmax(axis=1)] += 0.9
    fit, likelihood = _fit_shared(t, data.y, n_classes, start)
    gain = 2.0 * (likelihood - _null(t, data.y, n_classes))
    # A centres of r numbers and K (A - 1) shares, against K centres.
    extra = (A - n_classes) * basis.shape[1] + n_classes * (A - 1)
    gain -= max(extra, 1) * float(np.log(len(t)))
    factor = cholesky(fit.covariance, lower=True)
    centred = fit.centres - fit.centres.mean(axis=0)
    values = AttributeFit(centred @ basis.T, fit.prior)
    numbers = measure(values, data) | {"gain": gain}
    classes = to_classes(fit.prior)
    used = int(np.count_nonzero(classes.sum(axis=0)))
    reason = hint_verdict(numbers, len(rows), y[rows], used, gate)
    contrast = float(
        np.sqrt(2.0 * np.mean(np.sum(solve_triangular(factor, centred.T, lower=True) ** 2, axis=0))) * np.sqrt(2.0)
    )
    if gain <= 0.0:
        reason = "along this direction the classes differ, or nothing does: no clusters that they share"
    elif contrast < MIN_CONTRAST:
        reason = f"attribute contrast too small along this direction ({contrast:.2f} < {MIN_CONTRAST})"
    record = Candidate(hint.source, k, float("nan"), accepted=reason == "accepted", reason=reason, **numbers)
    if not record.accepted:
        return Hinted(record)
    whole = np.asarray(solve_triangular(data.factor, basis, lower=True, trans="T"))
    seen = (X[:, :k] - data.centres.mean(axis=0)) @ whole
    logits = fit.logits(seen, y)
    R = np.exp(logits - logits.max(axis=1, keepdims=True))
    R = (R / R.sum(axis=1, keepdims=True)) @ classes
    return Hinted(record, R.astype(np.float32))

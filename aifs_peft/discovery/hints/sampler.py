"""A partly known attribute: the posterior of the additive model by Gibbs sampling.

`z | y, a ~ N(alpha_y + beta_a, Sigma)` with `a` known for a few examples. The most likely offsets, which is what EM
climbs to, are useless for a weak attribute: in many dimensions its likelihood is flat, and the maximum lies where the
noise is. The posterior *mean* is what a head needs, and sampling gives it with everything that is uncertain averaged
over: who carries which value, the shares, and the offsets. (Data augmentation, Tanner and Wong, 1987.)

Two things carry the estimate. The class means are known precisely, and an attribute tied to the label must show in
them, so `beta` is free along the class contrasts and shrunk beside them. And independent properties tend to move
latents in unrelated directions: how far `beta` reaches beside the class contrasts is drawn towards the size at which
class and attribute offsets are orthogonal in the `Sigma^-1` metric, with the weight of `orthogonal` observations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cholesky, qr, solve_triangular
from scipy.special import softmax

from aifs_peft.discovery.arrays import Array, IntArray, one_hot, softmax_in_place
from aifs_peft.discovery.config import HintConfig
from aifs_peft.discovery.mixture.em import shrink


@dataclass(frozen=True)
class Whitened:
    """Latents with class means taken out and unit covariance within classes.

    Args:
        V: Whitened residuals, shape `(n, k)`, float32; sum zero in each class.
        y: Labels in `0..K-1`, shape `(n,)`.
        means: Whitened class means, centred, shape `(K, k)`.
        factor: Lower Cholesky factor of the covariance within classes: `V @ factor.T` are the residuals.
        centres: Class means in the coordinates that were given, shape `(K, k)`.
    """

    V: Array
    y: IntArray
    means: Array
    factor: Array
    centres: Array

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int, config: HintConfig) -> Whitened:
        """Whiten reduced latents `X (n, k)` with labels `y (n,)` in `0..n_classes-1`."""
        n, k = X.shape
        onehot = one_hot(y, n_classes)
        centres = (onehot.T @ X) / np.maximum(onehot.sum(axis=0), 1.0)[:, None]
        residual = X - centres[y].astype(X.dtype)
        covariance = shrink((residual.T @ residual).astype(np.float64) / n, min(config.max_shrinkage, 0.1 * k / n))
        factor = cholesky(covariance, lower=True)
        V = solve_triangular(factor, residual.T, lower=True, check_finite=False).T
        means = solve_triangular(factor, (centres - centres.mean(axis=0)).T, lower=True).T
        return Whitened(np.ascontiguousarray(V, dtype=np.float32), y, means, factor, centres)


@dataclass(frozen=True)
class AttributeFit:
    """Posterior means of a partly known attribute with values `0..A-1`.

    Args:
        offsets: In whitened coordinates, mean zero, shape `(A, k)`.
        prior: `pi(a | y)`, shape `(K, A)`.
        max_explained: See `HintConfig`.
        errors: Share of the known values that are wrong; 0 takes them as they are.
    """

    offsets: Array
    prior: Array
    max_explained: float
    errors: float = 0.0

    def log_likelihood(self, data: Whitened) -> Array:
        """`log p(z | y, a)` up to a constant of `a`, shape `(n, A)`."""
        counts = np.bincount(data.y, minlength=len(self.prior))
        turned, penalty = _metric(self.offsets, self.prior, counts, self.max_explained)
        scores = data.V @ (turned @ self.offsets).T.astype(np.float32)
        return np.asarray(scores + penalty[data.y].astype(np.float32))

    def probability(self, data: Whitened, rows: IntArray, values: IntArray) -> Array:
        """Posterior of the true `values` of some rows under even shares, so that neither label nor share helps."""
        p = softmax(self.log_likelihood(data)[rows].astype(np.float64), axis=1)
        return np.asarray(p[np.arange(len(rows)), values])

    def responsibilities(self, data: Whitened, known: IntArray) -> Array:
        """Posterior of the attribute, shape `(n, A)`; where `known` is not -1 certain, or as sure as `errors` allow."""
        logits = self.log_likelihood(data) + np.log(np.maximum(self.prior, 1e-12))[data.y].astype(np.float32)
        if self.errors == 0.0:
            return _clamped(logits, known)
        rows, A = np.flatnonzero(known >= 0), logits.shape[1]
        logits[rows, known[rows]] += np.float32(np.log((1.0 - self.errors) * (A - 1) / self.errors))
        softmax_in_place(logits)
        return logits


def _metric(offsets: Array, prior: Array, counts: IntArray, max_explained: float) -> tuple[Array, Array]:
    """`T (A, A)` with `P B' = B' T'` for the precision within cells, and each value's quadratic part `(K, A)`.

    The unit covariance within classes contains the attribute's own spread, `B' M B`. Without it the covariance is
    `I - B' M B`, and Woodbury's identity leaves A x A matrices.
    """
    A = len(offsets)
    share = counts / counts.sum()
    M = np.diag(share @ prior) - (prior * share[:, None]).T @ prior
    gram = offsets @ offsets.T
    explained = float(np.max(np.abs(np.linalg.eigvals(M @ gram))))
    M = M * min(1.0, max_explained / max(explained, 1e-12))
    turned = np.linalg.inv(np.eye(A) - M @ gram)
    inner = gram @ turned
    return turned.T, prior @ inner - 0.5 * np.diag(inner)


def _clamped(logits: Array, known: IntArray) -> Array:
    """Row-wise softmax, in place, with certainty where the value is known."""
    softmax_in_place(logits)
    rows = np.flatnonzero(known >= 0)
    logits[rows] = 0.0
    logits[rows, known[rows]] = 1.0
    return logits


@dataclass
class _Chain:
    """The state of the chain, and what does not change."""

    data: Whitened
    known: IntArray
    contrasts: Array
    offsets: Array
    prior: Array
    size: float
    tied: bool
    config: HintConfig
    errors: float = 0.0

    def fit(self) -> AttributeFit:
        """The offsets and shares as they are now."""
        return AttributeFit(self.offsets, self.prior, self.config.max_explained, self.errors)

    def draw_errors(self, drawn: IntArray, rng: np.random.Generator) -> float:
        """Share of wrong known values, given the true ones."""
        rows = np.flatnonzero(self.known >= 0)
        wrong = float(np.count_nonzero(drawn[rows] != self.known[rows]))
        few, most = self.config.errors_prior, self.config.max_errors
        return float(np.clip(rng.beta(wrong + few[0], len(rows) - wrong + few[1]), 1e-4, most))

    def draw_prior(self, counts: Array, rng: np.random.Generator) -> Array:
        """Shares `(K, A)` given counts: a free table, or one share with which each class has its own value.

        On real latents the free table lets the values drift to styles within the classes.
        """
        own = self.prior.argmax(axis=0)
        one_to_one = len(own) == len(self.prior) == len(np.unique(own))
        if not self.tied or not one_to_one:
            gammas = rng.standard_gamma(counts + 1.0)
            return np.asarray(gammas / gammas.sum(axis=1, keepdims=True))
        aligned = float(np.sum(counts[own, np.arange(len(own))]))
        rho = float(rng.beta(aligned + self.config.aligned, float(counts.sum()) - aligned + self.config.conflicting))
        K = len(own)
        rho = min(max(rho, 1.0 / K + 1e-3), 1.0 - 1e-4)
        prior = np.full((K, K), (1.0 - rho) / (K - 1))
        prior[own, np.arange(K)] = rho
        return prior

    def orthogonal_size(self) -> float:
        """Variance of the offsets beside the class contrasts at which `alpha` and `beta` are orthogonal."""
        A, k = self.offsets.shape
        beside = k - self.contrasts.shape[1]
        inside = self.offsets @ self.contrasts
        tied = self.prior - self.prior.mean(axis=0)
        seen = float(np.sum((tied.T @ (self.data.means @ self.contrasts)) * inside))
        taken = float(np.sum((tied.T @ tied) * (inside @ inside.T)))
        spread = float(np.sum(tied**2) - np.sum(tied.sum(axis=1) ** 2) / A)
        least = 0.02 * float(np.sum(inside**2))
        return float(max((seen - taken) / max(spread, 1e-6), least, 1e-6) / max(beside, 1))


def _start(data: Whitened, known: IntArray, n_values: int, *, tied: bool, config: HintConfig) -> _Chain:
    """Offsets from the known examples alone, and shares that explain the class means by them."""
    K, k = data.means.shape
    contrasts = qr(data.means.T, mode="economic", pivoting=True)[0][:, : min(K - 1, k)]
    rows = np.flatnonzero(known >= 0)
    value, label = one_hot(known[rows], n_values), data.y[rows]
    cells = one_hot(label, K).T @ value
    centred = value - (cells / np.maximum(cells.sum(axis=1, keepdims=True), 1.0))[label]
    gram = centred.T @ centred + 0.5 * np.eye(n_values)
    offsets = np.linalg.solve(gram, centred.T @ data.V[rows].astype(np.float64))
    offsets -= offsets.mean(axis=0)
    inside = offsets @ contrasts @ contrasts.T
    noise = (k - contrasts.shape[1]) * float(np.trace(np.linalg.inv(gram))) * (1.0 - 1.0 / n_values)
    beside = float(np.sum((offsets - inside) ** 2))
    offsets = inside + (offsets - inside) * np.sqrt(max(1.0 - noise / max(beside, 1e-12), 0.05))
    inner = offsets @ offsets.T + 1e-3 * np.eye(n_values)
    prior = 1.0 / n_values + np.linalg.solve(inner, offsets @ data.means.T).T
    prior = np.clip(prior, config.start_margin, 1.0 - config.start_margin)
    prior /= prior.sum(axis=1, keepdims=True)
    chain = _Chain(data, known, contrasts, offsets, prior, size=1.0, tied=tied, config=config)
    chain.size = chain.orthogonal_size()
    return chain


def _sweep(chain: _Chain, rng: np.random.Generator) -> Array:
    """One Gibbs sweep over values, shares, offsets and their size; the conditional mean of the offsets."""
    data, (K, A) = chain.data, chain.prior.shape
    R = chain.fit().responsibilities(data, chain.known)
    drawn = np.minimum((rng.random((len(R), 1)) > np.cumsum(R, axis=1)).sum(axis=1), A - 1)
    if chain.errors > 0.0:
        chain.errors = chain.draw_errors(drawn, rng)
    else:
        drawn = np.where(chain.known >= 0, chain.known, drawn)
    counts = np.bincount(data.y * A + drawn, minlength=K * A).reshape(K, A).astype(np.float64)
    # A few known examples are often picked evenly per cell and say nothing about the shares; a whole column does.
    free = chain.known < 0
    shown = np.bincount((data.y * A + drawn)[free], minlength=K * A).reshape(K, A).astype(np.float64)
    shown = shown if free.mean() > 0.5 else counts
    chain.prior = chain.draw_prior(shown, rng)
    # Residuals sum to zero in each class, so the indicators need no centring on this side.
    total = (one_hot(drawn, A, np.float32).T @ data.V).astype(np.float64)
    gram = np.diag(counts.sum(axis=0)) - counts.T @ (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))
    Q = chain.contrasts
    inside = (total @ Q) @ Q.T
    mean_in, draw_in = _normal(gram + 1e-2 * np.eye(A), inside, rng)
    mean_out, draw_out = _normal(gram + np.eye(A) / chain.size, total - inside, rng)
    draw_out = draw_out - (draw_out @ Q) @ Q.T
    draw_in = (draw_in @ Q) @ Q.T
    chain.offsets = draw_in + draw_out
    chain.offsets -= chain.offsets.mean(axis=0)
    out = draw_out - draw_out.mean(axis=0)
    freedom = (A - 1) * max(Q.shape[0] - Q.shape[1], 1) + chain.config.orthogonal
    prior = chain.config.orthogonal * chain.orthogonal_size()
    chain.size = float((np.sum(out**2) + prior) / rng.chisquare(freedom))
    mean = mean_in + mean_out
    return np.asarray(mean - mean.mean(axis=0))


def _normal(precision: Array, total: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean and a draw, `(A, k)`, of coefficients whose columns share the precision `(A, A)`."""
    factor = cholesky(precision, lower=True)
    half = solve_triangular(factor, total, lower=True)
    mean = solve_triangular(factor, half, lower=True, trans="T")
    noise = solve_triangular(factor, rng.normal(size=total.shape), lower=True, trans="T")
    return mean, mean + noise


def sample_attribute(
    data: Whitened,
    known: IntArray,
    n_values: int,
    *,
    rng: np.random.Generator,
    config: HintConfig,
    tied: bool = True,
    sweeps: int | None = None,
    chains: int = 1,
    with_errors: bool = False,
) -> AttributeFit:
    """Posterior means of offsets and shares, given the values that are known.

    Costs `O(chains * sweeps * n * k * A)` time and one float32 copy of the data.

    Args:
        data: Whitened latents with labels.
        known: Attribute value of each example in `0..n_values-1`, or -1, shape `(n,)`.
        n_values: `A`, at least 2; each value known for at least one example.
        rng: Source of the draws.
        config: Priors, and how many sweeps are left out.
        tied: One aligned share for all classes, where values and classes go together one to one; else a free table.
        sweeps: Gibbs sweeps, `config.sweeps` if `None`; the first ones are left out of the averages.
        chains: Of so many, the mean of those that predict the known values within a standard error of the best one.
            On real latents a chain can drift, early or late, to a style within the classes, and a few known examples do
            not hold it back.
        with_errors: Whether known values may be wrong, at one rate, which is sampled with the rest.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 3000); a = np.where(rng.random(3000) < 0.9, y, 1 - y)
        >>> X = rng.normal(size=(3000, 8)); X[:, 0] += 3 * a; X[:, 1] += 2 * y
        >>> known = np.full(3000, -1)
        >>> for c in range(2):
        ...     for b in range(2):
        ...         known[np.flatnonzero((y == c) & (a == b))[:10]] = b
        >>> fit = sample_attribute(Whitened.of(X, y, 2, HintConfig()), known, 2, rng=rng, config=HintConfig())
        >>> bool(np.all(np.abs(np.diag(fit.prior) - 0.9) < 0.05))
        True
    """
    start = _start(data, known, n_values, tied=tied, config=config)
    if with_errors:
        start.errors = config.start_errors
    fits = [_run(replace(start), config.sweeps if sweeps is None else sweeps, rng) for _ in range(chains)]
    if chains == 1:
        return fits[0]
    rows = np.flatnonzero(known >= 0)
    cell = data.y[rows] * n_values + known[rows]
    weight = 1.0 / np.bincount(cell)[cell]
    weight /= weight.sum()
    told = np.stack([fit.probability(data, rows, known[rows]) for fit in fits])
    behind = told[np.argmax(told @ weight)] - told
    spread = behind - (behind @ weight)[:, None]
    kept = behind @ weight <= np.sqrt(spread**2 @ weight**2)
    return _mean([fit for fit, near in zip(fits, kept, strict=True) if near])


def _mean(fits: list[AttributeFit]) -> AttributeFit:
    """Means of offsets and shares over chains."""
    offsets, prior = (np.mean([getattr(fit, name) for fit in fits], axis=0) for name in ("offsets", "prior"))
    return replace(fits[0], offsets=offsets, prior=prior, errors=float(np.mean([fit.errors for fit in fits])))


def _run(chain: _Chain, sweeps: int, rng: np.random.Generator) -> AttributeFit:
    """Means over all sweeps of a chain but the first ones."""
    offsets, prior = np.zeros_like(chain.offsets), np.zeros_like(chain.prior)
    burn, errors = int(chain.config.burn * sweeps), 0.0
    for step in range(sweeps):
        mean = _sweep(chain, rng)
        if step >= burn:
            offsets += mean
            prior += chain.prior
            errors += chain.errors
    kept = sweeps - burn
    return AttributeFit(offsets / kept, prior / kept, chain.config.max_explained, errors / kept)

"""Principal components of the latents, each scaled to unit variance: the coordinates of every later stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

from aifs_peft.discovery.arrays import Array, row_chunks
from aifs_peft.discovery.config import DEFAULT_CONFIG, ReductionConfig
from aifs_peft.discovery.reduced import ReducedLatents, ReducedRows
from aifs_peft.errors import InvalidInputError


@dataclass(frozen=True)
class Reduction:
    """Principal components of latents and the way back.

    Args:
        mean: Mean latent, shape `(d,)`.
        components: Orthonormal rows, shape `(k, d)`, by falling variance.
        scale: Standard deviation along each component, shape `(k,)`, in units of the latents.
    """

    mean: Array
    components: Array
    scale: Array

    @property
    def dim(self) -> int:
        """Number of components `k`."""
        return int(self.scale.shape[0])

    def transform(self, Z: Array) -> Array:
        """Coordinates of `Z (n, d)`, mean zero and variance one each: `(n, k)` float32, in chunks of rows."""
        return self.rows(Z)[:]

    def rows(self, Z: Array) -> ReducedRows:
        """The same, computed when rows are asked for."""
        # The division by the scale is folded into the projection, so that no second pass is needed.
        return ReducedRows(Z, self.mean, (self.components / self.scale[:, None]).T)

    def project(self, displacements: Array) -> Array:
        """Displacements of the input space, `(..., d)`, in the coordinates, `(..., k)`: the inverse of `lift`."""
        return np.asarray(displacements @ self.components.T / self.scale)

    def lift(self, vectors: Array) -> Array:
        """Displacements from the first `m <= k` coordinates, `(..., m)`, to the input space, `(..., d)`."""
        m = vectors.shape[-1]
        return np.asarray((np.asarray(vectors, dtype=np.float64) * self.scale[:m]) @ self.components[:m])


def principal_components(
    Z: Array,
    k: int | None = None,
    *,
    rng: np.random.Generator,
    config: ReductionConfig = DEFAULT_CONFIG.reduction,
) -> Reduction:
    """The leading `k` principal components of `Z`, fewer where the rank is smaller.

    Above `config.max_rows` rows a random sample of that many is used. Costs `O(max_rows * d * min(d, 2048))`.

    Args:
        Z: Latents, shape `(n, d)`, finite.
        k: Number of components wanted, at least 1; `None` takes `config.components`.
        rng: Source of the row sample and of the randomised SVD's start.
        config: Limits on rows and width, and what counts as rounding.

    Returns:
        A `Reduction` with at most `min(k, n - 1, d)` components.

    Raises:
        InvalidInputError: When all rows are equal, so that there is no direction of variance.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> Z = rng.normal(size=(200, 5)) * [9, 3, 1, 1, 1]
        >>> reduction = principal_components(Z, 2, rng=rng)
        >>> reduction.transform(Z).std(axis=0).round(2).tolist()
        [1.0, 1.0]
    """
    n, d = Z.shape
    sample = Z if n <= config.max_rows else Z[np.sort(rng.choice(n, config.max_rows, replace=False))]
    mean: Array = np.asarray(np.mean(sample, axis=0, dtype=np.float64))
    k = max(1, min(config.components if k is None else k, len(sample) - 1, d))
    if d <= config.max_covariance_dim:
        covariance = np.zeros((d, d))
        precision = np.result_type(Z.dtype, np.float32)  # float16 is too coarse; float64 is asked for by passing it
        for chunk in row_chunks(len(sample)):
            centred = (sample[chunk] - mean).astype(precision)
            covariance += centred.T @ centred
        values, vectors = eigh(covariance / len(sample), subset_by_index=[d - k, d - 1])
        variance, components = values[::-1], vectors.T[::-1]
    else:
        centred = (sample - mean).astype(np.float32)
        _, singular, rows = randomized_svd(centred, k, random_state=int(rng.integers(2**31)))
        variance, components = singular.astype(np.float64) ** 2 / len(sample), rows.astype(np.float64)
    scale = np.sqrt(np.maximum(variance, 0.0))
    size = float(np.sqrt(np.mean(mean**2)))
    keep = scale > max(config.rank_tolerance * float(scale[0]), config.mean_tolerance * size)
    if not keep.any():
        raise InvalidInputError(
            f"All {n} latents are equal (shape {Z.shape}): there is no direction of variance to look along. "
            "Pass the encoder's pooled output before the head, and check that the encoder's inputs differ."
        )
    return Reduction(mean=mean, components=components[keep], scale=scale[keep])


def usable_components(components: tuple[int, ...], width: int, n: int, rows_per_component: int) -> list[int]:
    """Those numbers of components that the data support; at least one.

    Args:
        components: Numbers of components wanted, rising.
        width: Number of components that there are.
        n: Number of examples.
        rows_per_component: Fewest examples per component.

    Example:
        >>> usable_components((16, 64, 256), 200, 1000, 5), usable_components((16, 64), 8, 1000, 5)
        ([16, 64], [8])
    """
    most = min(width, max(n // rows_per_component, 2))
    return [k for k in components if k <= most] or [most]


def without_directions(
    X: ReducedLatents,
    reduction: Reduction,
    basis: Array,
    *,
    rng: np.random.Generator,
    config: ReductionConfig = DEFAULT_CONFIG.reduction,
) -> tuple[ReducedLatents, Reduction]:
    """Reduced latents and their reduction as if the directions `basis` did not exist.

    Args:
        X: Coordinates by `reduction`, shape `(n, k)`.
        reduction: Of the latents.
        basis: Orthonormal directions in the span of its components, shape `(d, r)`, `r < k`.
        rng: Source of a row sample, see `principal_components`.
        config: See `principal_components`.

    Returns:
        New coordinates `(n, k - r)` of unit variance, computed when asked for, and the `Reduction` from the latents to
        them.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> Z = rng.normal(size=(500, 3)) * [9, 3, 1]
        >>> reduction = principal_components(Z, 3, rng=rng)
        >>> X, rest = without_directions(reduction.transform(Z), reduction, np.eye(3)[:, :1], rng=rng)
        >>> X.shape, bool(np.abs(rest.components @ np.eye(3)[:, 0]).max() < 1e-6)
        ((500, 2), True)
    """
    inside = reduction.components @ basis
    n = len(X)
    U = X[:] if n <= config.max_rows else X[np.sort(rng.choice(n, config.max_rows, replace=False))]
    U = U * reduction.scale.astype(U.dtype)
    U -= (U @ inside.astype(U.dtype)) @ inside.T.astype(U.dtype)
    # What is left of the directions is rounding: fewer components are asked for, so that it gets none.
    rest = principal_components(U, reduction.dim - basis.shape[1], rng=rng, config=config)
    composed = Reduction(
        reduction.mean + rest.mean @ reduction.components, rest.components @ reduction.components, rest.scale
    )
    if n <= config.max_rows:
        return rest.transform(U), composed
    if isinstance(X, ReducedRows):
        return composed.rows(X.source), composed
    back = reduction.scale[:, None] * (rest.components / rest.scale[:, None]).T
    return ReducedRows(X, rest.mean / reduction.scale, back), composed

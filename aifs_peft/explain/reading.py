"""Read the attribute's value off a latent, without its label: a linear score per value, fitted on training latents."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.errors import InvalidInputError

Array = NDArray[np.floating]
Ints = NDArray[np.int64]

FOLDS = 5
# Of more examples a random choice is read; a linear reader gains little from further ones.
MOST_ROWS = 10_000
# Ridge on the within-value covariance in units of its mean eigenvalue, and how much scores are flattened: both are
# chosen on held-out folds, since scores of the examples they were fitted on are surer than those of new ones.
RIDGES = (0.01, 0.1, 1.0, 10.0)
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.05, 2.0, 25))
PRIOR_STEPS = 200
# Bias of a value that no training example has: it is never read.
_NEVER = -1e9


def fit_reader(z: Tensor, labels: Tensor, values: Tensor, displacements: Tensor) -> tuple[Tensor, Tensor]:
    """A linear reader of the attribute, the same for every class.

    A discriminant of the attribute's values with the displacements that discovery has found. What differs between the
    classes counts as noise, so that the reader works without labels. Ridge and temperature are chosen by the
    log-likelihood of held-out folds in which every cell of label and value counts alike; the confidence of a reading is
    therefore that of new examples in which attribute and label are independent.

    Args:
        z: training latents, `(n, d)`.
        labels: `(n,)` int64.
        values: inferred attribute values, `(n,)` int64 in `[0, A)`.
        displacements: one per value, `(A, d)`.

    Returns:
        `centre (d,)`, the latent in the middle between classes and values, and `reader (A, d + 1)`: scores are
        `z @ reader[:, :-1].T + reader[:, -1]`. Both float32. The reader has no rows where fewer than two values occur.

    Raises:
        InvalidInputError: if the lengths differ, or all latents are equal.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.arange(400) % 2; a = torch.where(torch.rand(400, generator=generator) < 0.9, y, 1 - y)
        >>> z = torch.randn(400, 3, generator=generator); z[:, 0] += 6 * a; z[:, 1] += 6 * y
        >>> beta = torch.tensor([[-3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
        >>> centre, reader = fit_reader(z, y, a, beta)
        >>> read = read_attribute(z, reader)
        >>> bool((read.argmax(1) == a).float().mean() > 0.99), bool((centre[:2] - 3).abs().max() < 0.3)
        (True, True)
    """
    if not len(z) == len(labels) == len(values):
        raise InvalidInputError(
            f"z, labels and values must have one row per example, got {len(z)}, {len(labels)} and {len(values)}"
        )
    if len(z) > MOST_ROWS:
        rows = torch.as_tensor(np.sort(np.random.default_rng(0).choice(len(z), MOST_ROWS, replace=False)))
        z, labels, values = z[rows], labels[rows], values[rows]
    latents, beta = z.detach().cpu().double().numpy(), displacements.detach().cpu().double().numpy()
    y, a = labels.cpu().numpy(), values.cpu().numpy()
    occurring = np.unique(a)
    offsets = np.zeros_like(beta)
    offsets[occurring] = beta[occurring] - beta[occurring].mean(axis=0)
    rest = latents - offsets[a]
    weight = _cell_weights(y)
    centre = weight @ rest
    if len(occurring) < 2:
        return torch.as_tensor(centre).float(), torch.zeros(0, z.shape[1] + 1)
    reduction = principal_components(latents, rng=np.random.default_rng(0))
    down = reduction.components.T
    X, R, shifts = latents @ down, rest @ down, offsets[occurring] @ down
    ridge, temperature = _chosen(X, R, shifts, y, np.searchsorted(occurring, a))
    weights, bias = _discriminant(*_moments(R, weight), shifts, ridge)
    reader = np.zeros((len(beta), z.shape[1] + 1))
    reader[:, -1] = _NEVER
    reader[occurring, :-1] = temperature * weights @ down.T
    reader[occurring, -1] = temperature * bias
    return torch.as_tensor(centre).float(), torch.as_tensor(reader).float()


def read_attribute(z: Tensor, reader: Tensor) -> Tensor:
    """Probability of each attribute value, `(n, A)`, as if all values were equally frequent.

    Args:
        z: latents, `(n, d)`.
        reader: `(A, d + 1)`, of `fit_reader`.

    Raises:
        InvalidInputError: for a reader without rows, or of another width.

    Example:
        >>> reader = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> read_attribute(torch.tensor([[0.0, 9.0], [2.0, 9.0]]), reader).round(decimals=2)
        tensor([[0.5000, 0.5000],
                [0.0200, 0.9800]])
    """
    return attribute_scores(z, reader).softmax(dim=1)


def infer_values(z: Tensor, labels: Tensor, reader: Tensor) -> Tensor:
    """Attribute values of labelled examples, `(n, A)` probabilities, whatever the association of label and value here.

    How frequent each value is in each class is fitted to these examples by EM (Saerens et al. 2002, "Adjusting the
    outputs of a classifier to new a priori probabilities"), so that a test set of another bias than the training set's
    is read rightly, too.

    Args:
        z: latents, `(n, d)`.
        labels: `(n,)` int64.
        reader: `(A, d + 1)`, of `fit_reader`.

    Raises:
        InvalidInputError: for a reader without rows, or of another width.

    Example:
        >>> reader = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> z = torch.tensor([[-3.0]] * 19 + [[0.1]])
        >>> infer_values(z, torch.zeros(20, dtype=torch.int64), reader).argmax(1)[-1].item()
        0
    """
    return values_of_scores(attribute_scores(z.detach().cpu().double(), reader.cpu()), labels)


def values_of_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """The same as `infer_values`, from scores.

    Args:
        scores: of `attribute_scores`, `(n, A)`.
        labels: `(n,)` int64.

    Example:
        >>> values_of_scores(torch.tensor([[0.0, 9.0], [9.0, 0.0]]), torch.tensor([0, 1])).argmax(1)
        tensor([1, 0])
    """
    likelihood, y = scores.detach().cpu().double().softmax(dim=1), labels.cpu()
    onehot = torch.nn.functional.one_hot(y).double()
    prior = torch.full((onehot.shape[1], likelihood.shape[1]), 1.0 / likelihood.shape[1], dtype=torch.float64)
    posterior = likelihood
    for _ in range(PRIOR_STEPS):
        weighted = likelihood * prior[y]
        posterior = weighted / weighted.sum(dim=1, keepdim=True).clamp_min(1e-300)
        # One example of every value in each class beside those that there are: no value is ruled out.
        fitted = (onehot.T @ posterior + 1.0) / (onehot.sum(0)[:, None] + likelihood.shape[1])
        if torch.allclose(fitted, prior, atol=1e-6, rtol=0):
            break
        prior = fitted
    return posterior


def attribute_scores(z: Tensor, reader: Tensor) -> Tensor:
    """Scores of the attribute values, `(n, A)`, whose softmax is `read_attribute`; gradients flow to `z`.

    Args:
        z: latents, `(n, d)`.
        reader: `(A, d + 1)`.

    Raises:
        InvalidInputError: for a reader without rows, or of another width.
    """
    if reader.ndim != 2 or not len(reader) or reader.shape[1] != z.shape[1] + 1:
        raise InvalidInputError(
            f"latents of width {z.shape[1]} need a reader of shape (values, {z.shape[1] + 1}), got "
            f"{tuple(reader.shape)}; fit one with aifs_peft.explain.fit_reader on training latents"
        )
    reader = reader.to(z.device, z.dtype)
    return z @ reader[:, :-1].T + reader[:, -1]


def _cell_weights(cells: Ints) -> Array:
    """Weights that sum to one and give every cell that occurs the same share."""
    _, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(counts) * counts[place]), dtype=np.float64)


def _moments(R: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted mean `(k,)` and covariance `(k, k)`."""
    middle = weight @ R
    centred = R - middle
    return middle, (centred * weight[:, None]).T @ centred


def _discriminant(middle: Array, covariance: Array, shifts: Array, ridge: float) -> tuple[Array, Array]:
    """Weights `(V, k)` and biases `(V,)` of the values, whose clusters lie at `shifts` around `middle`."""
    size = len(covariance)
    weights = np.linalg.solve(covariance + ridge * np.trace(covariance) / size * np.eye(size), shifts.T).T
    return weights, -weights @ middle - 0.5 * np.sum(weights * shifts, axis=1)


def _chosen(X: Array, R: Array, shifts: Array, y: Ints, value: Ints) -> tuple[float, float]:
    """Ridge and temperature with the best held-out log-likelihood, cells of label and value counted alike."""
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    cell, rows = _cell_weights(y * len(shifts) + value), np.arange(len(y))
    held_out = [X[fold == k] for k in range(FOLDS)]
    moments = [_moments(R[fold != k], _cell_weights(y[fold != k])) for k in range(FOLDS)]
    best = (np.inf, RIDGES[-1], TEMPERATURES[0])
    for ridge in RIDGES:
        scores = np.empty((len(y), len(shifts)))
        for k in range(FOLDS):
            weights, bias = _discriminant(*moments[k], shifts, ridge)
            scores[fold == k] = held_out[k] @ weights.T + bias
        scores -= scores.max(axis=1, keepdims=True)
        own = scores[rows, value]
        for temperature in TEMPERATURES:
            told = temperature * own - np.log(np.exp(temperature * scores).sum(axis=1))
            best = min(best, (float(-cell @ told), ridge, temperature))
    return best[1], best[2]

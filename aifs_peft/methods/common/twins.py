"""XRM's twins: two linear classifiers that flip each other's labels, so that both come to rely on the shortcut.

Paper: Pezeshki et al., ICML 2024, Discovering Environments with XRM.

1. Each training example belongs to one of two classifiers, drawn once with probability 1/2. Both start at zero.
2. In each step the owner of an example is trained on its current label. The loss is the sum over the classes present
   of the mean cross-entropy in that class.
3. The other classifier, which never trains on the example, predicts class c with probability p. The training label
   becomes c with probability `(p - 1/K) K / (K - 1)`, and stays so.
4. An example, of training or of validation, gets the environment bit 1 if either classifier mispredicts its original
   label.

Hyper-parameters are chosen without labels of environments: of 10 draws the one with the largest final share of flipped
labels is kept; a draw in which every label of a class was flipped scores 0.

Differs from the paper: latents are standardised and have a constant appended (the paper's are raw features of a
ResNet-50, its one-minute version has no bias). Learning rates are multiplied by 2048 / d, so that a step moves the
logits as much as with that network's 2,048 features. Batches hold 128 examples, the upper end of its 2^U(5,7), and are
shared by all draws, which so cost little more than one. Momentum alone is used, where the paper also draws Adam. The
draw that is kept is used as it is, not run again with other seeds.

Defaults: steps 2 to 4, the selection, linear twins on stored features, learning rate 10^U(-5,-3) with momentum 0.9,
weight decay 10^U(-6,-3) and 5,000 steps (5,001 on Waterbirds) are those of the paper's code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from aifs_peft._checks import check_count
from aifs_peft.errors import InvalidConfigError, NonFiniteError

Array = NDArray[np.float32]
# Width of the features that the paper's learning rates belong to (ResNet-50).
_PAPER_WIDTH = 2048.0
_MOMENTUM = 0.9
# Keeps the twins' draws apart from others of the same seed.
_STREAM = 0x78726D


@dataclass(frozen=True)
class TwinOptions:
    """Numbers of XRM's first phase.

    Attributes:
        draws: how many settings are tried, at least 1.
        steps: of each, at least 1.
        batch_size: at least 2.
        learning_rates: exponents of ten between which the learning rate is drawn (for 2,048 features).
        weight_decays: exponents of ten between which the weight decay is drawn.
    """

    draws: int = 10
    steps: int = 5000
    batch_size: int = 128
    learning_rates: tuple[float, float] = (-5.0, -3.0)
    weight_decays: tuple[float, float] = (-6.0, -3.0)

    def __post_init__(self) -> None:
        check_count("draws", self.draws, 1)
        check_count("steps", self.steps, 1)
        check_count("batch_size", self.batch_size, 2)
        for name in ("learning_rates", "weight_decays"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not -12 <= bounds[0] <= bounds[1] <= 3:
                raise InvalidConfigError(f"{name} must be two exponents of ten, low <= high, in [-12, 3]; got {bounds}")


@dataclass(frozen=True)
class Twins:
    """The twins of the draw that was kept.

    Attributes:
        weight: `(2, classes, dim)`, on latents as they are given.
        bias: `(2, classes)`.
        flip_rate: share of the training labels that were flipped in the end.
        flip_rates: of all draws; 0 where a whole class was flipped.
        learning_rate: of the kept draw, as drawn.
        weight_decay: of the kept draw.
    """

    weight: Tensor
    bias: Tensor
    flip_rate: float
    flip_rates: tuple[float, ...]
    learning_rate: float
    weight_decay: float

    def mistakes(self, z: Tensor, y: Tensor) -> Tensor:
        """The environment bit of examples: 1 if either twin mispredicts.

        Args:
            z: latents `(n, dim)`, of any set.
            y: original labels `(n,)`.

        Returns:
            `(n,)` int64, 0 or 1.
        """
        logits = torch.einsum("nd,tkd->ntk", z.float(), self.weight) + self.bias
        return (logits.argmax(2) != y[:, None]).any(1).long()


def flip_probability(probabilities: Array) -> Array:
    """With which probability an example's label becomes the class its held-out twin predicts.

    Args:
        probabilities: of the held-out twin, `(..., K)`.

    Returns:
        `(max_k p_k - 1/K) K / (K - 1)`, `(...)` in [0, 1].

    Example:
        >>> flip_probability(np.array([[0.5, 0.5], [0.0, 1.0]], dtype=np.float32)).tolist()
        [0.0, 1.0]
    """
    classes = probabilities.shape[-1]
    chance: Array = (probabilities.max(-1) - 1.0 / classes) * (classes / (classes - 1.0))
    return chance


def fit_twins(z: Tensor, y: Tensor, num_labels: int, options: TwinOptions, seed: int) -> Twins:
    """XRM's first phase: train twins under every draw, keep those that flipped most.

    Args:
        z: latents `(n, dim)`, finite.
        y: labels `(n,)` int64 in `[0, num_labels)`.
        num_labels: K, at least 2.
        options: see `TwinOptions`.
        seed: of the settings, the owners, the batches and the flips.

    Returns:
        The twins; `twins.mistakes(z, y)` gives the environments.

    Raises:
        NonFiniteError: if a twin's weights are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.arange(400) % 2
        >>> shortcut = torch.where(torch.arange(400) < 20, 1 - y, y)
        >>> z = torch.randn(400, 4, generator=generator); z[:, 0] += 8 * shortcut; z[:, 1] += y
        >>> twins = fit_twins(z, y, 2, TwinOptions(draws=2, steps=300), seed=0)
        >>> round(float((twins.mistakes(z, y) == (shortcut != y)).float().mean()), 1)
        1.0
    """
    rng = np.random.default_rng([seed, _STREAM])
    latents = z.detach().float().numpy()
    centre, scale = latents.mean(0), latents.std(0)
    # A dimension that hardly moves is noise of the float format: it stays as small as it is.
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-30), scale, 1.0)
    X = np.concatenate([(latents - centre) / scale, np.ones((len(latents), 1), dtype=np.float32)], axis=1)
    rates = 10.0 ** rng.uniform(*options.learning_rates, options.draws)
    decays = 10.0 ** rng.uniform(*options.weight_decays, options.draws)
    labels = y.numpy()
    weights, flipped = _train(X.astype(np.float32), labels, num_labels, options, rates, decays, rng)
    if not np.isfinite(weights).all():
        raise NonFiniteError("XRM's twins are not finite; lower learning_rates, and check the latents")
    scores = [_flip_score(flipped[:, draw], labels) for draw in range(options.draws)]
    best = int(np.argmax(scores))
    # (d + 1, 2, K) -> (2, K, d + 1), and the standardisation folded in.
    kept = torch.from_numpy(weights[:, best].transpose(1, 2, 0).copy())
    weight = kept[..., :-1] / torch.from_numpy(scale)
    bias = kept[..., -1] - weight @ torch.from_numpy(centre)
    return Twins(weight, bias, scores[best], tuple(scores), float(rates[best]), float(decays[best]))


def _flip_score(current: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of flipped labels; 0 if no example of some class has kept its label."""
    flipped = current != labels
    if any(bool(flipped[labels == label].all()) for label in np.unique(labels)):
        return 0.0
    return float(flipped.mean())


def _train(
    X: Array,
    y: NDArray[np.int64],
    num_labels: int,
    options: TwinOptions,
    rates: NDArray[np.float64],
    decays: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[Array, NDArray[np.int64]]:
    """All draws side by side: weights `(d + 1, draws, 2, K)` and the final labels `(n, draws)`."""
    (n, width), draws, K = X.shape, options.draws, num_labels
    labels = np.repeat(y[:, None], draws, axis=1)
    owner = rng.integers(2, size=(n, draws))
    weights = np.zeros((width, draws, 2, K), dtype=np.float32)
    velocity = np.zeros_like(weights)
    rate = (rates * _PAPER_WIDTH / (width - 1)).astype(np.float32)[:, None, None]
    decay = decays.astype(np.float32)[:, None, None]
    batch, order, at = min(options.batch_size, n), rng.permutation(n), 0
    for _ in range(options.steps):
        if at + batch > n:
            order, at = rng.permutation(n), 0
        rows, at = order[at : at + batch], at + batch
        inside, own, current = X[rows], owner[rows], labels[rows]
        logits = (inside @ weights.reshape(width, -1)).reshape(batch, draws, 2, K)
        held_in = softmax(np.take_along_axis(logits, own[:, :, None, None], 2), axis=-1)
        held_out = softmax(np.take_along_axis(logits, 1 - own[:, :, None, None], 2)[:, :, 0], axis=-1)
        target = current[:, :, None] == np.arange(K)
        # Sum over classes of the mean loss in each: an example weighs one over the size of its current class.
        per_class = target / np.maximum(target.sum(0), 1)
        slope = np.zeros_like(logits)
        np.put_along_axis(
            slope,
            own[:, :, None, None],
            (held_in[:, :, 0] * per_class.sum(2, keepdims=True) - per_class)[:, :, None].astype(np.float32),
            2,
        )
        gradient = (inside.T @ slope.reshape(batch, -1)).reshape(weights.shape)
        velocity = _MOMENTUM * velocity + gradient + decay * weights
        weights = weights - rate * velocity
        flips = rng.random((batch, draws), dtype=np.float32) < flip_probability(held_out)
        labels[rows] = np.where(flips, held_out.argmax(2), current)
    return weights, labels

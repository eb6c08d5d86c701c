"""LEIA-style: the last layer is adjusted along the few directions in which the first model's errors vary.

Paper: Gourabathina, Jeong, Bergamaschi, Ghassemi and Stultz 2026, Robustness Beyond Known Groups with Low-rank
Adaptation, arXiv 2602.06924.

Formula: plain training on 80 % of the training set. On the other 20 %, with `h_i` the features that enter the last
linear layer `W h + b` and `p_i = p(y_i | x_i)` of that model,

    mu_i proportional to exp(gamma (1 - p_i)), sum_i mu_i = 1
    Sigma = sum_i mu_i (h_i - h_mean)(h_i - h_mean)', h_mean = sum_i mu_i h_i
    V (d, k): the leading eigenvectors of Sigma
    min_A sum_i mu_i CE(W h_i + b + A V' h_i, y_i) + penalty ||A||^2

by full-batch Adam from `A = 0`. `W + A V'` becomes the last layer; the rest stays as it is.

Supervision: labels only.

Differs from the paper: the loss that A is fitted with is this library's; the second stage has a held-out share of the
training set. The weights, the weighted covariance, its eigenvectors and the adjustment of the logits are those of the
authors' read-me; what A is fitted with, and on which examples, it does not say. Hence "LEIA-style".

Cannot: change what a prediction does with directions outside the few it adjusts; tell conflicting examples from
mislabelled ones, both of which have a low `p_i`. A fifth of the training set is not seen by the first stage.

Extra cost: one pass of the encoder over the training set after training, an eigendecomposition of a `d x d` matrix and
1,000 steps on `k` numbers per class; nothing per step.

Defaults: `rank = 1`, `gamma = 10`, `learning_rate = 0.01`, `steps = 1000` and `penalty = 0` are those of the read-me's
example; it advises to tune rank and gamma. On latents that a head fits well `gamma = 10` leaves the weight to a few
examples (see the logged `leia_effective_share`) and the adjustment can go past the mark, to a head that is right on
conflicting examples alone. `held_out = 0.2` is this library's, as in `afr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import NonFiniteError
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.held_out import require_class_sizes, stratified_rows
from aifs_peft.methods.common.last_linear import embed_all, last_linear
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.registry import register


@dataclass(frozen=True)
class LEIAOptions:
    """Numbers of LEIA-style adaptation.

    Args:
        rank: k, directions that are adjusted, at least 1.
        gamma: how strongly weights fall with confidence, at least 0.
        penalty: weight of the squared adjustment, at least 0.
        learning_rate: of the adjustment, above 0.
        steps: of the adjustment, at least 1.
        held_out: share of every class that the adjustment gets, in (0, 0.9].

    Raises:
        InvalidConfigError: for a value out of range.
    """

    rank: int = 1
    gamma: float = 10.0
    penalty: float = 0.0
    learning_rate: float = 0.01
    steps: int = 1000
    held_out: float = 0.2

    def __post_init__(self) -> None:
        check_count("rank", self.rank)
        check_number("gamma", self.gamma, 0.0)
        check_number("penalty", self.penalty, 0.0)
        check_number("learning_rate", self.learning_rate, 0.0, above=True)
        check_count("steps", self.steps)
        check_number("held_out", self.held_out, 0.0, 0.9, above=True)


@register
class LEIA(Method):
    """Plain training on a part of the training set, then a low-rank adjustment of the last layer on the rest.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("leia").options.rank
        1
    """

    name: ClassVar[str] = "leia"
    title: ClassVar[str] = "LEIA-style"
    paper: ClassVar[str] = "Gourabathina et al. 2026, Robustness Beyond Known Groups with Low-rank Adaptation"
    differs: ClassVar[str] = (
        "the loss that A is fitted with is this library's; the second stage has a held-out share of the training set"
    )
    cost: ClassVar[str] = "a fifth of the training set held out; one encoder pass and a small fit after training"
    Options: ClassVar[type[Any]] = LEIAOptions
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"
    redraws_held_out = True

    def check(self, setup: Setup) -> None:
        """See `Method.check`; the head must have a last linear layer."""
        super().check(setup)
        last_linear(setup.head)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: refuses classes too small to be split, before training."""
        assert context.labels is not None  # noqa: S101 - both training loops give them
        require_class_sizes(context.labels, 2, self.name)

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: the held-out part is never trained on."""
        return Sampling(weights=(~self._held_out(labels, context.seed)).double())

    def finish(self, context: EpochContext) -> dict[str, float]:
        """See `Method.finish`: adjusts the last layer on the held-out part, with the model that was kept."""
        assert context.encode is not None  # noqa: S101 - both training loops give it
        latents = context.encode()
        rows = self._held_out(latents.labels, context.seed)
        layer, options = last_linear(context.head), self.options
        features = embed_all(context.head, latents.z[rows], context.device)
        weight = layer.weight.detach().float().cpu()
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().cpu()

        def fit() -> tuple[Tensor, float]:
            weights = error_weights(F.linear(features, weight, bias), latents.labels[rows], options.gamma)
            basis = error_directions(features, weights, options.rank)
            adjustment = adjusted_logits(
                features @ basis, F.linear(features, weight, bias), latents.labels[rows], weights,
                penalty=options.penalty, learning_rate=options.learning_rate, steps=options.steps,
            )  # fmt: skip
            return adjustment @ basis.T, float(1.0 / (weights.square().sum() * len(weights)))

        change, effective = context.on_main(fit)
        with torch.no_grad():
            layer.weight.add_(change.to(layer.weight.device, layer.weight.dtype))
        return {"leia_effective_share": effective, "leia_change": float(change.norm() / weight.norm())}

    def _held_out(self, labels: Tensor, seed: int) -> Tensor:
        return stratified_rows(labels, self.options.held_out, seed)


def error_weights(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Weights of examples, `exp(gamma (1 - p_y))` normalised.

    Args:
        logits: of the first stage's model, `(m, K)`.
        labels: `(m,)` int64.
        gamma: at least 0.

    Returns:
        `(m,)` float32, summing to one.

    Example:
        >>> error_weights(torch.tensor([[50.0, 0.0], [0.0, 50.0]]), torch.tensor([0, 0]), 2.0)
        tensor([0.1192, 0.8808])
    """
    p = logits.double().softmax(1).gather(1, labels[:, None]).squeeze(1)
    return (gamma * (1 - p)).softmax(0).float()


def error_directions(features: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Leading eigenvectors of the weighted covariance.

    Args:
        features: `(m, width)`.
        weights: `(m,)`, summing to one.
        rank: how many, at most `width` are given.

    Returns:
        `(width, k)` with orthonormal columns, strongest first.

    Example:
        >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> error_directions(features, torch.full((4,), 0.25), 1).abs().squeeze(1).tolist()
        [1.0, 0.0]
    """
    wide = features.double()
    centred = wide - weights.double() @ wide
    _, vectors = torch.linalg.eigh(centred.T @ (weights.double()[:, None] * centred))
    leading: Tensor = vectors[:, -rank:].flip(1).float().contiguous()
    return leading


def adjusted_logits(
    projected: Tensor,
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    penalty: float,
    learning_rate: float,
    steps: int,
) -> Tensor:
    """The adjustment that makes weighted logits right, by full-batch Adam from zero.

    Args:
        projected: features along the directions, `(m, k)`.
        logits: of the first stage's model, `(m, K)`.
        labels: `(m,)` int64.
        weights: `(m,)`, summing to one.
        penalty: of the squared adjustment.
        learning_rate: of Adam.
        steps: number of steps.

    Returns:
        `(K, k)`.

    Raises:
        NonFiniteError: if it is not finite.

    Example:
        >>> projected, labels = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
        >>> change = adjusted_logits(
        ...     projected, torch.zeros(2, 2), labels, torch.tensor([0.5, 0.5]), penalty=0.0, learning_rate=0.1, steps=1
        ... )
        >>> change.squeeze(1)
        tensor([ 0.1000, -0.1000])
    """
    adjustment = torch.zeros(logits.shape[1], projected.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([adjustment], lr=learning_rate)
    with torch.enable_grad():
        for _ in range(steps):
            losses = F.cross_entropy(logits + projected @ adjustment.T, labels, reduction="none")
            value = (weights * losses).sum() + penalty * adjustment.square().sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    if not bool(adjustment.isfinite().all()):
        raise NonFiniteError(f"the adjustment of leia is not finite after {steps} steps; lower its learning_rate")
    return adjustment.detach()

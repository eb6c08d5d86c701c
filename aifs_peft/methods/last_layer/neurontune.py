"""NeuronTune-style: dimensions in which mistakes are higher than right predictions are switched off after training.

Paper: Zheng, Ye and Zhang 2025, NeuronTune: Towards Self-Guided Spurious Bias Mitigation (ICML), arXiv 2505.24048.

Formula: plain training on 80 % of the training set. On the other 20 %, for each class y and each feature i that enters
the last linear layer, with medians over the examples of the class that the model gets wrong and right,

    delta_i^y = median(wrong) - median(right)

Feature i is biased if `delta_i^y > threshold` for every class (`classes="all"`) or for one (`"any"`). Its column of the
last layer is set to zero, and the others are trained again on class-balanced batches of the first part.

Supervision: labels only. The paper selects models by the sum of all `|delta|`, without groups; this is left to the
trainer's selection rule here.

Differs from the paper: it is built from a description of the paper; mistakes are looked for on a held-out share of the
training set. The paper looks for them on the validation set, which on some data sets is balanced within each class; on
examples that were trained on it works badly. The optimisation of the last layer is this library's. Hence
"NeuronTune-style".

Cannot: see a shortcut that is spread over many features, or latents that are signed: a rotation of the features changes
what it finds, and it is meant for features that come out of a ReLU, where a high value means that something is present.
A class without mistakes says nothing, and without any mistake the last layer is only balanced.

Extra cost: one pass of the encoder over the training set after training, and a small fit of the last layer; a fifth of
the training set is held out.

Defaults: `threshold = 0` and full suppression are the paper's. `held_out = 0.2`, `epochs = 20`, Adam with
`learning_rate = 1e-3` and batches of 128 are this library's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import NonFiniteError
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.draw_rates import draw_rates
from aifs_peft.methods.common.held_out import require_class_sizes, stratified_rows
from aifs_peft.methods.common.last_linear import embed_all, last_linear
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.registry import register

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NeuronTuneOptions:
    """Numbers of NeuronTune-style suppression.

    Args:
        threshold: lambda, of the difference of medians.
        classes: whether a feature must be above it for "all" classes or for "any".
        held_out: share of every class on which mistakes are looked for, in (0, 0.9].
        epochs: of the last layer, at least 0.
        learning_rate: of the last layer, above 0.
        batch_size: of the last layer, at least 1.

    Raises:
        InvalidConfigError: for a value out of range.
    """

    threshold: float = 0.0
    classes: str = "all"
    held_out: float = 0.2
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold)
        check_choice("classes", self.classes, ("all", "any"))
        check_number("held_out", self.held_out, 0.0, 0.9, above=True)
        check_count("epochs", self.epochs, 0)
        check_number("learning_rate", self.learning_rate, 0.0, above=True)
        check_count("batch_size", self.batch_size)


@register
class NeuronTune(Method):
    """Plain training on a part of the training set, then the last layer again without biased features.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("neurontune").options.threshold
        0.0
    """

    name: ClassVar[str] = "neurontune"
    title: ClassVar[str] = "NeuronTune-style"
    paper: ClassVar[str] = "Zheng et al. 2025, NeuronTune: Towards Self-Guided Spurious Bias Mitigation (ICML)"
    differs: ClassVar[str] = (
        "it is built from a description of the paper; mistakes are looked for on a held-out share of the training set"
    )
    cost: ClassVar[str] = "a fifth of the training set held out; one encoder pass and a small fit after training"
    Options: ClassVar[type[Any]] = NeuronTuneOptions
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
        """See `Method.finish`: switches biased features off and trains the last layer again."""
        assert context.encode is not None  # noqa: S101 - both training loops give it
        latents = context.encode()
        held, labels = self._held_out(latents.labels, context.seed), latents.labels
        layer, options = last_linear(context.head), self.options
        features = embed_all(context.head, latents.z, context.device)
        weight = layer.weight.detach().float().cpu()
        bias = None if layer.bias is None else layer.bias.detach().float().cpu()

        def fit() -> tuple[Tensor, Tensor | None, int, float]:
            predicted = F.linear(features[held], weight, bias).argmax(1)
            biased = biased_features(
                features[held], labels[held], predicted, threshold=options.threshold, every=options.classes == "all"
            )
            new = retrained_without(
                features[~held], labels[~held], weight, bias, biased, epochs=options.epochs,
                learning_rate=options.learning_rate, batch_size=options.batch_size, seed=context.seed,
            )  # fmt: skip
            return *new, int(biased.sum()), float((predicted != labels[held]).float().mean())

        new_weight, new_bias, count, mistakes = context.on_main(fit)
        if not count:
            logger.warning("neurontune found no biased feature: the last layer is trained again, class-balanced")
        with torch.no_grad():
            layer.weight.copy_(new_weight)
            if new_bias is not None:
                layer.bias.copy_(new_bias)
        return {"held_out_mistakes": mistakes, "biased_features": float(count)}

    def _held_out(self, labels: Tensor, seed: int) -> Tensor:
        return stratified_rows(labels, self.options.held_out, seed)


def biased_features(features: Tensor, labels: Tensor, predicted: Tensor, *, threshold: float, every: bool) -> Tensor:
    """Features in which the median of a class's mistakes exceeds that of its right predictions.

    Args:
        features: `(m, width)`.
        labels: `(m,)` int64.
        predicted: `(m,)` int64.
        threshold: by how much.
        every: for every class that has both mistakes and right predictions, or for one of them.

    Returns:
        `(width,)` bool; all False where no class has both.

    Example:
        >>> features = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 5.0], [3.0, 5.0]])
        >>> labels, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0])
        >>> biased_features(features, labels, predicted, threshold=0.0, every=True).tolist()
        [True, False]
    """
    above = []
    for label in torch.unique(labels):
        mine = labels == label
        wrong, right = mine & (predicted != labels), mine & (predicted == labels)
        if bool(wrong.any()) and bool(right.any()):
            # torch's median of an even number is the lower of the two in the middle, which would bias the difference.
            delta = features[wrong].double().quantile(0.5, dim=0) - features[right].double().quantile(0.5, dim=0)
            above.append(delta > threshold)
    if not above:
        return torch.zeros(features.shape[1], dtype=torch.bool)
    each = torch.stack(above)
    return each.all(0) if every else each.any(0)


def retrained_without(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    biased: Tensor,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, Tensor | None]:
    """Train a last layer again, class-balanced, with some features switched off.

    Args:
        features: `(n, width)`.
        labels: `(n,)` int64.
        weight: to start from, `(K, width)`.
        bias: `(K,)`, or None for a layer without one.
        biased: features that are switched off, `(width,)` bool.
        epochs: passes over the data.
        learning_rate: of Adam.
        batch_size: examples per step.
        seed: of the order.

    Returns:
        Weight, zero for the features that are switched off, and bias.

    Raises:
        NonFiniteError: if the weights are not finite.

    Example:
        >>> off = torch.tensor([True, False])
        >>> weight, _ = retrained_without(
        ...     torch.randn(8, 2), torch.arange(8) % 2, torch.ones(2, 2), None, off, epochs=1, learning_rate=0.1,
        ...     batch_size=4, seed=0,
        ... )
        >>> weight[:, 0].tolist()
        [0.0, 0.0]
    """
    kept = (~biased).float()
    new = (weight * kept).requires_grad_()
    shift = None if bias is None else bias.clone().requires_grad_()
    # Weights rather than draws: every example is seen, and the expectation is that of class-balanced batches.
    rates = draw_rates(labels, max_repeats=float("inf"))
    optimizer = torch.optim.Adam([new] if shift is None else [new, shift], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(labels), generator=generator).split(batch_size):
                losses = F.cross_entropy(F.linear(features[rows], new * kept, shift), labels[rows], reduction="none")
                optimizer.zero_grad()
                (rates[rows] * losses).mean().backward()
                optimizer.step()
    if not bool(new.isfinite().all()):
        raise NonFiniteError("the last layer of neurontune is not finite; lower its learning_rate")
    return (new * kept).detach(), None if shift is None else shift.detach()

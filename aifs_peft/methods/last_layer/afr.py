"""Automatic feature reweighting (AFR): the last layer again, on held-out examples weighted by the first model's doubt.

Paper: Qiu, Potapczynski, Izmailov and Wilson 2023, Simple and Fast Group Robustness by Automatic Feature Reweighting
(ICML).

Formula: plain training on 80 % of the training set. On the other 20 %, with `p_i = p(y_i | x_i)` of that model,

    w_i proportional to beta_{y_i} exp(-gamma p_i), sum_i w_i = 1, beta_y = 1 / (held-out examples of class y),
    min_W sum_i w_i CE(W z_i, y_i) + lambda ||W - W_ERM||^2

by full-batch gradient descent from `W_ERM`, the norm of the gradient clipped to 1; the encoder stays as it is.

Supervision: labels only. The paper chooses gamma, lambda and the number of steps by the worst group of a validation set
with groups, and its published numbers are of that kind; this library does not by itself.

Differs from the paper: the penalty is on the weight alone, the bias is free; the first stage keeps n draws per epoch.
So each of its examples is seen 1.25 times. The split is drawn from the run's seed, class by class.

Cannot: use a head that is not linear; tell conflicting examples from mislabelled ones, both of which the first model
doubts. A fifth of the training set is not seen by the first stage, with a frozen encoder as well.

Extra cost: one pass of the encoder over the training set after training, 500 gradient steps on stored latents; nothing
per step.

Defaults: shares, weights, gradient descent, clipping, `learning_rate = 0.01`, `steps = 500`, `gamma = 10` and `penalty
= 0` are the official code's for Waterbirds (CelebA: 0.02, 1000, 1.44, 1e-3). They were chosen there with validation
groups and do not carry over by themselves: on latents that a linear head fits well, `gamma = 10` leaves the weight to a
handful of examples (see the logged `afr_effective_share`) and can do worse than plain training. On 2,000 tweets with
LoRA that is an effective share of 2 % of the held-out part, nearly all of them mistakes of the first model, and the new
last layer says the opposite (worst group 0.00; 0.70 with `gamma = 1.44`; one draw). Class rebalancing is
optional there and on here.
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
from aifs_peft.methods.common.last_linear import require_linear, set_linear
from aifs_peft.methods.context import EpochContext, Latents, Sampling, Setup
from aifs_peft.methods.registry import register

_CLIP = 1.0


@dataclass(frozen=True)
class AFROptions:
    """Numbers of AFR.

    Args:
        gamma: how strongly weights fall with confidence, at least 0; 0 weights by class alone.
        penalty: lambda, weight of the squared distance to the first stage's weight matrix, at least 0.
        learning_rate: of the second stage, above 0.
        steps: of the second stage, at least 1.
        held_out: share of every class that the second stage gets, in (0, 1).
        balance_classes: beta_y = 1 / class count; False is beta_y = 1.

    Example:
        >>> AFROptions(gamma=4.0).held_out
        0.2
    """

    gamma: float = 10.0
    penalty: float = 0.0
    learning_rate: float = 0.01
    steps: int = 500
    held_out: float = 0.2
    balance_classes: bool = True

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, 0.0)
        check_number("penalty", self.penalty, 0.0)
        check_number("learning_rate", self.learning_rate, 0.0, above=True)
        check_count("steps", self.steps, 1)
        check_number("held_out", self.held_out, 0.0, 0.9, above=True)


@register
class AFR(Method):
    """ERM on a part of the training set (`state.weights` 1 there, 0 on the rest), the last layer on the rest.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("afr").supervision
        'none'
    """

    name: ClassVar[str] = "afr"
    title: ClassVar[str] = "AFR"
    paper: ClassVar[str] = "Qiu et al. 2023, Simple and Fast Group Robustness by Automatic Feature Reweighting (ICML)"
    differs: ClassVar[str] = (
        "the penalty is on the weight alone, the bias is free; the first stage keeps n draws per epoch"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear head",)
    cost: ClassVar[str] = "one encoder pass and 500 steps on the last layer after training"
    Options: ClassVar[type[Any]] = AFROptions
    learns_first: ClassVar[tuple[str, ...]] = ("weights",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"

    def check(self, setup: Setup) -> None:
        """See `Method.check`: a linear head."""
        super().check(setup)
        require_linear(setup.head, self.name)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: split the training set; a run that goes on keeps its split."""
        if not context.fresh:
            return
        assert context.labels is not None  # noqa: S101 - every trainer gives them
        labels = context.labels.cpu()
        require_class_sizes(labels, 2, self.name)
        held = stratified_rows(labels, self.options.held_out, context.seed)
        context.state.update(count=False, weights=(~held).double())

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: from the first stage's part alone."""
        del labels
        return Sampling(weights=context.state.weights.cpu())

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Retrain the last layer on the held-out part, with the model that was kept."""
        assert context.encode is not None  # noqa: S101 - every trainer gives it
        latents = context.encode()
        rows = (context.state.weights.cpu() == 0).nonzero().squeeze(1)
        weight, bias = require_linear(context.head, self.name)
        start = weight.detach().float().cpu(), None if bias is None else bias.detach().float().cpu()
        part = Latents(latents.z[rows], latents.labels[rows], rows, latents.total)
        new_weight, new_bias, numbers = context.on_main(lambda: self._retrained(part, *start))
        set_linear(context.head, new_weight, new_bias, self.name)
        return numbers

    def _retrained(
        self, held: Latents, start: Tensor, start_bias: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        options = self.options
        logits = F.linear(held.z, start, start_bias)
        weights = afr_weights(logits, held.labels, options.gamma, balance_classes=options.balance_classes)
        head = retrain_last_layer(
            held.z, held.labels, weights, start, start_bias,
            penalty=options.penalty, learning_rate=options.learning_rate, steps=options.steps,
        )  # fmt: skip
        effective = float(1.0 / (weights.square().sum() * len(weights)))
        return *head, {"afr_effective_share": effective}


def afr_weights(logits: Tensor, labels: Tensor, gamma: float, *, balance_classes: bool = True) -> Tensor:
    """Weights of held-out examples, `beta_y exp(-gamma p_y)` normalised.

    Args:
        logits: of the first stage's model, `(m, K)`.
        labels: `(m,)` int64.
        gamma: at least 0.
        balance_classes: beta_y = 1 / number of examples of the class among these; else 1.

    Returns:
        `(m,)` float32, summing to one.

    Example:
        >>> afr_weights(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), 5.0)
        tensor([0.1667, 0.1667, 0.1667, 0.5000])
    """
    confidence = logits.double().softmax(1).gather(1, labels[:, None]).squeeze(1)
    weights = (-gamma * confidence).exp()
    if balance_classes:
        weights = weights / torch.bincount(labels).double()[labels]
    return (weights / weights.sum()).float()


def retrain_last_layer(
    z: Tensor,
    labels: Tensor,
    weights: Tensor,
    start: Tensor,
    start_bias: Tensor | None,
    *,
    penalty: float,
    learning_rate: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Full-batch gradient descent on the weighted cross-entropy, kept near where it began.

    Args:
        z: latents `(m, d)`.
        labels: `(m,)` int64.
        weights: `(m,)`, summing to one.
        start: weight matrix to begin with, `(K, d)`.
        start_bias: `(K,)`, or None for a head without one.
        penalty: of the squared distance of the weight matrix to `start`.
        learning_rate: step size.
        steps: number of steps.

    Returns:
        Weight `(K, d)` and bias `(K,)` (zeros where the head has none).

    Raises:
        NonFiniteError: if they are not finite.

    Example:
        >>> z = torch.tensor([[1.0], [-1.0]])
        >>> y, w = torch.tensor([0, 1]), torch.tensor([0.5, 0.5])
        >>> weight, _ = retrain_last_layer(z, y, w, torch.zeros(2, 1), None, penalty=0.0, learning_rate=0.1, steps=1)
        >>> weight.squeeze(1)
        tensor([ 0.0500, -0.0500])
    """
    weight = start.clone().requires_grad_()
    bias = torch.zeros(len(start)) if start_bias is None else start_bias.clone().requires_grad_()
    parameters = [weight] if start_bias is None else [weight, bias]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate)
    with torch.enable_grad():
        for _ in range(steps):
            losses = F.cross_entropy(F.linear(z, weight, bias), labels, reduction="none")
            objective = (weights * losses).sum() + penalty * (weight - start).square().sum()
            optimizer.zero_grad()
            objective.backward()
            torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
            optimizer.step()
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise NonFiniteError(
            f"the last layer is not finite after {steps} steps of afr; lower its learning_rate ({learning_rate}) or "
            f"penalty ({penalty})"
        )
    return weight.detach(), bias.detach()

"""Any training method on precomputed latents: the same methods as `AIFSTrainer` trains, without an encoder to run.

A frozen encoder in evaluation mode gives the same latents in every epoch, so training its head on stored ones is the
same optimisation, thousands of times faster. What a method is given, the order of examples, the learning-rate schedule
and the checks are those of `AIFSTrainer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft._checks import check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.heads import MLPHead
from aifs_peft.latent.output import LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import Latents, Method, MethodSettings, StepContext, TrainingPlan, get
from aifs_peft.training.contexts import Batch, Contexts, Offered
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.labels import check_labels
from aifs_peft.training.latents import GivenLatents
from aifs_peft.training.losses import LossTerms
from aifs_peft.training.rng import private_generator
from aifs_peft.training.sampling import occurrences

REMEDY = "lower the learning rate or the method's weights, and check that the latents have about unit variance"

Validation = tuple[Tensor, Tensor, Mapping[str, Tensor]]
"""Latents `(m, dim)`, labels `(m,)` and columns of a validation set."""

Watch = Callable[[int, nn.Module, AIFSState], Mapping[str, float]]
"""Called with epochs completed, the head and the state; gives numbers for the history."""


@dataclass(frozen=True)
class LatentSchedule:
    """The optimisation: AdamW with cosine decay, as in `AIFSTrainer`.

    Args:
        epochs: passes over the data, at least 1.
        batch_size: at least 1.
        learning_rate: of AdamW at the start, above 0.
        weight_decay: of AdamW, at least 0.
        head: "linear", "mlp" (one hidden layer, tanh), or "auto" for the method's own.
        hidden: width of the hidden layer of a head that has one, at least 1.
        mask_update_every: epochs between two looks of the method at the latents of an epoch, at least 1.

    Raises:
        InvalidConfigError: for an unknown head, or a number out of range.

    Example:
        >>> LatentSchedule(epochs=5, head="mlp").batch_size
        128
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    head: str = "auto"
    hidden: int = 64
    mask_update_every: int = 1

    def __post_init__(self) -> None:
        if self.head not in ("auto", "linear", "mlp"):
            raise InvalidConfigError(f"head must be 'auto', 'linear' or 'mlp'; got {self.head!r}")
        for name in ("epochs", "batch_size", "hidden", "mask_update_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidConfigError(f"{name} must be an integer of at least 1; got {value!r}")
        check_number("learning_rate", self.learning_rate, 0, above=True)
        check_number("weight_decay", self.weight_decay, 0)


@dataclass(frozen=True)
class LatentFit:
    """What training on latents gives.

    Attributes:
        head: latents `(batch, dim)` to logits.
        state: buffers the method filled, as in an adapter.
        history: one dictionary per epoch: mean of each term of the loss, what the method reported, what `watch` gave.
    """

    head: nn.Module
    state: AIFSState
    history: list[dict[str, float]] = field(default_factory=list)


def fit_on_latents(
    method: str,
    Z: Tensor,
    y: Tensor,
    *,
    num_labels: int,
    settings: MethodSettings | None = None,
    schedule: LatentSchedule | None = None,
    columns: Mapping[str, Tensor] | None = None,
    validation: Validation | None = None,
    watch: Watch | None = None,
) -> LatentFit:
    """Train a head on latents with one of `aifs_peft.methods.names()`.

    Args:
        method: its name.
        Z: latents `(n, dim)` float32, about unit variance.
        y: labels `(n,)` int64 in `[0, num_labels)`.
        num_labels: number of classes.
        settings: numbers of the method, its seed included, see `MethodSettings.for_method`; None takes its defaults.
        schedule: the optimisation; None takes the defaults.
        columns: what the method reads beside labels, by name, each `(n, ...)` integers.
        validation: latents, labels and columns of a validation set, for methods that fit on one.
        watch: called before the first step and after every epoch with the number of epochs completed, the head in
            evaluation mode and the state, without gradients, to look at and not to change; the numbers it returns go
            into the history.

    Returns:
        Head, state and history. Nothing is drawn from global generators.

    Raises:
        InvalidConfigError: if the method misses what it needs, or is not defined on latents.
        InvalidInputError: for labels out of range or of one class.
        NonFiniteError: if a term of the loss is not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.arange(200) % 2
        >>> Z = torch.randn(200, 4, generator=generator); Z[:, 0] += 3 * y
        >>> fit = fit_on_latents("erm", Z, y, num_labels=2, schedule=LatentSchedule(epochs=30, learning_rate=0.05))
        >>> bool((fit.head(Z).argmax(1) == y).float().mean() > 0.85)
        True

        How training went, by a function of one's own:

        >>> def accuracy(epoch, head, state):
        ...     return {"accuracy": float((head(Z).argmax(1) == y).float().mean())}
        >>> fit = fit_on_latents("erm", Z, y, num_labels=2, schedule=LatentSchedule(epochs=2), watch=accuracy)
        >>> [row["epoch"] for row in fit.history], sorted(fit.history[-1])
        ([0.0, 1.0, 2.0], ['accuracy', 'cross_entropy', 'epoch'])
    """
    check_labels(y, num_labels)
    made = get(method)(settings or MethodSettings.for_method(method))
    run = _LatentTrainer(made, Z.float(), y, num_labels, schedule or LatentSchedule(), dict(columns or {}), validation)
    return run.train(watch)


def cosine_decay(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule that `AIFSTrainer` has by default (`lr_scheduler_type="cosine"`, no warm-up), bit for bit.

    Args:
        optimizer: whose rates decay from their start to 0.
        steps: of the whole training.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> schedule = cosine_decay(optimizer, 2); optimizer.step(); schedule.step()
        >>> schedule.get_last_lr()
        [0.25]
    """

    def factor(step: int) -> float:
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step / max(1, steps)))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _require_columns(method: Method, columns: Mapping[str, Tensor], validation: Validation | None) -> None:
    if not method.on_latents:
        raise InvalidConfigError(
            f"method {method.name!r} is not defined on precomputed latents: it needs {', '.join(method.needs)}; "
            "train the model itself with AIFSTrainer"
        )
    for name in method.columns():
        if name not in columns:
            raise InvalidConfigError(
                f"method {method.name!r} reads {name!r} of every training example; pass columns={{{name!r}: ...}}"
            )
    if validation is None:
        return
    for name in method.validation_columns():
        if name not in validation[2]:
            raise InvalidConfigError(
                f"method {method.name!r} reads {name!r} of every validation example; pass "
                f"validation=(Z, y, {{{name!r}: ...}})"
            )


class _LatentTrainer:
    """One training on latents."""

    def __init__(
        self,
        method: Method,
        Z: Tensor,
        y: Tensor,
        num_labels: int,
        schedule: LatentSchedule,
        columns: Mapping[str, Tensor],
        validation: Validation | None,
    ) -> None:
        self.method, self.Z, self.schedule, self.seed = method, Z, schedule, method.settings.seed
        head = self._head(method.latent_head if schedule.head == "auto" else schedule.head, num_labels, stream=0)
        second = None if method.auxiliary == "none" else self._head(method.auxiliary, num_labels, stream=1)
        _require_columns(method, columns, validation)
        everything = Latents(Z, y, torch.arange(len(y)), len(y))
        self.contexts = Contexts(
            method=method,
            head=head,
            state=AIFSState(Z.shape[1]),
            labels=y,
            num_labels=num_labels,
            seed=self.seed,
            columns=columns,
            validation_columns={} if validation is None else validation[2],
            auxiliary=second,
            batch_size=schedule.batch_size,
            offered=_offered(everything, validation),
        )
        self.runner = EpochRunner(
            self.contexts,
            GivenLatents(everything),
            order_seed=self.seed,
            update_every=schedule.mask_update_every,
        )
        self.terms = LossTerms(remedy=REMEDY)
        self.steps_per_epoch = -(-len(y) // schedule.batch_size)

    def _head(self, kind: str, num_labels: int, stream: int) -> nn.Module:
        generator = private_generator(self.seed, stream)
        width = self.Z.shape[1]
        if kind == "mlp":
            return MLPHead(width, num_labels, (self.schedule.hidden,), "tanh", generator=generator)
        head: nn.Linear = nn.utils.skip_init(nn.Linear, width, num_labels)
        with torch.no_grad():
            head.weight.normal_(std=0.01, generator=generator)
            head.bias.zero_()
        return head

    def train(self, watch: Watch | None = None) -> LatentFit:
        """Run all epochs."""
        runner, epochs = self.runner, self.schedule.epochs
        optimizer = self._optimizer()
        schedule = cosine_decay(optimizer, epochs * self.steps_per_epoch)
        history = []
        numbers = runner.begin_training(TrainingPlan(epochs * self.steps_per_epoch, self.steps_per_epoch))
        if watch is not None:
            numbers = {**numbers, **self._watched(watch, 0)}
        if watch is not None or self.method.collects_latents in ("initial", "both"):
            history.append({"epoch": 0.0, **numbers})
        for epoch in range(epochs):
            runner.begin_epoch(epoch)
            self._epoch(epoch, optimizer, schedule)
            history.append({"epoch": epoch + 1.0, **self.terms.drain(), **runner.finish_epoch(epoch + 1)})
            if watch is not None:
                history[-1] |= self._watched(watch, epoch + 1)
        finished = runner.finish_training(epochs)
        history += [{"epoch": float(epochs), **finished}] if finished else []
        head = self.contexts.head.requires_grad_(requires_grad=False).eval()
        return LatentFit(head, self.contexts.state, history)

    def _watched(self, watch: Watch, epoch: int) -> Mapping[str, float]:
        with torch.no_grad(), evaluating(self.contexts.head):
            return watch(epoch, self.contexts.head, self.contexts.state)

    def _optimizer(self) -> torch.optim.Optimizer:
        plan, second = self.schedule, self.contexts.auxiliary
        groups: list[dict[str, Any]] = [{"params": list(self.contexts.head.parameters())}]
        if second is not None:
            rate = plan.learning_rate * self.method.auxiliary_lr_scale
            groups.append({"params": list(second.parameters()), "lr": rate, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)

    def _epoch(
        self, epoch: int, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        order, size = self.runner.sampler.order(), self.schedule.batch_size
        batches = zip(order.split(size), occurrences(order).split(size), strict=True)
        for place, (index, occurrence) in enumerate(batches):
            step = epoch * self.steps_per_epoch + place
            labels = self.contexts.labels[index]
            batch = Batch(labels, index, occurrence, step, 0, self.schedule.epochs * self.steps_per_epoch)
            latent, context = self._forward(batch)
            loss = self.terms.add(self.method.loss(latent, labels, context), latent.z, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def _forward(self, batch: Batch) -> tuple[LatentOutput, StepContext]:
        """What the adapter's layer does to a batch in the trainer, on latents that are there."""
        context, head = self.contexts.step(batch), self.contexts.head
        z = self.Z[batch.index].requires_grad_()
        intervention = self.method.intervention(context)
        if intervention is None:
            return LatentOutput(z, head(z)), context
        intervened = intervention(z)
        logits, other = head(torch.cat([z, intervened])).chunk(2)
        return LatentOutput(z, logits, intervened, other), context


def _offered(everything: Latents, validation: Validation | None) -> Offered:
    """Passes of an encoder that has been run already."""
    held_out = None
    if validation is not None:
        Z, y, columns = validation
        latents = Latents(Z.float(), y, torch.arange(len(y)), len(y))
        held_out = lambda: (latents, columns)  # noqa: E731 - a constant, called like the trainer's
    return Offered(encode=lambda: everything, encode_untuned=lambda: everything, encode_validation=held_out)

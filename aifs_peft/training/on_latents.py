"""Any training method on precomputed latents: the same objectives as `AIFSTrainer`, without an encoder to run.

A frozen encoder in evaluation mode gives the same latents in every epoch, so training its head on stored ones is the
same optimisation, thousands of times faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError, NonFiniteError
from aifs_peft.latent.heads import MLPHead
from aifs_peft.latent.output import LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import (
    EpochContext,
    Latents,
    Method,
    MethodSettings,
    Setup,
    StepContext,
    get,
)
from aifs_peft.training.batches import check_labels
from aifs_peft.training.rng import ExampleNoise, private_generator
from aifs_peft.training.sampling import EpochSampler, occurrences


@dataclass(frozen=True)
class LatentSchedule:
    """The optimisation: AdamW with cosine decay, as in `AIFSTrainer`.

    Args:
        epochs: passes over the data, at least 1.
        batch_size: at least 1.
        learning_rate: of AdamW at the start.
        weight_decay: of AdamW.
        head: "linear", "mlp" (one hidden layer, tanh), or "auto" for the method's own.
        hidden: width of the hidden layer of a head that has one.

    Raises:
        InvalidConfigError: for an unknown head.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    head: str = "auto"
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.head not in ("auto", "linear", "mlp"):
            raise InvalidConfigError(f"head must be 'auto', 'linear' or 'mlp'; got {self.head!r}")


@dataclass(frozen=True)
class LatentFit:
    """What training on latents gives.

    Attributes:
        head: latents `(batch, dim)` to logits.
        state: buffers the method filled, as in an adapter.
        history: one dictionary per epoch: mean of each term of the loss, and what the method reported.
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
    validation: tuple[Tensor, Tensor, Mapping[str, Tensor]] | None = None,
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
    """
    run = _Run(method, Z, y, num_labels, settings or MethodSettings.for_method(method), schedule or LatentSchedule())
    return run.train(dict(columns or {}), validation)


def _require(objective: Method, columns: Mapping[str, Tensor], held_out: Mapping[str, Tensor] | None) -> None:
    if not objective.on_latents:
        raise InvalidConfigError(
            f"method {objective.name!r} is not defined on precomputed latents: it needs {', '.join(objective.needs)}; "
            "train the model itself with AIFSTrainer"
        )
    for name in objective.columns():
        if name not in columns:
            raise InvalidConfigError(
                f"method {objective.name!r} reads {name!r} of every training example; pass columns={{{name!r}: ...}}"
            )
    for name in objective.validation_columns() if held_out is not None else ():
        if name not in held_out:
            raise InvalidConfigError(
                f"method {objective.name!r} reads {name!r} of every validation example; pass "
                f"validation=(Z, y, {{{name!r}: ...}})"
            )


class _Run:
    """One training on latents."""

    def __init__(
        self, method: str, Z: Tensor, y: Tensor, num_labels: int, settings: MethodSettings, schedule: LatentSchedule
    ) -> None:
        check_labels(y, num_labels)
        self.method: Method = get(method)(settings)
        self.Z, self.y, self.num_labels, self.seed, self.schedule = Z.float(), y, num_labels, settings.seed, schedule
        self.head = self._head(self.method.latent_head if schedule.head == "auto" else schedule.head, 0)
        self.auxiliary = None if self.method.auxiliary == "none" else self._head(self.method.auxiliary, 1)
        self.state = AIFSState(Z.shape[1])

    def _head(self, kind: str, stream: int) -> nn.Module:
        generator = private_generator(self.seed, stream)
        width = self.Z.shape[1]
        if kind == "mlp":
            return MLPHead(width, self.num_labels, (self.schedule.hidden,), "tanh", generator=generator)
        head: nn.Linear = nn.utils.skip_init(nn.Linear, width, self.num_labels)
        with torch.no_grad():
            head.weight.normal_(std=0.01, generator=generator)
            head.bias.zero_()
        return head

    def train(
        self, columns: Mapping[str, Tensor], validation: tuple[Tensor, Tensor, Mapping[str, Tensor]] | None
    ) -> LatentFit:
        everything = Latents(self.Z, self.y, torch.arange(len(self.y)), len(self.y))
        context = self._epoch_context(everything, columns, validation)
        objective = self.method
        objective.check(
            Setup(self.head, encoder_trains=False, num_labels=self.num_labels, auxiliary=self.auxiliary,
                  has_validation=validation is not None)
        )  # fmt: skip
        objective.prepare(context)
        history = []
        if objective.collects_latents in ("initial", "both"):
            history.append({"epoch": 0.0, **objective.start(everything, context)})
        sampler = EpochSampler(
            len(self.y),
            lambda epoch: objective.sampling(self.y, replace(context, epoch=epoch)),
            self.seed,
            objective.settings.max_repeats,
        )
        optimizer, scheduler = self._optimizer()
        for epoch in range(self.schedule.epochs):
            sampler.set_epoch(epoch)
            numbers = self._epoch(sampler.order(), optimizer, scheduler, context)
            if objective.collects_latents in ("epoch", "both"):
                numbers |= objective.end_of_epoch(everything, replace(context, epoch=epoch + 1))
            history.append({"epoch": epoch + 1.0, **numbers})
        finished = objective.finish(replace(context, epoch=self.schedule.epochs))
        history += [{"epoch": float(self.schedule.epochs), **finished}] if finished else []
        return LatentFit(self.head.requires_grad_(requires_grad=False).eval(), self.state, history)

    def _optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        plan = self.schedule
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters())}]
        if self.auxiliary is not None:
            rate = plan.learning_rate * self.method.auxiliary_lr_scale
            groups.append({"params": list(self.auxiliary.parameters()), "lr": rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._total_steps())

    def _total_steps(self) -> int:
        return self.schedule.epochs * -(-len(self.y) // self.schedule.batch_size)

    def _epoch(
        self,
        order: Tensor,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        context: EpochContext,
    ) -> dict[str, float]:
        sums: dict[str, float] = {}
        size = self.schedule.batch_size
        batches = list(zip(order.split(size), occurrences(order).split(size), strict=True))
        for index, occurrence in batches:
            terms = self._step(index, occurrence, int(scheduler.last_epoch), context)
            loss = torch.stack(list(terms.values())).sum()
            if not bool(loss.isfinite()):
                bad = {name: value.item() for name, value in terms.items() if not bool(value.isfinite())}
                raise NonFiniteError(
                    f"loss terms {bad} of {self.method.name!r} are not finite; lower the learning rate or the "
                    "method's weights, and check that the latents have about unit variance"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        return sums

    def _step(self, index: Tensor, occurrence: Tensor, step: int, context: EpochContext) -> dict[str, Tensor]:
        labels, z = self.y[index], self.Z[index].requires_grad_()
        seen = StepContext(
            head=self.head, state=self.state, labels=labels, index=index,
            generator=private_generator(self.seed, step, 0, 0), draw=ExampleNoise(self.seed, step, index, occurrence),
            step=step, progress=step / self._total_steps(), columns=context.columns, auxiliary=self.auxiliary,
        )  # fmt: skip
        intervention = self.method.intervention(seen)
        if intervention is None:
            return self.method.loss(LatentOutput(z, self.head(z)), labels, seen)
        intervened = intervention(z)
        logits, other = self.head(torch.cat([z, intervened])).chunk(2)
        return self.method.loss(LatentOutput(z, logits, intervened, other), labels, seen)

    def _epoch_context(
        self,
        everything: Latents,
        columns: Mapping[str, Tensor],
        validation: tuple[Tensor, Tensor, Mapping[str, Tensor]] | None,
    ) -> EpochContext:
        held_out, extra = None, {} if validation is None else validation[2]
        _require(self.method, columns, None if validation is None else extra)
        if validation is not None:
            Z, y, _ = validation
            latents = Latents(Z.float(), y, torch.arange(len(y)), len(y))
            held_out = lambda: (latents, extra)  # noqa: E731 - a constant, called like the trainer's
        return EpochContext(
            head=self.head, state=self.state, num_labels=self.num_labels, encoder_trains=False,
            device=torch.device("cpu"), encode=lambda: everything, encode_untuned=lambda: everything,
            encode_validation=held_out, columns=columns, validation_columns=extra, labels=self.y, seed=self.seed,
            batch_size=self.schedule.batch_size,
        )  # fmt: skip

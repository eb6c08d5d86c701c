"""What a training method may look at: before training, in a batch, at an epoch's end and after the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from aifs_peft.latent.state import AIFSState

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """What a method is given before training, to refuse what it cannot work with.

    Attributes:
        head: latents to logits.
        encoder_trains: whether any parameter outside the head is trained.
        num_labels: number of classes.
        auxiliary: the second head beside the trained one, where the adapter has one.
        has_validation: whether there is a validation set to fit on.
        tokens: whether the encoder's token features can be had.
    """

    head: nn.Module
    encoder_trains: bool
    num_labels: int
    auxiliary: nn.Module | None = None
    has_validation: bool = False
    tokens: bool = False


@dataclass(frozen=True)
class TrainingPlan:
    """How long a training is.

    Attributes:
        steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of one epoch, at least 1.
        update_every: epochs between two calls of `Method.end_of_epoch`.

    Example:
        >>> TrainingPlan(steps=10, steps_per_epoch=5).used_updates(), TrainingPlan(11, 5).used_updates()
        (1, 2)
    """

    steps: int
    steps_per_epoch: int
    update_every: int = 1

    def used_updates(self, first_epoch: int = 1) -> int:
        """How often `Method.end_of_epoch` is called with a step after it, which can use what was learnt.

        Args:
            first_epoch: calls at the ends of earlier epochs do not count; epochs are counted from 1.
        """
        ends = range(self.update_every, self.steps // self.steps_per_epoch + 1, self.update_every)
        return sum(epoch >= first_epoch and epoch * self.steps_per_epoch < self.steps for epoch in ends)


@dataclass(frozen=True)
class Sampling:
    """How the training examples of an epoch are drawn; give one of the three.

    Attributes:
        cells: `(n,)` int64, draws are balanced over its values, up to `max_repeats` draws per example on average.
        weights: `(n,)`, at least 0, draws are in proportion to it; 0 leaves an example out.
        order: the positions themselves, `(draws,)` int64, in blocks of one batch per process.
    """

    cells: Tensor | None = None
    weights: Tensor | None = None
    order: Tensor | None = None


@dataclass(frozen=True)
class StepContext:
    """What a method may look at while one batch is trained on.

    Attributes:
        head: latents `(batch, dim)` to logits `(batch, classes)`.
        state: the adapter's buffers.
        labels: `(batch,)` int64.
        index: position of each example in the training set, `(batch,)` int64.
        generator: private source of randomness of this batch, seeded by (seed, step, micro step, rank).
        draw: `draw(width, kind)` gives noise `(batch, width)` that depends on (seed, step, example, and how often the
            example was drawn before in the epoch) alone: the same whatever the batch size, the accumulation and the
            number of processes.
        step: optimizer steps so far.
        progress: share of all optimizer steps that is done, in [0, 1).
        columns: the columns a method asked for, each `(n, ...)` over the whole training set.
        rank: of this process.
        world_size: number of processes.
        gather: the rows of all processes in order of process, without their graph; each process has as many.
        auxiliary: the second head, latents to logits; None where the adapter has none.
        tokens: the encoder's last token features in the space of the latents, `(batch, tokens, dim)` with their graph
            and without class or register tokens, for methods that ask.
        token_grid: rows and columns of an image's patch tokens; None for a sequence.
        token_mask: `(batch, tokens)`, 1 for real tokens; None where all are.
        given_loss: the user's loss on this batch (`AIFSTrainer(compute_loss_func=...)`), for a method whose
            "cross_entropy" is a plain mean; None without one. It takes a shift of the logits, `(batch, classes)`, or
            nothing. A method that does not call it is refused beside one.
    """

    head: Callable[[Tensor], Tensor]
    state: AIFSState
    labels: Tensor
    index: Tensor
    generator: torch.Generator
    draw: Callable[[int, str], Tensor]
    step: int
    progress: float = 0.0
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    gather: Callable[[Tensor], Tensor] = lambda x: x
    auxiliary: Callable[[Tensor], Tensor] | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    token_grid: tuple[int, int] | None = None
    given_loss: Callable[..., Tensor] | None = None

    def column(self, name: str) -> Tensor:
        """A column's values for this batch, `(batch, ...)`."""
        values = self.columns[name]
        return values[self.index.to(values.device)].to(self.labels.device)

    @property
    def groups(self) -> Tensor | None:
        """Inferred attribute values of this batch, `(batch,)` int64; None when nothing was inferred."""
        groups = self.state.groups
        return groups[self.index.to(groups.device)] if groups.numel() else None


@dataclass(frozen=True)
class Latents:
    """Detached latents of training examples, gathered over all processes, ordered by example.

    Attributes:
        z: `(m, dim)` float32, on the CPU.
        labels: `(m,)` int64.
        index: `(m,)` int64, strictly increasing positions in the training set.
        total: size of the training set.
    """

    z: Tensor
    labels: Tensor
    index: Tensor
    total: int


@dataclass(frozen=True)
class Regions:
    """Detached features of parts of examples, gathered over all processes, ordered by example.

    Attributes:
        z: latents of the whole examples, `(m, dim)` float32, on the CPU.
        features: of their parts, in the space of the latents, `(m, parts, dim)` float32.
        present: which parts there are, `(m, parts)` bool.
        labels: `(m,)` int64.
        index: `(m,)` int64, strictly increasing positions in the data set.
    """

    z: Tensor
    features: Tensor
    present: Tensor
    labels: Tensor
    index: Tensor


# Token features `(batch, tokens, dim)`, their mask `(batch, tokens)` or None, and the grid of patches or None, to
# features of parts `(batch, parts, dim)` and which of them there are, `(batch, parts)` bool.
RegionPool = Callable[[Tensor, Tensor | None, tuple[int, int] | None], tuple[Tensor, Tensor]]


class OnMain(Protocol):
    """Runs a function on one process; every process gets its result, or its error."""

    def __call__(self, function: Callable[[], T], /) -> T:
        """The function's result."""
        ...


def _run_here(function: Callable[[], T], /) -> T:
    return function()


@dataclass(frozen=True)
class EpochContext:
    """What a method may use to update the adapter's state, called by every process at the same time.

    Attributes:
        head: latents to logits, on `device`.
        state: the adapter's buffers, to be changed with `state.update(...)`.
        num_labels: number of classes.
        encoder_trains: whether latents change between epochs.
        device: where head and state live.
        rank: of this process.
        world_size: number of processes.
        reduce_sum: sum of a tensor over all processes.
        on_main: `on_main(f)` runs `f` on one process and gives its result, or raises its error, on all of them.
        encode: one pass of the encoder over the whole training set in evaluation mode; None outside a trainer.
        encode_untuned: the same with the encoder as it was before any tuning.
        encode_layers: the same as `encode`, with blocks at a quarter, half and three quarters of the encoder's depth
            beside the last latent, each scaled alike; gives None for an encoder whose blocks are not known. None where
            there is no such pass.
        encode_validation: the same over the validation set as the model is, with the columns of `validation_columns`.
        encode_unlabelled: latents of the unlabelled examples by the model as it is, `(m, dim)` float32 on the CPU; None
            without any.
        encode_regions: `encode_regions(pool, index)` pools the token features of these training examples into parts;
            with None, those of the whole validation set. None where the model gives no tokens.
        columns: the columns a method asked for, each `(n, ...)` over the whole training set.
        validation_columns: those of `validation_columns`, each over the whole validation set; empty without one.
        labels: of the whole training set, `(n,)` int64.
        epoch: epochs completed.
        batch_size: training examples per forward pass, over all processes; 0 when unknown.
        seed: of the run.
        fresh: in `prepare`, whether training begins at its first step; False when it goes on from a checkpoint, whose
            state is to be left alone.
    """

    head: nn.Module
    state: AIFSState
    num_labels: int
    encoder_trains: bool
    device: torch.device
    rank: int = 0
    world_size: int = 1
    reduce_sum: Callable[[Tensor], Tensor] = lambda x: x
    on_main: OnMain = _run_here
    encode: Callable[[], Latents] | None = None
    encode_untuned: Callable[[], Latents] | None = None
    encode_layers: Callable[[], Latents | None] | None = None
    encode_validation: Callable[[], tuple[Latents, Mapping[str, Tensor]]] | None = None
    encode_unlabelled: Callable[[], Tensor] | None = None
    encode_regions: Callable[[RegionPool, Tensor | None], Regions] | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    validation_columns: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    epoch: int = 0
    batch_size: int = 0
    seed: int = 0
    fresh: bool = True

"""What a training method is given: before training, in a step, between epochs. The one place where it is made.

Both loops use it, `AIFSTrainer`'s and the one on given latents, so a method cannot tell them apart but by what they
can offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import EpochContext, Latents, Method, RegionPool, Regions, Setup, StepContext
from aifs_peft.training.processes import Processes
from aifs_peft.training.rng import ExampleNoise, private_generator


@dataclass(frozen=True)
class Offered:
    """Passes of the encoder that a method may ask for between epochs; None where there is no such pass.

    Attributes:
        encode: see `EpochContext`, as for the others.
        encode_untuned: likewise.
        encode_layers: likewise; None where latents are those of several layers anyway.
        encode_validation: likewise; None without a validation set.
        encode_unlabelled: likewise; None without an unlabelled set.
        encode_regions: likewise; None where the model gives no tokens.
    """

    encode: Callable[[], Latents] | None = None
    encode_untuned: Callable[[], Latents] | None = None
    encode_layers: Callable[[], Latents | None] | None = None
    encode_validation: Callable[[], tuple[Latents, Mapping[str, Tensor]]] | None = None
    encode_unlabelled: Callable[[], Tensor] | None = None
    encode_regions: Callable[[RegionPool, Tensor | None], Regions] | None = None


@dataclass(frozen=True)
class Batch:
    """Which examples a batch holds.

    Attributes:
        labels: `(batch,)` int64.
        index: positions in the training set, `(batch,)` int64.
        occurrence: how often each was drawn before in the epoch, `(batch,)` int64.
        step: optimizer steps so far.
        micro: batches so far of the ones that are accumulated for this step.
        steps: optimizer steps of the whole training.
    """

    labels: Tensor
    index: Tensor
    occurrence: Tensor
    step: int
    micro: int
    steps: int


@dataclass(frozen=True)
class Contexts:
    """Everything about a training that stays the same while it runs, and the contexts made of it.

    Attributes:
        method: that is trained with.
        head: latents to logits.
        state: the adapter's buffers.
        labels: of the training set, `(n,)` int64.
        num_labels: number of classes.
        seed: of every private draw.
        columns: what the method reads beside labels, by name, each `(n, ...)` integers.
        validation_columns: the same of the validation set.
        auxiliary: the second head, where there is one.
        encoder_trains: whether latents change between epochs.
        tokens: whether the encoder's token features can be had.
        device: where head and state live.
        batch_size: training examples per forward pass, over all processes.
        processes: of this run.
        offered: passes of the encoder.
    """

    method: Method
    head: nn.Module
    state: AIFSState
    labels: Tensor
    num_labels: int
    seed: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    validation_columns: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: nn.Module | None = None
    encoder_trains: bool = False
    tokens: bool = False
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    batch_size: int = 0
    processes: Processes = Processes()  # noqa: RUF009 - immutable
    offered: Offered = Offered()

    def setup(self) -> Setup:
        """For `Method.check`, before anything is computed."""
        return Setup(
            head=self.head,
            encoder_trains=self.encoder_trains,
            num_labels=self.num_labels,
            auxiliary=self.auxiliary,
            has_validation=self.offered.encode_validation is not None,
            tokens=self.tokens,
        )

    def epoch(self, epoch: int, *, fresh: bool = False) -> EpochContext:
        """For what a method does between epochs.

        Args:
            epoch: epochs completed.
            fresh: whether training begins now, and does not go on from a checkpoint.
        """
        return EpochContext(
            head=self.head,
            state=self.state,
            num_labels=self.num_labels,
            encoder_trains=self.encoder_trains,
            device=self.device,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            reduce_sum=self.processes.reduce_sum,
            on_main=self.processes.on_main,
            encode=self.offered.encode,
            encode_untuned=self.offered.encode_untuned,
            encode_layers=self.offered.encode_layers,
            encode_validation=self.offered.encode_validation,
            encode_unlabelled=self.offered.encode_unlabelled,
            encode_regions=self.offered.encode_regions,
            columns=self.columns,
            validation_columns=self.validation_columns,
            labels=self.labels,
            epoch=epoch,
            batch_size=self.batch_size,
            seed=self.seed,
            fresh=fresh,
        )

    def step(self, batch: Batch) -> StepContext:
        """For what a method does to one batch.

        Args:
            batch: which examples, and where in the training.
        """
        rank = self.processes.rank
        return StepContext(
            head=self.head,
            state=self.state,
            labels=batch.labels,
            index=batch.index,
            generator=private_generator(self.seed, batch.step, batch.micro, rank),
            draw=ExampleNoise(self.seed, batch.step, batch.index, batch.occurrence),
            step=batch.step,
            progress=batch.step / max(batch.steps, 1),
            columns=self.columns,
            rank=rank,
            world_size=self.processes.world_size,
            gather=self.processes.gather,
            auxiliary=self.auxiliary,
        )

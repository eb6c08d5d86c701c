"""The slow loop around the steps: latents of the training set, and updates of the adapter's state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler, Subset

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent._support import evaluating
from aifs_peft.methods import EpochContext, Latents, Method, RegionPool, Regions, Setup, StepContext
from aifs_peft.models import TokenMap, resolve_tokens
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.batches import (
    INDEX,
    LABEL_NAMES,
    POSITION_COLUMNS,
    IndexedDataset,
    check_labels,
    has_column,
    read_column,
    read_labels,
)
from aifs_peft.training.latents import LatentStore, RegionStore
from aifs_peft.training.method import gives_tokens, head_on_latents
from aifs_peft.training.parallel import on_main, share_state
from aifs_peft.training.rng import isolated_rng
from aifs_peft.training.sampling import EpochSampler
from aifs_peft.training.upstream import UpstreamTrainer
from aifs_peft.tuner import AIFSLayer, initial_encoder
from aifs_peft.tuner.modes import trains_encoder

logger = logging.getLogger(__name__)

LATENTS_FILES = "aifs_latents_*.safetensors"


class EpochMixin(UpstreamTrainer):
    """What `AIFSTrainer` does before the first step and at each epoch's end."""

    args: AIFSTrainingArguments
    layer: AIFSLayer
    objective: Method
    _sampler: EpochSampler | None
    _store: LatentStore | None = None
    encoder_trains: bool = False
    method_columns: dict[str, Tensor]
    validation_columns: dict[str, Tensor]
    _tokens: TokenMap | None = None

    @property
    def labels(self) -> Tensor:
        """Labels of the training set, `(n,)` int64; given by the subclass."""
        raise NotImplementedError

    @property
    def num_labels(self) -> int:
        """Number of classes of the trained head; given by the subclass."""
        raise NotImplementedError

    @property
    def head(self) -> nn.Module:
        """The trained head on latents `(batch, dim)`."""
        return head_on_latents(self.layer)

    def begin_training(self) -> None:
        """Before the first epoch: discovery, where the method wants it; after a resume: what had been kept."""
        self._prepare()
        samples = self.args.mask_samples or self.method.epoch_samples
        self._store = LatentStore(len(self.labels), samples, self.args.seed)
        if self.state.global_step == 0:
            if self.method.collects_latents in ("initial", "both"):
                self._update(lambda context: self.method.start(self.encode_training_set(), context))
            return
        for held in (self.layer.state.groups, self.layer.state.weights):
            if held.numel() and len(held) != len(self.labels):
                raise CheckpointMismatchError(
                    f"the checkpoint holds what was inferred of {len(held)} examples, the training set has "
                    f"{len(self.labels)}; resume with the training set the run was started with"
                )
        mid_epoch = not float(self.state.epoch or 0).is_integer()
        if mid_epoch and self.resumed_from is not None and self._collects():
            self._store.load(self.resumed_from, LATENTS_FILES, self.args.process_index, self.accelerator.num_processes)

    def _prepare(self) -> None:
        """Read the method's columns, refuse what it cannot work with, let it make what is not in the state."""
        self.encoder_trains = trains_encoder(self.adapted, self.layer)
        optional = [name for name in self.method.optional_columns() if has_column(self.train_dataset, name)]
        wanted = (*self.method.columns(), *optional)
        self.method_columns = {name: read_column(self.train_dataset, name) for name in wanted}
        held_out = self.method.validation_columns() if self.eval_dataset is not None else ()
        self.validation_columns = {name: read_column(self.eval_dataset, name, "validation") for name in held_out}
        self.method.check(
            Setup(
                head=self.head,
                encoder_trains=self.encoder_trains,
                num_labels=self.num_labels,
                auxiliary=self.layer.auxiliary,
                has_validation=self.eval_dataset is not None,
                tokens=gives_tokens(self.adapted),
            )
        )
        self._tokens = self._resolve_tokens() if self.method.reads_tokens else None
        self.method.prepare(self.epoch_context())

    def finish_training(self) -> None:
        """After the last epoch, on the model that was kept."""
        self._update(self.method.finish)

    def begin_epoch(self, epoch: int) -> None:
        """Before the order of an epoch is drawn.

        Args:
            epoch: epochs completed so far.
        """
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)

    def finish_epoch(self, epoch: int) -> None:
        """On an epoch's last step, before it is logged, evaluated and saved.

        Args:
            epoch: epochs completed now.
        """
        assert self._store is not None  # noqa: S101 - begin_training ran
        wanted = self.method.collects_latents in ("epoch", "both")
        if wanted and epoch % self.args.mask_update_every == 0:
            latents = self._store.gather(self.accelerator, self.layer.in_features)
            self._update(lambda context: self.method.end_of_epoch(latents, context))
        self._store.clear()

    def keep_latents(self, index: Tensor, z: Tensor, labels: Tensor) -> None:
        """Keep a detached copy of a batch's latents, where they will be looked at."""
        if self._store is not None and self._collects():
            self._store.add(index, z, labels, self.state.global_step)

    def save_latents(self, folder: Path) -> None:
        """Write the latents of a half epoch into a checkpoint; at an epoch's end there are none."""
        if self._store is not None and len(self._store):
            self._store.save(folder / LATENTS_FILES.replace("*", str(self.args.process_index)))

    def _collects(self) -> bool:
        return self.method.collects(self.layer.state, self.encoder_trains)

    def encode_training_set(self) -> Latents:
        """Latents of the whole training set by the model as it is; see `encode`."""
        return self.encode(self.train_dataset, self.labels)

    def encode_untuned_training_set(self) -> Latents:
        """Latents of the whole training set by the encoder as it was before any tuning."""
        with initial_encoder(self.adapted):
            return self.encode_training_set()

    def encode_validation_set(self) -> tuple[Latents, dict[str, Tensor]]:
        """Latents of the validation set by the model as it is, and the columns the method reads there."""
        dataset: Any = self.eval_dataset
        labels = read_labels(dataset)
        check_labels(labels, self.num_labels, "validation")
        return self.encode(dataset, labels), self.validation_columns

    def encode(self, dataset: Any, labels: Tensor) -> Latents:
        """Latents of a whole data set in evaluation mode; generators are left alone.

        Args:
            dataset: map-style.
            labels: its labels, `(n,)` int64.

        Returns:
            The same on every process.
        """
        store = LatentStore(len(labels), None, self.args.seed)

        def keep(rows: Tensor, _inputs: dict[str, Any], _outputs: Any) -> None:
            store.add(rows, self.layer.take_output().z, labels[rows.cpu()], step=0)

        self._pass_over(IndexedDataset(self.without_unused_columns(dataset)), keep)
        return store.gather(self.accelerator, self.layer.in_features)

    def encode_regions(self, pool: RegionPool, index: Tensor | None) -> Regions:
        """Features of parts of examples, in evaluation mode; see `EpochContext.encode_regions`.

        Args:
            pool: tokens to parts.
            index: positions in the training set, strictly increasing; None for the whole validation set.

        Returns:
            The same on every process.
        """
        dataset: Any = self.eval_dataset if index is None else self.train_dataset
        labels = read_labels(dataset) if index is None else self.labels
        if index is None:
            check_labels(labels, self.num_labels, "validation")
        store = RegionStore()

        def keep(rows: Tensor, inputs: dict[str, Any], outputs: Any) -> None:
            assert self._tokens is not None  # noqa: S101 - resolved for methods that read tokens
            tokens = self._tokens(outputs["hidden_states"][-1])
            parts = pool(tokens, self._tokens.mask(inputs.get("attention_mask")), self._tokens.grid)
            store.add(rows, self.layer.take_output().z, *parts, labels[rows.cpu()])

        whole: Any = IndexedDataset(self.without_unused_columns(dataset))
        chosen = whole if index is None else Subset(whole, index.tolist())
        self._pass_over(chosen, keep, output_hidden_states=True)
        return store.gather(self.accelerator)

    def with_tokens(self, context: StepContext, inputs: dict[str, Any], outputs: Any) -> StepContext:
        """The batch's context with its token features, in the space of the latents."""
        assert self._tokens is not None  # noqa: S101 - resolved before training
        return replace(
            context,
            tokens=self._tokens(outputs["hidden_states"][-1]),
            token_mask=self._tokens.mask(inputs.get("attention_mask")),
            token_grid=self._tokens.grid,
        )

    def _resolve_tokens(self) -> TokenMap:
        """Find out on two examples how this model's tokens become its latents."""
        found: list[TokenMap] = []

        def look(_rows: Tensor, inputs: dict[str, Any], outputs: Any) -> None:
            hidden = outputs["hidden_states"][-1]
            mask, pixels = inputs.get("attention_mask"), inputs.get("pixel_values")
            z = self.layer.take_output().z
            found.append(resolve_tokens(self.adapted, hidden, z, attention_mask=mask, pixels=pixels))

        two = Subset(IndexedDataset(self.without_unused_columns(self.train_dataset)), [0, len(self.labels) - 1])
        self._pass_over(two, look, output_hidden_states=True)
        return found[0]

    @torch.no_grad()
    def _pass_over(self, dataset: Any, each: Callable[[Tensor, dict[str, Any], Any], None], **forward: Any) -> None:
        """One pass in evaluation mode; generators and modes are as before afterwards.

        Args:
            dataset: examples with their positions.
            each: gets positions, inputs and outputs of every batch, and may take the latent output.
            **forward: for the model beside the inputs.
        """
        hidden = {*LABEL_NAMES, *POSITION_COLUMNS, *self.extra_columns()}
        with isolated_rng(self.args.seed), evaluating(self.adapted):
            loader = self.build_loader(dataset, "training", self.args.eval_batch_size, SequentialSampler)
            for batch in loader:
                inputs = {k: v for k, v in self._to_device(batch).items() if k not in hidden}
                each(batch[INDEX], inputs, self.adapted(**inputs, **forward))

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.to(self.args.device) if isinstance(value, Tensor) else value for name, value in batch.items()
        }

    def epoch_context(self) -> EpochContext:
        """What the method may use between epochs."""
        return EpochContext(
            head=self.head,
            state=self.layer.state,
            num_labels=self.num_labels,
            encoder_trains=self.encoder_trains,
            device=self.args.device,
            rank=self.args.process_index,
            world_size=self.accelerator.num_processes,
            reduce_sum=lambda x: self.accelerator.reduce(x, reduction="sum"),
            on_main=lambda function: on_main(self.accelerator, function),
            encode=self.encode_training_set,
            encode_untuned=self.encode_untuned_training_set,
            encode_validation=self.encode_validation_set if self.eval_dataset is not None else None,
            encode_regions=None if self._tokens is None else self.encode_regions,
            columns=self.method_columns,
            validation_columns=self.validation_columns,
            labels=self.labels,
            epoch=int(self.state.epoch or 0),
            seed=self.args.seed,
            fresh=self.state.global_step == 0,
            batch_size=self.device_batch_size * self.accelerator.num_processes,
        )

    def _update(self, change: Any) -> None:
        """Let the method change the adapter's state, make it everybody's, and log what it says."""
        numbers = change(self.epoch_context())
        share_state(self.accelerator, self.layer.state)
        if numbers:
            # Logging switches `should_log` off, which would swallow the log of the step this happens in.
            due = self.control.should_log
            self.log(dict(numbers))
            self.control.should_log = due

"""Passes of the encoder over whole data sets, in evaluation mode, without touching the training that goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent._support import evaluating
from aifs_peft.methods import Latents, RegionPool, Regions, StepContext
from aifs_peft.models import TokenMap, resolve_tokens
from aifs_peft.training.batches import INDEX, IndexedDataset, model_inputs
from aifs_peft.training.labels import check_labels, read_labels
from aifs_peft.training.latents import LatentStore, RegionStore
from aifs_peft.training.processes import Processes
from aifs_peft.training.rng import isolated_rng
from aifs_peft.training.sharded import is_sharded
from aifs_peft.training.stream_parts import EncodingPart
from aifs_peft.training.streams import Stream
from aifs_peft.tuner import AIFSLayer, initial_encoder

TOKENS_OF_BLOCKS = (
    'this method reads tokens, which have no features in the joined latents of AIFSConfig(latents="multi"); leave '
    'latents at "last", or take a method that does not read tokens'
)
SCALED_BY = 2048  # examples that say how the latents of several layers are scaled


@dataclass(frozen=True)
class Loading:
    """How examples become batches on the model's device.

    Attributes:
        collate: list of examples, positions among them, to a batch of tensors.
        batch_size: examples per process and forward pass, without gradients.
        device: of the model.
        hidden: names in a batch that the model does not take, beside labels and positions.
        workers: further arguments for `DataLoader` (`num_workers`, `pin_memory`, ...).
    """

    collate: Callable[[list[Any]], dict[str, Any]]
    batch_size: int
    device: torch.device
    hidden: Sequence[str] = ()
    workers: Mapping[str, Any] | None = None


class Split:
    """A data set of a training, with what is known of each example.

    Args:
        dataset: map-style, without the columns that nobody reads.
        what: "training" or "validation", for messages.
        columns: what the method reads beside, by name, each `(n, ...)` integers.
        seed: for whatever the set draws while its labels are read.
        labels: `(n,)` int64; None reads them when they are asked for.

    Example:
        >>> Split([{"label": 1}, {"label": 0}], "validation", {}, seed=0).labels
        tensor([1, 0])
    """

    def __init__(
        self, dataset: Any, what: str, columns: Mapping[str, Tensor], seed: int, labels: Tensor | None = None
    ) -> None:
        self.dataset, self.what, self.columns, self._seed, self._labels = dataset, what, columns, seed, labels

    @property
    def labels(self) -> Tensor:
        """Labels of all examples, `(n,)` int64."""
        if self._labels is None:
            with isolated_rng(self._seed):
                self._labels = read_labels(self.dataset, self.what)
        return self._labels


class EncodingPasses:
    """Runs the encoder over the training or validation set, for what a method wants to know between epochs.

    Each process takes every `world_size`-th batch, so that batches are the same for any number of processes; results
    are gathered and equal everywhere. Generators and modes are as before afterwards.

    Args:
        model: not wrapped for distribution.
        layer: its AIFS layer.
        train: the training set.
        validation: the validation set; None without one.
        loading: how examples become batches.
        processes: that share the work.
        seed: for whatever data sets and collators draw.
        unlabelled: map-style, without labels; None without such a set.
    """

    def __init__(
        self,
        model: PeftModel,
        layer: AIFSLayer,
        train: Split,
        validation: Split | None,
        loading: Loading,
        processes: Processes,
        seed: int,
        unlabelled: Any = None,
    ) -> None:
        self.unlabelled = unlabelled
        self.model, self.layer, self.train, self.validation = model, layer, train, validation
        self.loading, self.processes, self.seed = loading, processes, seed
        self.tokens: TokenMap | None = None

    def encode(self) -> Latents:
        """Latents of the whole training set by the model as it is."""
        return self.latents_of(self.train.dataset, self.train.labels)

    def encode_untuned(self) -> Latents:
        """Latents of the whole training set by the encoder as it was before any tuning."""
        with initial_encoder(self.model):
            return self.encode()

    def encode_validation(self) -> tuple[Latents, Mapping[str, Tensor]]:
        """Latents of the validation set by the model as it is, and the columns the method reads there."""
        validation = self._checked_validation()
        return self.latents_of(validation.dataset, validation.labels), validation.columns

    def encode_unlabelled(self) -> Tensor:
        """Latents of the unlabelled examples by the model as it is, `(m, dim)`."""
        nobody = torch.zeros(len(self.unlabelled), dtype=torch.int64)
        return self.latents_of(self.unlabelled, nobody, "unlabelled").z

    def fit_blocks(self) -> None:
        """Scale the latents of several layers by a sample of the training set, once; see `AIFSConfig(latents="multi")`.

        Raises:
            NonFiniteError: if a latent is NaN or infinite.
        """
        blocks = self.layer.blocks
        if blocks is None or blocks.fitted:
            return
        labels = self.train.labels
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        sample = order[:SCALED_BY].sort().values.tolist()
        blocks.fit(self.latents_of(self.train.dataset, labels, positions=sample).z)  # joined as they are, so far

    def latents_of(
        self, dataset: Any, labels: Tensor, what: str = "training", positions: Sequence[int] | None = None
    ) -> Latents:
        """Latents of any data set by the model as it is.

        Args:
            dataset: map-style, or a `Stream`.
            labels: its labels, `(n,)` int64.
            what: it is, for messages.
            positions: of the examples to encode, increasing; None for all.

        Raises:
            NonFiniteError: if a latent is NaN or infinite.
        """
        store = LatentStore(len(labels), None, self.seed)

        def keep(rows: Tensor, _inputs: dict[str, Any], _outputs: Any) -> None:
            store.add(rows, self.layer.take_output().z, labels[rows], step=0)

        self.pass_over(dataset, range(len(labels)) if positions is None else positions, keep)
        return store.gather(self.processes, self.layer.state.dim, what)

    def encode_regions(self, pool: RegionPool, index: Tensor | None) -> Regions:
        """Features of parts of examples; see `EpochContext.encode_regions`.

        Args:
            pool: tokens to parts.
            index: positions in the training set, strictly increasing; None for the whole validation set.

        Raises:
            NonFiniteError: if a feature is NaN or infinite.
        """
        split = self.train if index is not None else self._checked_validation()
        tokens, store = self._resolved(), RegionStore()

        def keep(rows: Tensor, inputs: dict[str, Any], outputs: Any) -> None:
            features = tokens(outputs["hidden_states"][-1])
            parts = pool(features, tokens.mask(inputs.get("attention_mask")), tokens.grid)
            store.add(rows, self.layer.take_output().z, *parts, split.labels[rows])

        positions = range(len(split.labels)) if index is None else index.tolist()
        self.pass_over(split.dataset, positions, keep, output_hidden_states=True)
        return store.gather(self.processes, self.layer.state.dim)

    def resolve_tokens(self) -> None:
        """Find out on two examples how this model's tokens become its latents; for methods that read tokens.

        Raises:
            InvalidConfigError: if they do not in a way that is known.
        """
        if self.layer.blocks is not None:
            raise InvalidConfigError(TOKENS_OF_BLOCKS)
        found: list[TokenMap] = []

        def look(_rows: Tensor, inputs: dict[str, Any], outputs: Any) -> None:
            hidden = outputs["hidden_states"][-1]
            mask, pixels = inputs.get("attention_mask"), inputs.get("pixel_values")
            z = self.layer.take_output().z
            found.append(resolve_tokens(self.model, hidden, z, attention_mask=mask, pixels=pixels))

        self.look_at_two(look, output_hidden_states=True)
        self.tokens = found[0]

    def look_at_two(self, each: Callable[[Tensor, dict[str, Any], Any], None], **forward: Any) -> None:
        """Run two training examples in every process.

        Args:
            each: gets positions (on the CPU), inputs and outputs.
            **forward: for the model beside the inputs.
        """
        two = [0, len(self.train.labels) - 1]
        if isinstance(self.train.dataset, Stream):
            two = sorted({0, min(1, two[1])})  # the last one lies a whole pass away
        self.pass_over(self.train.dataset, two, each, everywhere=True, **forward)

    def with_tokens(self, context: StepContext, inputs: dict[str, Any], outputs: Any) -> StepContext:
        """A batch's context with its token features, in the space of the latents.

        Args:
            context: of the batch.
            inputs: of the model.
            outputs: of the model, with `hidden_states`.
        """
        tokens = self._resolved()
        return replace(
            context,
            tokens=tokens(outputs["hidden_states"][-1]),
            token_mask=tokens.mask(inputs.get("attention_mask")),
            token_grid=tokens.grid,
        )

    def _resolved(self) -> TokenMap:
        assert self.tokens is not None  # noqa: S101 - `EpochRunner` has it resolved before a method can ask
        return self.tokens

    def _checked_validation(self) -> Split:
        assert self.validation is not None  # noqa: S101 - contexts offer this pass only where there is a set
        check_labels(self.validation.labels, self.layer.aifs_spec[self.layer.adapter].num_labels, "validation")
        return self.validation

    @torch.no_grad()
    def pass_over(
        self,
        dataset: Any,
        positions: Sequence[int],
        each: Callable[[Tensor, dict[str, Any], Any], None],
        *,
        everywhere: bool = False,
        **forward: Any,
    ) -> None:
        """One pass in evaluation mode.

        Args:
            dataset: map-style.
            positions: of the examples to run.
            each: gets positions (on the CPU), inputs and outputs of every batch, and may take the latent output.
            everywhere: every process runs all batches.
            **forward: for the model beside the inputs.
        """
        with isolated_rng(self.seed), evaluating(self.model):
            for batch in self._batches(dataset, positions, Processes() if everywhere else self.processes):
                inputs = model_inputs(batch, self.loading.hidden, self.loading.device)
                each(batch[INDEX].cpu(), inputs, self.model(**inputs, **forward))

    def _batches(self, dataset: Any, positions: Sequence[int], processes: Processes) -> DataLoader[Any]:
        """This process's share of the batches: every `world_size`-th."""
        size, options = self.loading.batch_size, {"collate_fn": self.loading.collate, **(self.loading.workers or {})}
        if isinstance(dataset, Stream):
            part = EncodingPart(dataset, positions, size, processes, even=is_sharded(self.model))
            return DataLoader(part, batch_size=size, **options)
        batches = [list(range(start, min(start + size, len(positions)))) for start in range(0, len(positions), size)]
        if is_sharded(self.model):  # all processes take part in each forward pass: some run the first batch once more
            batches += batches[:1] * (-len(batches) % processes.world_size)
        chosen: Dataset[Any] = Subset(IndexedDataset(dataset), positions)
        return DataLoader(chosen, batch_sampler=batches[processes.rank :: processes.world_size], **options)

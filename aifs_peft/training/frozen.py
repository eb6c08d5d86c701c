"""A frozen encoder encodes each data set once: the adapter is then trained on the latents that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import default_data_collator
from transformers.modeling_outputs import SequenceClassifierOutput

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import Method
from aifs_peft.training.base import TrainerBase
from aifs_peft.training.batches import CarryingCollator, whole_numbers
from aifs_peft.training.columns import column_names, is_table, read_column
from aifs_peft.training.encoding import EncodingPasses, Loading, Split
from aifs_peft.training.labels import read_labels, without_labels
from aifs_peft.training.parallel import processes_of
from aifs_peft.training.rng import isolated_rng
from aifs_peft.training.streams import Stream
from aifs_peft.tuner import AIFSLayer, find_aifs_layer
from aifs_peft.tuner.modes import trains_encoder

LATENTS = "latents"
PROBED = 16  # examples that are read twice, to find random augmentation
TRAINS = (
    "cache_latents=True needs a frozen encoder, whose latents stay as they are; this adapter trains {what}. Leave "
    "it at False"
)
TOKENS = "cache_latents=True keeps one latent per example, and the method {name!r} reads tokens; leave it at False"
RANDOM = (
    "cache_latents=True encodes each example once, but example {row} of the {what} set is another one each time it is "
    "read (random augmentation, in the data set or its collator). Switch that off, or leave cache_latents at False"
)


class LatentDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Latents in place of a model's inputs, with labels and the columns that a method reads.

    Args:
        latents: `(n, dim)` float32.
        labels: `(n,)` int64.
        columns: by name, each `(n, ...)` integers.
        carried: columns that are in every example, for metrics.

    Example:
        >>> LatentDataset(torch.zeros(2, 3), torch.tensor([0, 1]), {})[1]
        {'latents': tensor([0., 0., 0.]), 'labels': tensor(1)}
    """

    def __init__(
        self,
        latents: Tensor,
        labels: Tensor,
        columns: Mapping[str, Any],
        carried: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.latents, self.labels, self.columns = latents, labels, dict(columns)
        self._carried = dict(carried or {})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        carried = {name: values[index] for name, values in self._carried.items()}
        return {LATENTS: self.latents[index], "labels": self.labels[index], **carried}


@contextmanager
def fed_with_latents(model: PeftModel) -> Iterator[None]:
    """Let a model take `latents (batch, dim)` in place of its inputs, for a while: its adapter sees the same as ever.

    Adapter, state, checkpoints and what is saved are those of the model itself; other inputs go through the encoder.

    Args:
        model: with an AIFS adapter.
    """
    layer, base = find_aifs_layer(model), model.get_base_model()
    encode = base.forward

    def forward(*given: Any, latents: Tensor | None = None, **inputs: Any) -> Any:
        return encode(*given, **inputs) if latents is None else SequenceClassifierOutput(logits=layer(latents))

    base.forward = forward  # in the instance, in front of the class's method
    try:
        yield
    finally:
        del base.forward


def check_cacheable(model: PeftModel, layer: AIFSLayer, method: Method) -> None:
    """Refuse to train on kept latents where they would change, or are not all that the method reads.

    Args:
        model: with the adapter.
        layer: of the adapter.
        method: that is trained with.

    Raises:
        InvalidConfigError: saying why.
    """
    if trains_encoder(model, layer):
        heads = {id(parameter) for parameter in layer.parameters()}
        trained = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in heads]
        raise InvalidConfigError(TRAINS.format(what=", ".join(trained[:2]) or "the encoder"))
    if method.reads_tokens:
        raise InvalidConfigError(TOKENS.format(name=method.name))


@contextmanager
def on_kept_latents(trainer: TrainerBase, loading: Loading) -> Iterator[None]:
    """While this lasts, the trainer's data sets are latents, each made by one pass of the encoder.

    Args:
        trainer: whose sets are ready for the model and whose encoder is frozen.
        loading: how examples become batches.

    Raises:
        InvalidConfigError: if an example is not the same when it is read again.
    """
    keep = _Keeper(trainer, loading)
    train = keep(trainer.train_dataset, trainer.labels, "training")
    evaluation = keep.evaluation(trainer.eval_dataset)
    unlabelled = keep.unlabelled(getattr(trainer, "unlabelled_dataset", None))
    with on_latents(trainer, train, evaluation, unlabelled):
        yield


@contextmanager
def on_latents(trainer: TrainerBase, train: Any, evaluation: Any, unlabelled: Any) -> Iterator[None]:
    """While this lasts, the trainer has latents in the place of its data sets, and its model takes them.

    Args:
        trainer: whose encoder is frozen.
        train: a `LatentDataset`, like those that follow.
        evaluation: the evaluation set, or several by name; None without one.
        unlabelled: without labels; None without one.
    """
    # The user's own collator may want pictures or texts.
    collator = CarryingCollator(
        default_data_collator, list(trainer.args.evaluation_columns or ()), seed=trainer.args.seed
    )
    inside = {
        "train_dataset": train, "eval_dataset": evaluation, "unlabelled_dataset": unlabelled,
        "data_collator": collator, "_checked_evaluation": evaluation,
    }  # fmt: skip
    before = {name: getattr(trainer, name) for name in inside}
    vars(trainer).update(inside)
    trainer._runner = None
    try:
        with fed_with_latents(trainer.adapted):
            yield
    finally:
        vars(trainer).update(before)
        trainer._runner = None  # made on latents


class _Keeper:
    """Turns data sets into latents."""

    def __init__(self, trainer: TrainerBase, loading: Loading) -> None:
        self.loading, self.seed = loading, trainer.args.seed
        self.carried = list(trainer.args.evaluation_columns or ())
        method, processes = trainer.method, processes_of(trainer.accelerator)
        self.columns = {
            "training": (*method.columns(), *method.optional_columns()),
            "validation": tuple(method.validation_columns()),
        }
        train = Split(trainer.train_dataset, "training", {}, self.seed, trainer.labels)
        self.passes = EncodingPasses(trainer.adapted, trainer.layer, train, None, loading, processes, self.seed)

    def __call__(self, dataset: Any, labels: Tensor, what: str) -> LatentDataset:
        self._require_repeatable(dataset, what)
        z = self.passes.latents_of(dataset, labels, what).z
        names = [name for name in self.columns.get(what, ()) if name in column_names(dataset)]
        carried = self._carried(dataset) if what == "validation" else {}
        return LatentDataset(z, labels, {name: read_column(dataset, name, what) for name in names}, carried)

    def evaluation(self, dataset: Any) -> Any:
        """The evaluation set, or several by name."""
        if dataset is None:
            return None
        if isinstance(dataset, Mapping):
            return {name: self.evaluation(part) for name, part in dataset.items()}
        with isolated_rng(self.seed):
            labels = read_labels(dataset, "validation")
        return self(dataset, labels, "validation")

    def unlabelled(self, dataset: Any) -> Any:
        """The unlabelled set, without labels as before."""
        if dataset is None:
            return None
        return without_labels(self(dataset, torch.full((len(dataset),), -1), "unlabelled"))

    def _carried(self, dataset: Any) -> dict[str, Tensor]:
        """Columns for metrics, where the examples have them."""
        rows = dataset.with_format(None) if is_table(dataset) else dataset
        known = dataset.column_names if is_table(dataset) else dataset[0]
        found = {}
        for name in self.carried:
            if name in known:
                values = rows[name][:] if is_table(dataset) else [rows[i][name] for i in range(len(rows))]
                found[name] = whole_numbers(name, values)
        return found

    def _require_repeatable(self, dataset: Any, what: str) -> None:
        if isinstance(dataset, Stream):
            pairs = zip(*(self._read_first(dataset, self.seed + number) for number in range(2)), strict=True)
            rows = dict(enumerate(pairs))
        else:
            chosen = range(0, len(dataset), max(1, len(dataset) // PROBED))
            rows = {row: tuple(self._read(dataset, row, self.seed + number) for number in range(2)) for row in chosen}
        for row, (first, second) in rows.items():
            if any(not torch.equal(first[name], second[name]) for name in first):
                raise InvalidConfigError(RANDOM.format(row=row, what=what))

    def _read(self, dataset: Any, row: int, seed: int) -> dict[str, Tensor]:
        with isolated_rng(seed):
            return self._tensors(dataset[row])

    def _read_first(self, stream: Stream, seed: int) -> list[dict[str, Tensor]]:
        with isolated_rng(seed):
            return [self._tensors(example) for example in stream.first(PROBED, seed)]

    def _tensors(self, example: Any) -> dict[str, Tensor]:
        batch = self.loading.collate([example])
        return {name: value for name, value in batch.items() if isinstance(value, Tensor)}

"""Puts the parts of a training on a model together: data, contexts, latent store and passes, in an `EpochRunner`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor

from aifs_peft.methods import Method
from aifs_peft.training.adapter import gives_tokens, head_on_latents, num_labels_of
from aifs_peft.training.columns import column_names, read_column
from aifs_peft.training.contexts import Contexts, Offered
from aifs_peft.training.encoding import EncodingPasses, Loading, Split
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.latents import LatentStore
from aifs_peft.training.layers import encode_layers
from aifs_peft.training.processes import Processes
from aifs_peft.training.streams import Stream
from aifs_peft.tuner import AIFSLayer
from aifs_peft.tuner.modes import trains_encoder


def _same(dataset: Any) -> Any:
    return dataset


@dataclass(frozen=True)
class TrainingData:
    """The data sets of a training.

    Attributes:
        train: map-style, or a `Stream`.
        labels: of the training set, `(n,)` int64.
        validation: map-style; None without one.
        unlabelled: map-style, without labels; None without one.
        loaded: takes the columns that nobody reads out of a data set, before it is encoded.
    """

    train: Any
    labels: Tensor
    validation: Any = None
    unlabelled: Any = None
    loaded: Callable[[Any], Any] = _same


def assemble(
    model: PeftModel,
    layer: AIFSLayer,
    method: Method,
    data: TrainingData,
    loading: Loading,
    processes: Processes,
    *,
    batch_size: int,
    seed: int,
    order_seed: int | None = None,
    samples: int | None = None,
    update_every: int = 1,
) -> EpochRunner:
    """The runner of a training on a model.

    Args:
        model: not wrapped for distribution.
        layer: its AIFS layer.
        method: that is trained with.
        data: what is trained on.
        loading: how examples become batches in passes of the encoder.
        processes: of this run.
        batch_size: training examples per forward pass, over all processes.
        seed: of every private draw.
        order_seed: of the order of examples; None is `seed`.
        samples: examples whose latents are kept for an epoch's end; None is the method's number.
        update_every: epochs between two looks at the latents of an epoch.

    Raises:
        InvalidInputError: if a column that the method reads is missing, or holds no integers.
    """
    train, validation = _splits(data, method, seed)
    unlabelled = None if data.unlabelled is None else data.loaded(data.unlabelled)
    passes = EncodingPasses(model, layer, train, validation, loading, processes, seed, unlabelled)
    offered = Offered(
        encode=passes.encode,
        encode_untuned=passes.encode_untuned,
        encode_layers=None if layer.blocks is not None else lambda: encode_layers(passes),
        encode_validation=None if validation is None else passes.encode_validation,
        encode_unlabelled=None if unlabelled is None else passes.encode_unlabelled,
        encode_regions=passes.encode_regions if method.reads_tokens else None,
    )
    contexts = Contexts(
        method=method,
        head=head_on_latents(layer),
        state=layer.state,
        labels=train.labels,
        num_labels=num_labels_of(layer),
        seed=seed,
        columns=train.columns,
        validation_columns={} if validation is None else validation.columns,
        auxiliary=layer.auxiliary,
        encoder_trains=trains_encoder(model, layer),
        tokens=gives_tokens(model),
        device=loading.device,
        batch_size=batch_size,
        processes=processes,
        offered=offered,
    )
    store = LatentStore(len(train.labels), samples or method.samples_per_epoch(contexts.encoder_trains), seed)
    order_seed = seed if order_seed is None else order_seed
    streamed = isinstance(data.train, Stream)
    return EpochRunner(contexts, store, passes, order_seed=order_seed, update_every=update_every, streamed=streamed)


def _splits(data: TrainingData, method: Method, seed: int) -> tuple[Split, Split | None]:
    """Both data sets with the columns that the method reads there."""
    optional = [name for name in method.optional_columns() if name in column_names(data.train)]
    columns = {name: read_column(data.train, name) for name in (*method.columns(), *optional)}
    train = Split(data.loaded(data.train), "training", columns, seed, labels=data.labels)
    if data.validation is None:
        return train, None
    columns = {name: read_column(data.validation, name, "validation") for name in method.validation_columns()}
    return train, Split(data.loaded(data.validation), "validation", columns, seed)

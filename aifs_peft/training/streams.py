"""Streamed training sets: read in one order, pass after pass, so that an example has a position as in a list.

A stream cannot be asked for its example 7, but when every pass gives the same examples in the same order, the seventh
one is known by its place. The first pass counts the examples and reads their labels, which is all that is held of them
(8 bytes each). Later passes are compared with it, example by example.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import Method
from aifs_peft.training.batches import marked, seeded
from aifs_peft.training.labels import LABEL_NAMES, label_of, parsed_labels
from aifs_peft.training.processes import Processes

IN_MEMORY = (
    "load it into memory (datasets: load_dataset(...) without streaming=True, or Dataset.from_generator(lambda: "
    "iter(stream))); a frozen encoder's latents alone are held with cache_latents=True"
)
DRAWS = (
    "a streamed training set gives each example once per epoch, and method {name!r} draws some more often than "
    "others; {remedy}"
)
WORKERS = (
    "dataloader_num_workers={number} with a streamed training set: each worker would read a part or a copy of the "
    "stream in an order of its own, and examples would have no position. Set it to 1 (examples are then read beside "
    "the training) or 0, or " + IN_MEMORY
)
OTHER = (
    "the streamed training set is another one on this pass: example {position} has label {now}, and had {then} on the "
    "first pass. What is known of an example is kept by its place, so a stream must give the same examples in the same "
    "order each time: take shuffling out of it (a fixed order is fine, such as datasets' shuffle(seed=...)) and set "
    "stream_shuffle_buffer, which shuffles anew in each epoch, or " + IN_MEMORY
)
ENDED = (
    "the streamed training set ended after {now} examples on this pass, and had {then} on the first one; a stream must "
    "give the same examples each time, or " + IN_MEMORY
)
DIFFERS = (
    "the streamed training set differs between processes ({sizes} examples, or other labels): give every process the "
    "whole stream, without split_dataset_by_node or shards of its own; each process takes its part of every batch"
)


def is_stream(dataset: Any) -> bool:
    """Whether this is a torch or `datasets` `IterableDataset`, which can only be read from its beginning.

    Args:
        dataset: of any kind.

    Example:
        >>> is_stream([1, 2])
        False
    """
    return isinstance(dataset, IterableDataset) or _is_streamed_table(dataset)


def _is_streamed_table(dataset: Any) -> bool:
    package = sys.modules.get("datasets")
    return package is not None and isinstance(dataset, package.IterableDataset)


class Stream(IterableDataset[dict[str, Any]]):
    """A streamed training set as a training knows it: its labels, its size, and examples that carry their positions.

    The size is found by reading the stream once, when it is first asked for. `set_epoch` is not passed on to the
    source, whose order would change with it.

    Args:
        source: iterable, gives dictionaries with the model's inputs and a label, the same ones on every pass.
        limit: examples to read at most, from the beginning; None reads to the end, which an endless stream has not.
        seed: of what the stream draws from the global generators while it is read (random augmentation).

    Example:
        >>> class Numbers(IterableDataset):
        ...     def __iter__(self):
        ...         return iter([{"x": 0.5, "label": 0}, {"x": 1.5, "label": 1}])
        >>> stream = Stream(Numbers())
        >>> len(stream), stream.labels.tolist(), next(iter(stream.examples()))["aifs_index"]
        (2, [0, 1], 0)
    """

    def __init__(self, source: Any, *, limit: int | None = None, seed: int = 0) -> None:
        self.source, self.limit, self.seed = source, limit, seed
        self._labels: Tensor | None = None
        self._names: list[str] | None = None

    @property
    def names(self) -> list[str]:
        """Names of what an example has beside its label; one is read where they are not known."""
        if self._names is None:
            with seeded(self.seed, [(0, 0, 0)]):
                self._names = [name for name in _names_of(self.source) if name not in LABEL_NAMES]
        return self._names

    @property
    def labels(self) -> Tensor:
        """Labels in the order of the stream, `(n,)` int64, read on a pass of their own.

        Raises:
            InvalidInputError: if the stream is empty, or a label is missing or no integer.
        """
        if self._labels is None:
            with seeded(self.seed, [(0, 0, 0)]):
                values = list(islice(_label_values(self.source), self.limit))
            if not values:
                raise InvalidInputError(
                    "the streamed training set is empty; a generator can be read once only: give a data set whose "
                    "__iter__ begins anew each time, such as datasets.IterableDataset.from_generator(function)"
                )
            self._labels = parsed_labels(values, "training")
        return self._labels

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.examples()

    @property
    def columns(self) -> Mapping[str, Any]:
        """Columns that a method may read beside inputs and labels, each read on a pass of its own."""
        return _Columns(self)

    def examples(self, epoch: int = 0, *, augmented: bool = True) -> Iterator[dict[str, Any]]:
        """All examples with their positions.

        Args:
            epoch: epochs completed.
            augmented: whether what is drawn from the global generators belongs to the example and the epoch, as in
                training; the generators are left alone otherwise.

        Raises:
            InvalidInputError: if this pass gives other examples than the first one.
        """
        labels, source = self.labels, iter(self.source)
        for position in range(len(labels)):
            with seeded(self.seed if augmented else None, [(position, 0, epoch)]):
                example = next(source, None)
            if example is None:
                raise InvalidInputError(ENDED.format(now=position, then=len(labels)))
            label = int(label_of(example))
            if label != int(labels[position]):
                raise InvalidInputError(OTHER.format(position=position, now=label, then=int(labels[position])))
            yield marked(example, position, epoch=epoch)

    def first(self, count: int, seed: int) -> list[Any]:
        """The first examples, unmarked, with whatever is drawn under a seed.

        Args:
            count: how many, at most.
            seed: of the draws.
        """
        with seeded(seed, [(0, 0, 0)]):
            return list(islice(iter(self.source), count))


class _Columns(Mapping[str, Any]):
    """Columns of a stream by name; a value is read when it is asked for."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream.names)

    def __len__(self) -> int:
        return len(self._stream.names)

    def __getitem__(self, name: str) -> Any:
        rows = islice(iter(_selected(self._stream.source, name)), len(self._stream))
        return np.asarray([row[name] for row in rows])


def _names_of(source: Any) -> list[str]:
    """Names of what an example has; of a `datasets.IterableDataset` known without reading one, as a rule."""
    known = getattr(getattr(source, "source", source), "column_names", None)
    return list(known) if known else list(next(iter(source), {}))


def _selected(source: Any, name: str) -> Any:
    """The stream with one column alone where that is possible, so that pictures are not decoded for a label."""
    table = getattr(source, "source", source)
    if _is_streamed_table(table) and name in (table.column_names or ()):
        return table.select_columns([name])
    return source


def _label_values(source: Any) -> Iterator[Any]:
    given = getattr(source, "label_values", None)
    if given is not None:
        return iter(given())
    name = next((name for name in LABEL_NAMES if name in (getattr(source, "column_names", None) or ())), None)
    return (label_of(example) for example in (source if name is None else _selected(source, name)))


def check_streamed(method: Method, *, encoder_trains: bool, num_labels: int) -> None:
    """Refuse, before the first pass, to train on a stream by a method that chooses which examples come.

    Args:
        method: that is trained with.
        encoder_trains: whether latents change between epochs.
        num_labels: number of classes.

    Raises:
        InvalidConfigError: naming the method, and what to do instead.
    """
    if method.draws_examples(encoder_trains=encoder_trains, num_labels=num_labels):
        raise refused_draws(method)


def check_workers(workers: int) -> None:
    """Refuse to read a stream in several places at once.

    Args:
        workers: that read examples, `dataloader_num_workers`.

    Raises:
        InvalidConfigError: for more than one.
    """
    if workers > 1:
        raise InvalidConfigError(WORKERS.format(number=workers))


def refused_draws(method: Method) -> InvalidConfigError:
    """The error of a method that chooses which examples of a stream come.

    Args:
        method: that is trained with.
    """
    without = f"{method.without_draws}; or " if method.without_draws else ""
    return InvalidConfigError(DRAWS.format(name=method.name, remedy=without + IN_MEMORY))


def require_same_stream(stream: Stream, processes: Processes) -> None:
    """Refuse streams that differ between processes.

    Args:
        stream: of this process.
        processes: of the run.

    Raises:
        InvalidInputError: on every process.
    """
    if processes.world_size == 1:
        return
    weights = torch.arange(1, len(stream) + 1, dtype=torch.int64)
    code = torch.tensor([[len(stream), int((weights * (stream.labels + 1)).sum())]])
    codes = processes.gather_rows(code)
    if len(codes.unique(dim=0)) > 1:
        raise InvalidInputError(DIFFERS.format(sizes=", ".join(map(str, codes[:, 0].tolist()))))

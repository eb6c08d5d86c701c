"""A streamed training split in a run: what of the run reads it, pass by pass, and what of it is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from aifs_peft import data
from aifs_peft.data.own.streaming import CHUNK, StreamedData, stream_own
from aifs_peft.data.tables import assemble
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments.prepare import MODALITIES, PreparedDataset, modality_of

if TYPE_CHECKING:
    from datasets import Dataset

    from aifs_peft.experiments.spec import FinetuneSpec

CUT = (
    "streaming cuts no splits, which needs all rows: {names} cannot be given with it; give the splits as files, or "
    "leave streaming out"
)
CACHED = (
    "latent_cache names what it keeps by the bytes of every input, which a stream gives one after the other in each "
    "pass; leave one of latent_cache and streaming out"
)
SPLITS_OF = ("train", "validation", "test")


class PreparedStream(IterableDataset[dict[str, Tensor]]):
    """What the model takes of a streamed training split, example by example; the labels are held.

    Args:
        rows: the split without what the model reads, with a `label` column of integers.
        inputs: gives what the model reads in the order of the rows, some at a time, from the beginning.
        encode: maps a list of inputs to a dict of tensors with the batch first.
        column: which input this is.
        keep: names of integer columns that a training method reads; where present they are in every example.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"label": [0, 1, 1]})
        >>> encode = lambda texts: {"input_ids": torch.tensor([[len(t)] for t in texts])}
        >>> stream = PreparedStream(rows, lambda: iter([["a", "bb"], ["ccc"]]), encode, "text")
        >>> next(iter(stream)), stream.batch(1, 3)["input_ids"].tolist()
        ({'input_ids': tensor([1]), 'labels': tensor(0)}, [[2], [3]])
    """

    def __init__(
        self,
        rows: Dataset,
        inputs: Callable[[], Iterator[list[Any]]],
        encode: Callable[[list[Any]], dict[str, Tensor]],
        column: str,
        keep: Sequence[str] = (),
    ) -> None:
        self.rows, self.inputs, self.encode, self.column = rows, inputs, encode, column
        self.columns = {name: np.asarray(rows[name][:]) for name in keep if name in rows.column_names}
        self.labels = torch.as_tensor(np.asarray(rows["label"][:]), dtype=torch.long)
        self._pass: tuple[Iterator[dict[str, Tensor]], int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for position, example in enumerate(self._examples()):
            own = {name: torch.as_tensor(values[position]) for name, values in self.columns.items()}
            yield {**example, "labels": self.labels[position], **own}

    def label_values(self) -> Iterator[int]:
        """Labels alone, which are held."""
        return iter(self.labels.tolist())

    @property
    def column_names(self) -> list[str]:
        """What an example has beside the model's inputs."""
        return ["labels", *self.columns]

    def batch(self, start: int, stop: int) -> dict[str, Tensor]:
        """Inputs of the rows from `start` up to `stop`, without their labels; rows that follow are read on.

        Args:
            start: first row.
            stop: one after the last.
        """
        if self._pass is None or self._pass[1] > start:
            self._pass = (self._examples(), 0)
        examples, at = self._pass
        for _ in range(start - at):
            next(examples)
        rows = [next(examples) for _ in range(stop - start)]
        self._pass = None if stop == len(self) else (examples, stop)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _examples(self) -> Iterator[dict[str, Tensor]]:
        """Inputs of one pass, each as the model takes it."""
        count = 0
        for part in self.inputs():
            tensors = self.encode(part)
            count += len(part)
            for i in range(len(part) if count <= len(self) else 0):
                yield {name: values[i] for name, values in tensors.items()}
        if count != len(self):
            raise InvalidInputError(
                f"the streamed training set gave {count} examples on this pass, and {len(self)} on the first one; it "
                "must be the same each time: check that its files are not being written"
            )


Prepared = PreparedDataset | PreparedStream


def check_streaming(spec: FinetuneSpec) -> None:
    """Refuse, before anything is loaded, what a run with a streamed training split cannot do.

    Args:
        spec: of the run.

    Raises:
        InvalidConfigError: naming the options.
    """
    given = [name for name in ("test_share",) if getattr(spec, name) is not None]
    given += ["split"] if spec.split != "stratified" else []
    if given:
        raise InvalidConfigError(CUT.format(names=" and ".join(given)))
    if spec.latent_cache is not None:
        raise InvalidConfigError(CACHED)


def load_streamed(spec: FinetuneSpec, options: dict[str, Any], known: Sequence[str] = MODALITIES) -> StreamedData:
    """The data set of a run with its training split as a stream.

    Args:
        spec: which data.
        options: of the data set, or columns of own data.
        known: inputs to look for, in this order.

    Raises:
        InvalidInputError: data that do not come in splits, or that cannot be read.
        DataNotFoundError: a file is missing.
    """
    if data.is_own(spec.dataset):
        options = {name: value for name, value in options.items() if name != "split"}
        return stream_own(spec.dataset, data_dir=spec.data_dir, **options)
    loaded = data.load(spec.dataset, spec.data_dir, streaming=True, **options)
    lacking = [name for name in SPLITS_OF if name not in loaded]
    if lacking:
        raise InvalidInputError(f"the data set {spec.dataset!r} lacks the splits {lacking}; needed are {SPLITS_OF}")
    column = modality_of(loaded["train"], tuple(known))
    beside = [name for name in loaded["train"].column_names if name not in MODALITIES]
    parts = {
        "train": loaded["train"].select_columns(beside),
        "validation": loaded["validation"],
        "test": loaded["test"],
    }
    held = {name: _in_memory(part) for name, part in parts.items()}
    source = loaded["train"].select_columns([column])

    def inputs() -> Iterator[list[Any]]:
        for batch in source.iter(batch_size=CHUNK):
            yield batch[column]

    splits = assemble(held, None, loaded["train"].info.description or "")
    return StreamedData(splits, column, inputs)


def _in_memory(part: Any) -> Dataset:
    """All rows of a stream."""
    from datasets import Dataset

    found: Dataset = Dataset.from_list(list(part), features=part.features)
    return found

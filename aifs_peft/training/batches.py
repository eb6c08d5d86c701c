"""What goes into a batch beside the model's inputs: the example's position, and evaluation columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import LABEL_NAMES, whole_labels
from aifs_peft.training.rng import mix, seeded_reading

# What the data set of a training says of each example beside its content, and the collator carries to the batch.
INDEX = "aifs_index"
OCCURRENCE = "aifs_occurrence"
EPOCH = "aifs_epoch"
POSITION_COLUMNS = (INDEX, OCCURRENCE, EPOCH)


class IndexedDataset(Dataset[dict[str, Any]]):
    """A data set whose examples carry their position, their epoch, and how often they were drawn before in the epoch.

    With a seed, whatever an example's reading draws from the global generators of torch, NumPy and Python (random
    augmentation) is a function of seed, epoch, position and occurrence: the same with any number of workers, and in a
    resumed run. The generators of the training go on as if nothing had been read.

    Args:
        dataset: map-style, with dictionaries as examples; asked for positions, or for the `Draw`s of `EpochSampler`.
        seed: of random augmentation; None leaves the global generators alone.

    Example:
        >>> IndexedDataset([{"label": 1}])[0]
        {'label': 1, 'aifs_index': 0, 'aifs_occurrence': 0, 'aifs_epoch': 0}
        >>> class Noisy(list):
        ...     def __getitem__(self, position):
        ...         return {"x": torch.rand(1)}
        >>> noisy = IndexedDataset(Noisy([0, 1]), seed=3)
        >>> noisy[0]["x"] == noisy[0]["x"], noisy[0]["x"] == noisy[1]["x"]
        (tensor([True]), tensor([False]))
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return marked(self._read(position), *_place(position))

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        """A batch at once, for data sets that are faster that way (`datasets.Dataset` is)."""
        fetch = getattr(self.dataset, "__getitems__", None)
        if fetch is None:
            return [self[position] for position in positions]
        with seeded(self.seed, [_place(position) for position in positions]):
            examples = fetch([int(position) for position in positions])
        return [marked(example, *_place(position)) for example, position in zip(examples, positions, strict=True)]

    def _read(self, position: int) -> Any:
        with seeded(self.seed, [_place(position)]):
            return self.dataset[int(position)]


def marked(example: Any, position: int, occurrence: int = 0, epoch: int = 0) -> dict[str, Any]:
    """An example with its place in the training.

    Args:
        example: by name.
        position: in the training set.
        occurrence: earlier draws of it in the epoch.
        epoch: epochs completed before.

    Example:
        >>> marked({"label": 1}, 7)
        {'label': 1, 'aifs_index': 7, 'aifs_occurrence': 0, 'aifs_epoch': 0}
    """
    return {**example, INDEX: position, OCCURRENCE: occurrence, EPOCH: epoch}


def _place(position: int) -> tuple[int, int, int]:
    """Position, occurrence and epoch; a plain number is drawn for the first time in the first epoch."""
    return int(position), getattr(position, "occurrence", 0), getattr(position, "epoch", 0)


def seeded(seed: int | None, places: Sequence[tuple[int, ...]], stream: int = 0) -> AbstractContextManager[None]:
    """A block whose draws from the global generators are a function of a seed and of places in the training.

    Args:
        seed: of the run; None leaves the generators alone.
        places: position, occurrence and epoch of each example that the block is about.
        stream: another number gives other draws for the same places.
    """
    if seed is None:
        return nullcontext()
    return seeded_reading(mix(seed, stream, *(number for place in places for number in place)))


class CarryingCollator:
    """Carries numbers around a collator that may not know them, so that any user's collator works.

    Args:
        collator: the user's: list of examples to batch.
        columns: names of integer or boolean columns, or lists of those (overlapping groups), to carry besides
            `POSITION_COLUMNS`.
        seed: of what the collator draws from the global generators for a batch of training, see `IndexedDataset`.
    """

    def __init__(
        self, collator: Callable[[list[Any]], dict[str, Any]], columns: Sequence[str] = (), seed: int | None = None
    ) -> None:
        self.collator, self.columns, self.seed = collator, (*POSITION_COLUMNS, *columns), seed

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        """The collator's batch, with one int64 tensor `(batch, ...)` for each carried column that every example has."""
        carried = {
            name: whole_numbers(name, [example[name] for example in examples])
            for name in self.columns
            if all(isinstance(example, dict) and name in example for example in examples)
        }
        plain = [
            {k: v for k, v in example.items() if k not in carried} if isinstance(example, dict) else example
            for example in examples
        ]
        training = all(name in carried for name in POSITION_COLUMNS)
        places = torch.stack([carried[name] for name in POSITION_COLUMNS], 1).tolist() if training else []
        with seeded(self.seed if training else None, places, stream=1):
            batch = self.collator(plain)
        labels = {name: whole_labels(batch[name]) for name in LABEL_NAMES if isinstance(batch.get(name), Tensor)}
        return {**batch, **labels, **carried}


def whole_numbers(name: str, values: Sequence[Any]) -> Tensor:
    """A carried column as int64; a missing value (None, NaN) is -1, which metrics count as in no group.

    Args:
        name: of the column.
        values: one per example, or a list of them.

    Raises:
        InvalidInputError: for values that are no whole numbers.

    Example:
        >>> whole_numbers("group", [1, None, 0])
        tensor([ 1, -1,  0])
    """
    array = np.stack([np.asarray(np.nan if value is None else value) for value in values])
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), -1, array)
    if array.dtype.kind not in "iubf" or (array.dtype.kind == "f" and not (array == np.floor(array)).all()):
        raise InvalidInputError(
            f"the evaluation column {name!r} must hold integers or booleans, with -1 or None where unknown; got "
            f"{array.ravel()[:4].tolist()}. Number names first (pandas.factorize does)"
        )
    return torch.as_tensor(array.astype(np.int64))


def model_inputs(
    batch: dict[str, Any], hidden: Iterable[str] = (), device: torch.device | None = None
) -> dict[str, Any]:
    """What the model takes of a batch: all but labels, positions, and columns that are carried for metrics.

    Labels stay out so that the model does not compute a loss of its own.

    Args:
        batch: by name.
        hidden: names of carried columns.
        device: where tensors go; None leaves them where they are.

    Returns:
        A new dictionary.

    Example:
        >>> sorted(model_inputs({"pixel_values": 0, "labels": 1, "aifs_index": 2, "group": 3}, ["group"]))
        ['pixel_values']
    """
    left_out = {*LABEL_NAMES, *POSITION_COLUMNS, *hidden}
    return {
        name: value.to(device) if device is not None and isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name not in left_out
    }

"""What goes into a batch beside the model's inputs: the example's position, and evaluation columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import LABEL_NAMES, whole_labels

# What the data set of a training says of each example beside its content, and the collator carries to the batch.
INDEX = "aifs_index"
OCCURRENCE = "aifs_occurrence"
POSITION_COLUMNS = (INDEX, OCCURRENCE)


class IndexedDataset(Dataset[dict[str, Any]]):
    """A data set whose examples carry their position, and how often they were drawn before in the epoch.

    Args:
        dataset: map-style, with dictionaries as examples; asked for positions, or for the `Draw`s of `EpochSampler`.

    Example:
        >>> IndexedDataset([{"label": 1}])[0]
        {'label': 1, 'aifs_index': 0, 'aifs_occurrence': 0}
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._marked(self.dataset[int(position)], position)

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        """A batch at once, for data sets that are faster that way (`datasets.Dataset` is)."""
        fetch = getattr(self.dataset, "__getitems__", None)
        plain = [int(position) for position in positions]
        examples = fetch(plain) if fetch else [self.dataset[position] for position in plain]
        return [self._marked(example, position) for example, position in zip(examples, positions, strict=True)]

    @staticmethod
    def _marked(example: Any, position: int) -> dict[str, Any]:
        return {**example, INDEX: int(position), OCCURRENCE: getattr(position, "occurrence", 0)}


class CarryingCollator:
    """Carries numbers around a collator that may not know them, so that any user's collator works.

    Args:
        collator: the user's: list of examples to batch.
        columns: names of integer or boolean columns, or lists of those (overlapping groups), to carry besides
            `POSITION_COLUMNS`.
    """

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], columns: Sequence[str] = ()) -> None:
        self.collator, self.columns = collator, (*POSITION_COLUMNS, *columns)

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        """The collator's batch, with one int64 tensor `(batch, ...)` for each carried column that every example has."""
        carried = {
            name: _whole_numbers(name, [example[name] for example in examples])
            for name in self.columns
            if all(isinstance(example, dict) and name in example for example in examples)
        }
        plain = [
            {k: v for k, v in example.items() if k not in carried} if isinstance(example, dict) else example
            for example in examples
        ]
        batch = self.collator(plain)
        labels = {name: whole_labels(batch[name]) for name in LABEL_NAMES if isinstance(batch.get(name), Tensor)}
        return {**batch, **labels, **carried}


def _whole_numbers(name: str, values: list[Any]) -> Tensor:
    """A carried column as int64; a missing value (None, NaN) is -1, which metrics count as in no group."""
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

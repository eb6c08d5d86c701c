"""What goes into a batch beside the model's inputs: the example's position, its label and evaluation columns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aifs_peft.errors import InvalidInputError

logger = logging.getLogger(__name__)

# What the data set of a training says of each example beside its content, and the collator carries to the batch.
INDEX = "aifs_index"
OCCURRENCE = "aifs_occurrence"
POSITION_COLUMNS = (INDEX, OCCURRENCE)
LABEL_NAMES = ("labels", "label", "label_ids")


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
            name: torch.as_tensor(np.stack([np.asarray(example[name]) for example in examples]).astype(np.int64))
            for name in self.columns
            if all(isinstance(example, dict) and name in example for example in examples)
        }
        plain = [
            {k: v for k, v in example.items() if k not in carried} if isinstance(example, dict) else example
            for example in examples
        ]
        return {**self.collator(plain), **carried}


def label_of(example: Any) -> Any:
    """The label of one example or batch.

    Raises:
        InvalidInputError: if it is no dictionary or has no label.
    """
    keys = list(example) if hasattr(example, "keys") else type(example).__name__
    for name in LABEL_NAMES:
        if hasattr(example, "keys") and name in example and example[name] is not None:
            return example[name]
    raise InvalidInputError(
        f"no label: an example needs one of {', '.join(LABEL_NAMES)}, got {keys}; rename the column, or add it in "
        "the data set or its transform"
    )


def read_labels(dataset: Any) -> Tensor:
    """All labels of a map-style data set, without decoding its inputs where that can be avoided.

    Read from the column of a `datasets.Dataset`, else from an attribute `labels` or `targets`, else example by
    example (which loads every input once: give your data set such an attribute when that is slow).

    Args:
        dataset: with dictionaries as examples.

    Returns:
        `(n,)` int64.

    Raises:
        InvalidInputError: if the set is empty, has no length, or a label is no integer.

    Example:
        >>> read_labels([{"x": 0.0, "label": 1}, {"x": 1.0, "label": 0}])
        tensor([1, 0])
    """
    if dataset is None or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InvalidInputError(
            f"training needs a data set with a length and indexing, got {type(dataset).__name__}; turn an iterable "
            "one into a map-style one (for a streamed datasets.Dataset: load it without streaming=True)"
        )
    if len(dataset) == 0:
        raise InvalidInputError("the training set is empty; check the split name and the filters applied to it")
    values = _raw_labels(dataset)
    try:
        labels = np.asarray([int(v) for v in values]) if not isinstance(values, np.ndarray) else values
        exact = np.array_equal(labels, np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"labels must be integers, one per example; got {type(values[0]).__name__}: {error}"
        ) from error
    if labels.ndim != 1 or not exact:
        raise InvalidInputError(
            f"labels must be integers, one per example; got {values[0]!r}. Multi-label and regression targets are "
            "not supported: map them to class indices"
        )
    return torch.as_tensor(labels.astype(np.int64))


def is_table(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`; where that package was never imported, it cannot be one.

    Example:
        >>> is_table([{"label": 1}])
        False
    """
    package = sys.modules.get("datasets")
    return package is not None and isinstance(dataset, package.Dataset)


def _columns_of(dataset: Any) -> list[str]:
    names = dataset.column_names if is_table(dataset) else getattr(dataset, "columns", None)
    return list(names or [])


def has_column(dataset: Any, name: str) -> bool:
    """Whether `read_column` would find a column of that name.

    Example:
        >>> import datasets
        >>> has_column(datasets.Dataset.from_dict({"environment": [0, 1]}), "attributes")
        False
    """
    return name in _columns_of(dataset)


def read_column(dataset: Any, name: str, what: str = "training") -> Tensor:
    """A column of integers of a map-style data set: of a `datasets.Dataset`, or from its mapping `columns`.

    Args:
        dataset: with that column.
        name: of the column.
        what: which set, for the message.

    Returns:
        `(n,)` int64, or `(n, m)` for a column of lists of equal length.

    Raises:
        InvalidInputError: if there is no such column, or it does not hold integers.

    Example:
        >>> import datasets
        >>> read_column(datasets.Dataset.from_dict({"environment": [0, 1, 1]}), "environment")
        tensor([0, 1, 1])
    """
    if is_table(dataset):
        held: Any = dataset.with_format(None) if name in dataset.column_names else {}
    else:
        held = getattr(dataset, "columns", None) or {}
    names = _columns_of(dataset)
    if name not in names:
        raise InvalidInputError(
            f"the method reads a column {name!r} of the {what} set, which has {names or 'no columns'}; add it to the "
            f"datasets.Dataset, or give your data set an attribute columns = {{{name!r}: integers}}"
        )
    values = np.asarray(held[name])
    if values.dtype.kind not in "iub" or len(values) != len(dataset):
        raise InvalidInputError(
            f"column {name!r} of the {what} set must hold one integer (or list of integers) per example; got dtype "
            f"{values.dtype}, shape {values.shape} for {len(dataset)} examples"
        )
    return torch.as_tensor(values.astype(np.int64))


def _raw_labels(dataset: Any) -> Any:
    if is_table(dataset):
        for name in LABEL_NAMES:
            if name in dataset.column_names:
                return list(dataset.with_format(None)[name])
    for name in ("labels", "targets"):
        values = getattr(dataset, name, None)
        if isinstance(values, Sequence | np.ndarray | Tensor) and len(values) == len(dataset):
            return values.cpu().numpy() if isinstance(values, Tensor) else values
    if not isinstance(dataset, Sequence):
        logger.info("reading labels example by example; an attribute `labels` of the data set would be faster")
    return [label_of(dataset[position]) for position in range(len(dataset))]


def check_labels(labels: Tensor, num_labels: int, what: str = "training") -> None:
    """Refuse labels that the head has no class for, and a set with one class.

    Args:
        labels: `(n,)` int64.
        num_labels: classes of the head.
        what: which set, for the message.

    Raises:
        InvalidInputError: naming the labels.

    Example:
        >>> check_labels(torch.tensor([0, 3]), 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        aifs_peft.errors.InvalidInputError: labels of the training set must lie in [0, 2), got [0, 3]; ...
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_labels:
        raise InvalidInputError(
            f"labels of the {what} set must lie in [0, {num_labels}), got [{low}, {high}]; map them to class indices "
            f"or build the head with num_labels={max(high + 1, 2)}"
        )
    if low == high:
        raise InvalidInputError(
            f"all {len(labels)} labels of the {what} set are {low}: there is nothing to tell apart; check the split "
            "and whether the set is sorted by class and was cut"
        )

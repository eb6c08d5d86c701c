"""Labels of a data set: found wherever they are, and checked before anything is trained or evaluated on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.columns import is_table

logger = logging.getLogger(__name__)

LABEL_NAMES = ("labels", "label", "label_ids")
# What data sets write where an example has no label: torch's index to ignore, and the Hub's sign of a hidden test set.
NO_LABEL = (-100, -1)

NOT_MAP_STYLE = (
    "{what} needs a data set with a length and indexing, got {kind}; turn an iterable one into a map-style one (for a "
    "streamed datasets.Dataset: load it without streaming=True)"
)


def label_of(example: Any) -> Any:
    """The label of one example or batch.

    Args:
        example: a mapping with one of `LABEL_NAMES`.

    Raises:
        InvalidInputError: if it is no mapping or has no label.

    Example:
        >>> label_of({"label": 3})
        3
    """
    label = _label_or_none(example)
    if label is None:
        keys = list(example) if hasattr(example, "keys") else type(example).__name__
        raise InvalidInputError(
            f"no label: an example needs one of {', '.join(LABEL_NAMES)}, got {keys}; rename the column, or add it in "
            "the data set or its transform"
        )
    return whole_labels(label) if isinstance(label, Tensor) else label


def whole_labels(labels: Tensor) -> Tensor:
    """Labels of a batch as integers: collators write whole numbers of another type, 1.0 or `np.True_`, as floats.

    Args:
        labels: of any type.

    Raises:
        InvalidInputError: for a fraction, which is no class.

    Example:
        >>> whole_labels(torch.tensor([1.0, 0.0]))
        tensor([1, 0])
    """
    if not labels.is_floating_point():
        return labels
    if not bool((labels == labels.floor()).all()):  # not of NaN either
        raise InvalidInputError(
            f"labels must be integers; a batch has {labels.flatten()[:8].tolist()}. Regression is not supported"
        )
    return labels.long()


def read_labels(dataset: Any, what: str = "training") -> Tensor:
    """All labels of a map-style data set, without decoding its inputs where that can be avoided.

    Read from the column of a `datasets.Dataset`, else from an attribute `labels` or `targets`, else example by
    example (which loads every input once: give your data set such an attribute when that is slow).

    Args:
        dataset: with dictionaries as examples.
        what: which set, for the messages.

    Returns:
        `(n,)` int64.

    Raises:
        InvalidInputError: if the set is empty, has no length, or a label is missing or no integer.

    Example:
        >>> read_labels([{"x": 0.0, "label": 1}, {"x": 1.0, "label": 0}])
        tensor([1, 0])
    """
    values = _raw_labels(dataset, what)
    if all(value is None for value in values):
        label_of(dataset[0])  # raises, and tells what an example has
    return parsed_labels(values, what)


def find_labels(dataset: Any, what: str = "test") -> Tensor | None:
    """All labels of a map-style data set, where it has some.

    Args:
        dataset: with dictionaries as examples.
        what: which set, for the messages.

    Returns:
        `(n,)` int64; None if no example has a label, or all are one of `NO_LABEL`.

    Raises:
        InvalidInputError: if only some labels are missing, or a label is no integer.

    Example:
        >>> find_labels([{"x": 0.0}, {"x": 1.0}]), find_labels([{"label": -1}, {"label": 1}])
        (None, tensor([-1,  1]))
    """
    values = _raw_labels(dataset, what)
    if all(value is None for value in values):
        return None
    labels = parsed_labels(values, what)
    return None if bool(torch.isin(labels, torch.tensor(NO_LABEL)).all()) else labels


def is_map_style(dataset: Any) -> bool:
    """Whether the set has a length and can be indexed.

    Example:
        >>> is_map_style([]), is_map_style(iter([]))
        (True, False)
    """
    indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    return indexed and not isinstance(dataset, IterableDataset)  # torch's has both names, and refuses to be indexed


def check_labels(labels: Tensor, num_labels: int, what: str = "training", *, several: bool = True) -> None:
    """Refuse labels that the head has no class for, and a set with one class where there must be more.

    Args:
        labels: `(n,)` int64.
        num_labels: classes of the head.
        what: which set, for the message.
        several: whether the set must have examples of at least two classes.

    Raises:
        InvalidInputError: naming the labels.

    Example:
        >>> check_labels(torch.tensor([0, 3]), 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        aifs_peft.errors.InvalidInputError: labels of the training set must lie in [0, 2), got [0, 3]; ...
    """
    low, high = int(labels.min()), int(labels.max())
    missing = int(torch.isin(labels, torch.tensor(NO_LABEL, device=labels.device)).sum())
    if missing:
        raise InvalidInputError(
            f"labels of the {what} set must lie in [0, {num_labels}), got [{low}, {high}]: {missing} of {len(labels)} "
            "examples are labelled -1 or -100, which stands for no label; leave them out of the set"
        )
    if low < 0 or high >= num_labels:
        raise InvalidInputError(
            f"labels of the {what} set must lie in [0, {num_labels}), got [{low}, {high}]; map them to class indices "
            f"or build the head with num_labels={max(high + 1, 2)}"
        )
    if several and low == high:
        raise InvalidInputError(
            f"all {len(labels)} labels of the {what} set are {low}: there is nothing to tell apart; check the split "
            "and whether the set is sorted by class and was cut"
        )


class WithoutLabels(Dataset[dict[str, Any]]):
    """A map-style data set whose examples have no label any more.

    Args:
        dataset: with dictionaries as examples.

    Example:
        >>> WithoutLabels([{"x": 0.5, "label": -1}])[0]
        {'x': 0.5}
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {name: value for name, value in self.dataset[position].items() if name not in LABEL_NAMES}


def without_labels(dataset: Any) -> Any:
    """The data set without its label column, to predict on a set whose labels are hidden.

    Args:
        dataset: map-style.

    Example:
        >>> len(without_labels([{"x": 0.5, "label": -1}]))
        1
    """
    if is_table(dataset):
        return dataset.remove_columns([name for name in LABEL_NAMES if name in dataset.column_names])
    return WithoutLabels(dataset)


def _label_or_none(example: Any) -> Any:
    for name in LABEL_NAMES:
        if hasattr(example, "keys") and name in example and example[name] is not None:
            return example[name]
    return None


def _raw_labels(dataset: Any, what: str) -> Any:
    """Labels as they are held: an array, or a list with None for those that are missing."""
    if not is_map_style(dataset):
        raise InvalidInputError(NOT_MAP_STYLE.format(what=what, kind=type(dataset).__name__))
    if len(dataset) == 0:
        raise InvalidInputError(f"the {what} set is empty; check the split name and the filters applied to it")
    if is_table(dataset):
        for name in LABEL_NAMES:
            if name in dataset.column_names:
                return list(dataset.with_format(None)[name])
        return [None] * len(dataset) if dataset.format["type"] != "custom" else _one_by_one(dataset)
    for name in ("labels", "targets"):
        values = getattr(dataset, name, None)
        if isinstance(values, Sequence | np.ndarray | Tensor) and len(values) == len(dataset):
            return values.cpu().numpy() if isinstance(values, Tensor) else values
    if not isinstance(dataset, Sequence):
        logger.info("reading labels example by example; an attribute `labels` of the data set would be faster")
    return _one_by_one(dataset)


def parsed_labels(values: Any, what: str = "training") -> Tensor:
    """Labels as they are held, as integers.

    Args:
        values: an array, or a list of anything.
        what: which set, for the messages.

    Returns:
        `(n,)` int64.

    Raises:
        InvalidInputError: naming the first that is no integer.

    Example:
        >>> parsed_labels([0, torch.tensor(1), 2.0])
        tensor([0, 1, 2])
    """
    whole = _whole_numbers(values)
    if whole is None:
        position = _first_unusable(values)
        raise InvalidInputError(
            f"labels must be integers, one per example; example {position} of the {what} set has "
            f"{_describe(values[position])}. Map text labels to class indices; multi-label and regression targets are "
            "not supported"
        )
    return torch.as_tensor(whole)


def _one_by_one(dataset: Any) -> list[Any]:
    return [_label_or_none(dataset[position]) for position in range(len(dataset))]


def _whole_numbers(values: Any) -> NDArray[np.int64] | None:
    """The labels as integers `(n,)`; None if one of them is no whole number."""
    try:
        array = np.asarray(values if isinstance(values, np.ndarray) else [_number(value) for value in values])
    except (AttributeError, RuntimeError, TypeError, ValueError):  # what holds several numbers, or none
        return None
    if array.ndim != 1 or array.dtype.kind not in "iubf":
        return None
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        return None
    return array.astype(np.int64)


def _number(value: Any) -> Any:
    """A number as it is; what holds one (a tensor, an array of one) as a number."""
    if isinstance(value, str | bytes):
        raise TypeError(f"text is no label: {value!r}")
    return value if isinstance(value, int | float | np.number) else value.item()


def _first_unusable(values: Any) -> int:
    return next((i for i, value in enumerate(values) if _whole_numbers([value]) is None), 0)


def _describe(value: Any) -> str:
    if value is None:
        return "no label"
    return f"{value!r} ({type(value).__name__})"

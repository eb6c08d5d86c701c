"""Columns of a data set: of a `datasets.Dataset`, or of any other map-style one that offers them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aifs_peft.errors import InvalidInputError


def is_table(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`; where that package was never imported, it cannot be one.

    Example:
        >>> is_table([{"label": 1}])
        False
    """
    package = sys.modules.get("datasets")
    return package is not None and isinstance(dataset, package.Dataset)


def column_names(dataset: Any) -> list[str]:
    """Names of the columns that `read_column` would find.

    Example:
        >>> column_names([{"label": 1}])
        []
    """
    names = dataset.column_names if is_table(dataset) else getattr(dataset, "columns", None)
    return list(names or [])


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
    names = column_names(dataset)
    if name not in names:
        raise InvalidInputError(
            f"the method reads a column {name!r} of the {what} set, which has {names or 'no columns'}; add it to the "
            f"datasets.Dataset, or give your data set an attribute columns = {{{name!r}: integers}}"
        )
    held = dataset.with_format(None) if is_table(dataset) else dataset.columns
    values = np.asarray(held[name])
    if values.dtype.kind not in "iub" or len(values) != len(dataset):
        raise InvalidInputError(
            f"column {name!r} of the {what} set must hold one integer (or list of integers) per example; got dtype "
            f"{values.dtype}, shape {values.shape} for {len(dataset)} examples"
        )
    return torch.as_tensor(values.astype(np.int64))

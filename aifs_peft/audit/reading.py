"""What a user hands over, as checked arrays: latents, labels, predictions, inputs, class names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.discovery import Discovery
from aifs_peft.discovery.inputs import encode_labels
from aifs_peft.discovery.mixture.joint import count_attributes, joint_values
from aifs_peft.discovery.streaming.columns import as_values
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import LatentSource
from aifs_peft.errors import InvalidInputError

IntArray = NDArray[np.integer]
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm")


@dataclass(frozen=True)
class Data:
    """What is audited.

    Args:
        source: latents `(n, d)`, read in blocks of rows.
        y: class of each example, index into `classes`, `(n,)`.
        classes: distinct labels, sorted, `(K,)`.
        names: what the classes are called, in that order; the labels themselves where no names were given.
    """

    source: LatentSource
    y: IntArray
    classes: NDArray[Any]
    names: tuple[Any, ...]

    def value_names(self, n_values: int) -> tuple[Any, ...]:
        """Names of attribute values: of the class that each goes with; of joint values all names, joined by " & "."""
        K = len(self.names)
        joint = joint_values(K, count_attributes(n_values, K))
        return tuple(
            self.names[row[0]] if len(set(row)) == 1 else " & ".join(str(self.names[i]) for i in row)
            for row in joint.tolist()
        )

    def carries(self, n_values: int) -> NDArray[np.bool_]:
        """Which classes each attribute value goes with, `(A, K)`."""
        K = len(self.names)
        joint = joint_values(K, count_attributes(n_values, K))
        return np.asarray((joint[:, :, None] == np.arange(K)).any(axis=1))


def read_data(Z: Any, y: Any, class_names: Any = None) -> Data:
    """Latents and labels, checked.

    Args:
        Z: array, tensor, `DataFrame`, list of rows or what is read in blocks, `(n, d)`. Whether its values are finite
            is not looked at here.
        y: labels `(n,)`: array, tensor, `Series`, list or column of a data set; integers or strings.
        class_names: names in the order of the labels, or a mapping of labels to names.

    Raises:
        InvalidInputError: For anything `discover` refuses, missing labels, or names that do not fit.

    Example:
        >>> read_data([[0.0], [1.0]], ["cat", "dog"]).names
        ('cat', 'dog')
    """
    check_same_order(Z, y, "y")
    source = as_source(Z.to_numpy() if isinstance(Z, pd.DataFrame) else Z)
    if source.processes.count > 1:
        raise InvalidInputError(
            f"Latents that lie on {source.processes.count} processes were given; an audit looks at single examples of "
            "all of them. Call discover with ShardedLatents on all processes, and audit where all latents can be read."
        )
    labels = to_array(as_values(y))
    missing = int(pd.isna(labels).sum()) if labels.dtype.kind in "Of" else 0
    if missing:
        raise InvalidInputError(
            f"{missing} of {len(labels)} labels are missing; every example needs a class. Leave those rows out."
        )
    if labels.dtype.kind == "O":
        kinds = {type(label).__name__ for label in labels.tolist()}
        if len(kinds) > 1:
            raise InvalidInputError(f"labels are of several types, {', '.join(sorted(kinds))}; give one, such as str.")
        labels = np.asarray(labels.tolist())
    classes, index = encode_labels(labels, len(source))
    return Data(source, index, classes, _class_names(classes, class_names))


def to_array(values: Any) -> NDArray[Any]:
    """Values as a NumPy array, from whatever holds them.

    Raises:
        InvalidInputError: For one value alone.
    """
    values = to_numpy(values)
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, Iterable):
        raise InvalidInputError(f"one value per example is needed, such as a list or an array; got {values!r:.100}.")
    listed = list(values)
    # NumPy would turn numbers beside texts into texts.
    mixed = any(isinstance(value, str) for value in listed) and not all(isinstance(value, str) for value in listed)
    return np.array(listed, dtype=object) if mixed else np.asarray(listed)


def check_same_order(Z: Any, other: Any, what: str) -> None:
    """Refuse two tables that hold the same index in another order: rows are matched by position.

    Raises:
        InvalidInputError: If both are pandas objects whose indices differ in order only.
    """
    kinds = (pd.DataFrame, pd.Series)
    if not (isinstance(Z, kinds) and isinstance(other, kinds)) or Z.index.equals(other.index):
        return
    if len(Z) == len(other) and set(Z.index) == set(other.index):
        raise InvalidInputError(
            f"the index of {what} is that of Z in another order, and rows are matched by position; pass "
            f"{what}.loc[Z.index]."
        )


def _class_names(classes: NDArray[Any], given: Any) -> tuple[Any, ...]:
    if given is None:
        return tuple(classes.tolist())
    labels = classes.tolist()
    if isinstance(given, Mapping):
        unnamed = [label for label in labels if label not in given]
        if unnamed:
            raise InvalidInputError(f"class_names has no name for the labels {unnamed[:5]}; name every label.")
        return tuple(str(given[label]) for label in labels)
    names = [str(name) for name in given]
    if classes.dtype.kind in "iu" and labels[0] >= 0 and labels[-1] < len(names):
        return tuple(names[label] for label in labels)
    if len(names) == len(labels):
        return tuple(names)
    raise InvalidInputError(
        f"class_names holds {len(names)} names for the {len(labels)} labels {labels[:10]}; give one name per label, or "
        "a mapping of labels to names."
    )


def read_predictions(predictions: Any, data: Data) -> IntArray:
    """Predicted class of each example as an index, `(n,)`; -1 for a class that no example has.

    Args:
        predictions: labels `(n,)`; scores `(n, K)`, columns in the order of the sorted labels; or, with two classes,
            the probability of the second one, `(n,)` floats.
        data: what is audited.

    Raises:
        InvalidInputError: For another shape, or predictions that share no label with the data.

    Example:
        >>> data = read_data([[0.0], [1.0]], ["cat", "dog"])
        >>> read_predictions([[0.9, 0.1], [0.2, 0.8]], data).tolist(), read_predictions(["dog", "cow"], data).tolist()
        ([0, 1], [1, -1])
    """
    given, n, K = to_array(predictions), len(data.y), len(data.classes)
    if given.shape == (n, K) and given.dtype.kind in "fiu":
        if not np.isfinite(given).all():
            raise InvalidInputError("predictions hold NaN or infinite scores; leave those examples out of the audit.")
        return np.asarray(given.argmax(axis=1), dtype=np.int64)
    if given.shape != (n,):
        raise InvalidInputError(
            f"predictions of shape {given.shape} were given for {n} examples of {K} classes; needed are labels ({n},) "
            f"or scores ({n}, {K})."
        )
    known = {label: i for i, label in enumerate(data.classes.tolist())}
    by_name = {name: i for i, name in enumerate(data.names)}
    index = np.array([known.get(label, by_name.get(label, -1)) for label in given.tolist()], dtype=np.int64)
    if K == 2 and given.dtype.kind == "f" and np.any(index < 0) and given.min() >= 0.0 and given.max() <= 1.0:
        return np.asarray(given >= 0.5, dtype=np.int64)
    if np.all(index < 0):
        raise InvalidInputError(
            f"predictions such as {given.tolist()[:3]} are none of the labels {data.classes.tolist()[:10]}; give "
            "labels in the form of y, or scores with one column per class."
        )
    return index


def check_discovery(discovery: Discovery, data: Data) -> None:
    """Refuse a result of other data.

    Raises:
        InvalidInputError: If it is of another number of examples, another width, or other labels.
    """
    same = len(discovery.groups_) == len(data.y) and discovery.displacements_.shape[1] == data.source.shape[1]
    if not same or discovery.classes_.tolist() != data.classes.tolist():
        raise InvalidInputError(
            f"discovery is of {len(discovery.groups_)} examples of width {discovery.displacements_.shape[1]} and the "
            f"labels {discovery.classes_.tolist()[:10]}; audited are {len(data.y)} of width {data.source.shape[1]} and "
            f"{data.classes.tolist()[:10]}. Pass discover(Z, y, ...) of the same data, or leave it out."
        )


def read_inputs(inputs: Any, Z: Any, n: int) -> Any:
    """The inputs, one per example; where none are given, a table's own index if it is more than a count.

    Raises:
        InvalidInputError: If there is not one input per example.
    """
    if inputs is None:
        named = isinstance(Z, pd.DataFrame) and not isinstance(Z.index, pd.RangeIndex)
        return Z.index.tolist() if named else None
    if not hasattr(inputs, "__len__") or not hasattr(inputs, "__getitem__") or len(inputs) != n:
        size = len(inputs) if hasattr(inputs, "__len__") else "no"
        raise InvalidInputError(
            f"inputs of type {type(inputs).__name__} with {size} entries were given for {n} examples; needed is a "
            "sequence with one path, text or image per example."
        )
    return inputs.tolist() if isinstance(inputs, pd.Series) else inputs


def input_text(value: Any) -> str | None:
    """What an input is called: a path or text as it is, the file of an image; `None` for anything else.

    Example:
        >>> input_text("a.png"), input_text({"path": "b.png", "bytes": None}), input_text([1.0])
        ('a.png', 'b.png', None)
    """
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, dict):
        return input_text(value.get("path"))
    name = getattr(value, "filename", None)
    return str(name) if isinstance(name, str | Path) and str(name) else None


def noun_of(inputs: Any) -> str:
    """`"images"`, `"texts"` or `"examples"`, by the first input.

    Example:
        >>> noun_of(["a.png"]), noun_of(["a long text"]), noun_of(None)
        ('images', 'texts', 'examples')
    """
    if inputs is None or not len(inputs):
        return "examples"
    first = inputs[0]
    name = input_text(first)
    if (name is not None and name.lower().endswith(_IMAGE_SUFFIXES)) or hasattr(first, "getpixel"):
        return "images"
    return "texts" if isinstance(first, str) and " " in first else "examples"

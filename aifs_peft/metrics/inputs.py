"""Reading arrays: NumPy, torch or lists in, checked integer and float arrays out. Nothing is relabelled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft import _checks
from aifs_peft.errors import InvalidInputError

# A row of probabilities may miss a sum of one by this much: half precision and bfloat16 softmax do.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Batch:
    """Checked arrays of one update; all of length `n`.

    Attributes:
        y_true: class ids, `(n,)`.
        y_pred: class ids, `(n,)`.
        groups: group ids `(n,)`, or a boolean membership matrix `(n, groups)`.
        attributes: the same for attributes, or `None`.
        score: score of class 1 `(n,)` for two classes, class probabilities `(n, classes)` otherwise, or
            `None`.
    """

    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    groups: NDArray[Any]
    attributes: NDArray[Any] | None
    score: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.y_true)

    def chunks(self, rows: int) -> Iterator["Batch"]:
        """Views of consecutive rows that make at most `rows` memberships, so that temporaries stay small."""
        # A matrix row spreads over as many slots as it has columns.
        widths = [ids.shape[1] for ids in (self.groups, self.attributes) if ids is not None and ids.ndim == 2]
        rows = max(1, rows // max(widths, default=1))
        for start in range(0, len(self), rows):
            part = slice(start, start + rows)
            yield replace(
                self,
                y_true=self.y_true[part],
                y_pred=self.y_pred[part],
                groups=self.groups[part],
                attributes=None if self.attributes is None else self.attributes[part],
                score=None if self.score is None else self.score[part],
            )


def to_numpy(value: Any, name: str) -> NDArray[Any]:
    """A NumPy view or copy of a list, array or torch tensor; bfloat16 becomes float32.

    Raises:
        InvalidInputError: `None`, a ragged list, or anything else without a numeric or boolean type.

    Example:
        >>> to_numpy([0, 1], "y_true").tolist()
        [0, 1]
    """
    value = _checks.to_numpy(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not a rectangular array: {error}") from error
    if array.size == 0 and array.dtype == np.float64 and not hasattr(value, "dtype"):
        array = array.astype(np.int64)  # NumPy calls an empty list float
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} must hold numbers or booleans; got {type(value).__name__} of {array.dtype}")
    return array


def class_or_group_ids(array: NDArray[Any], name: str, upper: int) -> NDArray[Any]:
    """Check ids in `0 .. upper - 1`, shape `(n,)`; they keep their meaning, whatever ids are missing.

    Raises:
        InvalidInputError: a shape other than `(n,)`, a float type, or an id out of range.

    Example:
        >>> class_or_group_ids(np.array([0, 3]), "groups", 4).tolist()
        [0, 3]
    """
    if array.ndim != 1:
        raise InvalidInputError(f"{name} must have shape (n,); got {array.shape}")
    remedy = "; raise the number of classes, groups or attributes, or mark padded rows with valid=False"
    _checks.check_ids(name, array, upper, remedy)
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def membership(array: NDArray[Any], name: str, slots: int) -> NDArray[Any]:
    """Check group ids `(n,)` or a boolean membership matrix `(n, slots)` of overlapping groups.

    Where an id is -1 (a missing value), the example is in no group, and the ids become a matrix.

    Raises:
        InvalidInputError: a matrix that is not boolean or has another number of columns, or bad ids.

    Example:
        >>> membership(np.eye(2, dtype=bool), "groups", 2).shape
        (2, 2)
    """
    if array.ndim == 1 and array.dtype.kind == "i" and (array == -1).any():
        known = array != -1
        inside = np.zeros((len(array), slots), dtype=bool)
        inside[np.flatnonzero(known), class_or_group_ids(array[known], name, slots)] = True
        return inside
    if array.ndim != 2:
        return class_or_group_ids(array, name, slots)
    if array.dtype != np.bool_:
        msg = f"{name} of shape {array.shape} must be boolean (row i is in group g); got {array.dtype}"
        raise InvalidInputError(msg)
    if array.shape[1] != slots:
        raise InvalidInputError(f"{name} has {array.shape[1]} columns; {slots} slots are configured")
    return array


def scores(array: NDArray[Any], classes: int) -> NDArray[Any]:
    """Check scores and bring them to the one form used: `(n,)` for two classes, `(n, classes)` otherwise.

    Raises:
        InvalidInputError: a wrong shape, a value that is not finite, or rows that are no probabilities.

    Example:
        >>> scores(np.array([[0.25, 0.75]]), 2).tolist()
        [0.75]
    """
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    # A sum is NaN or infinite as soon as one entry is: one pass, and the slow check only when it fires.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(array.sum())
    if suspicious and not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise InvalidInputError(f"y_score holds {bad} NaN or infinite values; drop those rows or mark them invalid")
    if array.ndim == 1 and classes == 2:
        return array
    if array.ndim != 2 or array.shape[1] != classes:
        form = "(n,) or (n, 2)" if classes == 2 else f"(n, {classes})"
        raise InvalidInputError(f"y_score has shape {array.shape}; {classes} classes need {form}")
    if array.size and (array.min() < 0 or array.max() > 1 or np.abs(array.sum(1) - 1).max() > SUM_TOLERANCE):
        msg = "two-dimensional y_score must hold probabilities (rows in [0, 1], sum 1): apply a softmax"
        raise InvalidInputError(msg)
    return np.ascontiguousarray(array[:, 1]) if classes == 2 else array


def read_batch(
    y_true: Any,
    y_pred: Any,
    groups: Any,
    y_score: Any = None,
    *,
    attributes: Any = None,
    valid: Any = None,
    num_classes: int,
    num_groups: int,
    num_attributes: int = 0,
) -> Batch:
    """Read and check everything before any state changes, so that a refused update leaves no trace.

    Rows with `valid == False` (padding of a distributed sampler) are dropped first, so they may hold
    anything.

    Raises:
        InvalidInputError: lengths that differ, a mask that is not boolean, or any array refused above.

    Example:
        >>> len(read_batch([0, -100], [0, 0], [1, 7], valid=[True, False], num_classes=2, num_groups=2))
        1
    """
    arrays = {
        "y_true": to_numpy(y_true, "y_true"),
        "y_pred": to_numpy(y_pred, "y_pred"),
        "groups": to_numpy(groups, "groups"),
    }
    arrays |= {k: to_numpy(v, k) for k, v in (("y_score", y_score), ("attributes", attributes)) if v is not None}
    if valid is not None:
        arrays["valid"] = to_numpy(valid, "valid")
    sizes = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise InvalidInputError(f"arrays of one update must have one length; got {sizes}")
    if (mask := arrays.pop("valid", None)) is not None:
        if (mask.dtype != np.bool_ and mask.size) or mask.ndim != 1:
            raise InvalidInputError(f"valid must be boolean of shape (n,); got {mask.dtype} of shape {mask.shape}")
        arrays = {name: array[mask.astype(bool)] for name, array in arrays.items()}
    if (num_attributes > 0) != ("attributes" in arrays):
        given = "given" if "attributes" in arrays else "not given"
        msg = f"{num_attributes} attributes are configured, and attributes were {given}"
        raise InvalidInputError(
            msg + ": set num_attributes (or attribute_names) and pass attributes in every update, or neither"
        )
    return Batch(
        class_or_group_ids(arrays["y_true"], "y_true", num_classes),
        class_or_group_ids(arrays["y_pred"], "y_pred", num_classes),
        membership(arrays["groups"], "groups", num_groups),
        membership(arrays["attributes"], "attributes", num_attributes) if num_attributes else None,
        scores(arrays["y_score"], num_classes) if "y_score" in arrays else None,
    )


def expand(ids: NDArray[Any]) -> tuple[NDArray[np.intp] | None, NDArray[np.intp]]:
    """Row index and slot of every membership: `(None, ids)` for ids, one pair per `True` of a matrix.

    Example:
        >>> index, slots = expand(np.array([[True, True], [False, True]]))
        >>> index.tolist(), slots.tolist()
        ([0, 0, 1], [0, 1, 1])
    """
    if ids.ndim == 2:
        index, slots = np.nonzero(ids)
        return index, slots
    return None, ids.astype(np.intp, copy=False)


def slot_names(names: Sequence[str] | None, slots: int, argument: str) -> tuple[str, ...]:
    """One distinct name per slot; the id as text without names.

    Raises:
        InvalidInputError: a wrong number of names, or one name twice.

    Example:
        >>> slot_names(None, 2, "group_names")
        ('0', '1')
    """
    result = tuple(str(slot) for slot in range(slots)) if names is None else tuple(str(name) for name in names)
    if len(result) != slots or len(set(result)) != slots:
        raise InvalidInputError(f"{argument} must be {slots} different names; got {result}")
    return result


def training_shares(shares: Any, groups: int) -> NDArray[np.float64]:
    """Shares of the groups in the training data, scaled to sum to 1; counts are welcome.

    Raises:
        InvalidInputError: a wrong length, a negative or non-finite entry, or nothing but zeros.

    Example:
        >>> training_shares([30, 10], 2).tolist()
        [0.75, 0.25]
    """
    array = to_numpy(shares, "group_shares").astype(np.float64)
    if array.shape != (groups,) or not np.isfinite(array).all() or (array < 0).any() or array.sum() <= 0:
        msg = f"group_shares must be {groups} non-negative numbers that do not all vanish; got {array.tolist()}"
        raise InvalidInputError(msg)
    return np.asarray(array / array.sum())

"""From checked columns to a `Dataset`: inputs, label, attribute, group, and all other columns as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.own.inputs import pictures, texts
from aifs_peft.data.own.roles import Roles, is_dataset_column
from aifs_peft.data.own.rows import Rows
from aifs_peft.data.own.values import MISSING_WORDS, Categories
from aifs_peft.data.tables import build_split, vector_column

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

RESERVED = ("image", "text", "features", "label", "attribute", "group")
"""Names that stand for a role; a column of such a name that has another role becomes `column_NAME`."""


def build(
    rows: Rows,
    roles: Roles,
    label: Categories,
    attribute: Categories | None,
    group: Categories | None,
    vectors: NDArray[np.float32] | None,
    root: Path | None,
) -> tuple[Dataset, GroupSpec | None]:
    """All rows as one data set.

    Args:
        rows: the table.
        roles: its columns by role.
        label: classes of the rows.
        attribute: attribute values; the groups are then label x attribute.
        group: ready-made groups instead.
        vectors: `(n, d)` features.
        root: folder where paths of pictures start.

    Returns:
        The data set, and what its groups are, `None` without an attribute.
    """
    from datasets import ClassLabel, Features, concatenate_datasets

    columns, features = input_columns(rows, roles.image, roles.text, vectors, root)
    columns["label"], features["label"] = label.ids, ClassLabel(names=list(label.names))
    spec = None
    if attribute is not None:
        spec = GroupSpec(f"own data: {roles.label} x {roles.attribute}", label.names, attribute.names)
        columns["attribute"], features["attribute"] = attribute.ids, ClassLabel(names=list(attribute.names))
        columns["group"] = cells(spec, label, attribute)
        features["group"] = ClassLabel(names=list(spec.names))
    elif group is not None:
        columns["group"], features["group"] = group.ids, ClassLabel(names=list(group.names))
    for name, values in _metadata(rows, roles, attribute).items():
        columns[name] = values
        features[name] = Features.from_arrow_schema(pa.schema([pa.field(name, values.type)]))[name]
    dataset = build_split(columns, Features(features))
    first = dataset_pictures(rows, roles.image)
    return dataset if first is None else concatenate_datasets([first, dataset], axis=1), spec


def input_columns(
    rows: Rows, image: str | None, text: str | None, vectors: NDArray[np.float32] | None, root: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model reads, but for pictures of a `datasets` object, see `dataset_pictures`.

    Args:
        rows: the table.
        image: column of pictures.
        text: column of texts.
        vectors: `(n, d)` features.
        root: folder where paths of pictures start.

    Returns:
        Columns by name, and the features of `datasets` that they have.
    """
    from datasets import Image, List, Value

    columns: dict[str, Any] = {}
    features: dict[str, Any] = {}
    if image is not None and not is_dataset_column(rows, image):
        columns["image"], features["image"] = pictures(rows, image, root), Image()
    if text is not None:
        columns["text"], features["text"] = texts(rows, text), Value("string")
    if vectors is not None:
        kind = List(Value("float32"), length=vectors.shape[1])
        columns["features"], features["features"] = vector_column(vectors), kind
    return columns, features


def dataset_pictures(rows: Rows, image: str | None) -> Dataset | None:
    """The pictures of a `datasets` object as its column `image`, not decoded; None where they are something else.

    Args:
        rows: the table.
        image: column of pictures.
    """
    if rows.pictures is None or image is None or not is_dataset_column(rows, image):
        return None
    return rows.pictures.select_columns([image]).rename_column(image, "image")


def cells(spec: GroupSpec, label: Categories, attribute: Categories) -> NDArray[np.int64]:
    """Group numbers, -1 where the attribute is missing: such a row is in no group."""
    known = ~attribute.missing
    numbers = np.full(len(label.ids), -1, dtype=np.int64)
    numbers[known] = spec.encode(label.ids[known], attribute.ids[known])
    return numbers


def _metadata(rows: Rows, roles: Roles, attribute: Categories | None) -> dict[str, pa.Array]:
    """The other columns; the attribute by its own name, too, and the path of a picture."""
    used = {roles.label, roles.text, roles.split, *(roles.features or ())}
    found = {}
    for column in rows.frame.columns:
        if column in used or (column == roles.group):
            continue
        if column == roles.attribute and attribute is not None:
            names = np.asarray([*attribute.names, None], dtype=object)
            values = pa.array(names[attribute.ids].tolist(), type=pa.string())
        elif column == roles.image and not rows.frame[column].map(lambda value: isinstance(value, str)).all():
            continue
        else:
            values = plain_column(rows.frame[column])
        name = "file" if column == roles.image and column == "image" and "file" not in rows.frame else column
        if name in RESERVED:
            if column in (roles.attribute, roles.image):
                continue
            name = f"column_{name}"
        found[name] = values
    return found


def plain_column(values: Any) -> pa.Array:
    """A column of a table as Arrow has it; text that is numbers or truths throughout becomes that.

    Args:
        values: a pandas Series.
    """
    import pandas as pd

    cells = values.tolist()
    if all(isinstance(cell, str) for cell in cells):
        return _read(cells)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        array = pa.array([None if cell is None else str(cell) for cell in cells], type=pa.string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _read(cells: Sequence[str]) -> pa.Array:
    filled = [cell for cell in cells if cell.strip() not in MISSING_WORDS]
    if filled and all(cell in ("True", "False") for cell in filled):
        return pa.array([None if cell.strip() in MISSING_WORDS else cell == "True" for cell in cells])
    # A number with a leading zero is a code, which would lose it.
    codes = any(len(cell) > 1 and cell[0] == "0" and cell[1].isdigit() for cell in filled)
    for kind in (int, float) if filled and not codes else ():
        try:
            return pa.array([None if cell.strip() in MISSING_WORDS else kind(cell) for cell in cells])
        except (ValueError, OverflowError, pa.ArrowException):
            continue
    return pa.array([cell or None for cell in cells], type=pa.string())

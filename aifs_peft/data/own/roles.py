"""Which column of a table is what: named by the user, or known by a usual name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._checks import did_you_mean
from aifs_peft.data.notes import listed
from aifs_peft.data.own.rows import Rows
from aifs_peft.data.own.sources import SPLITS
from aifs_peft.errors import InvalidInputError

LABELS = ("label", "labels", "y", "class", "target")
IMAGES = (
    "image",
    "file_name",
    "filename",
    "img_filename",
    "image_path",
    "img_path",
    "image_id",
    "filepath",
    "path",
    "file",
)
TEXTS = ("text", "sentence", "comment_text", "comment", "content")
FEATURES = ("features", "Z", "z", "latents", "embeddings", "embedding", "X", "x")
SPLIT = "split"
"""The column that says, where it is there, which split a row belongs to."""
CODES = {"0": "train", "1": "validation", "2": "test"}
"""Splits as the tables of Waterbirds and CelebA number them."""
MISSING = (
    "The data set {where!r} has no column {column!r} for the {role}{closest}; it has {columns}. "
    'Name yours, for example {role}="my_column", on the command line --{role} my_column or --dataset-options '
    '\'{{"{role}": "my_column"}}\'.'
)


@dataclass(frozen=True)
class Roles:
    """Columns by role; None where a role is not filled.

    Args:
        label: the classes.
        image: paths or pictures.
        text: texts.
        features: a column of vectors, a matrix, or several columns of numbers.
        attribute: attribute values, for evaluation.
        group: ready-made evaluation groups.
        split: the splits.
    """

    label: str
    image: str | None
    text: str | None
    features: tuple[str, ...] | None
    attribute: str | None
    group: str | None
    split: str | None


def find_roles(
    rows: Rows,
    *,
    label: str | None,
    image: str | None,
    text: str | None,
    features: str | Sequence[str] | None,
    attribute: str | None,
    group: str | None,
    split: str | None,
) -> Roles:
    """Settle which column is what.

    Args:
        rows: the table.
        label: see `Roles`; None looks for the names in `LABELS`.
        image: None looks for `IMAGES`, unless texts or features are named.
        text: None looks for `TEXTS`, where there are no pictures.
        features: a column of vectors, column names, "all" for every numeric column that is nothing else, or None: the
            names in `FEATURES`, where there are neither pictures nor texts.
        attribute: None for none.
        group: None for none.
        split: None looks for a column `split`.

    Raises:
        InvalidInputError: a column that was named is not there, or none can be read by a model.
    """
    if attribute is not None and group is not None:
        raise InvalidInputError(
            f"give attribute or group, not both: the groups are label x {attribute!r}, or those in {group!r}"
        )
    columns = rows.columns
    named = {"label": label, "image": image, "text": text, "attribute": attribute, "group": group, "split": split}
    check_columns(rows, named)
    found_label = label or _first(LABELS, columns)
    if found_label is None:
        raise InvalidInputError(_missing(rows, LABELS[0], "label"))
    used = {found_label, attribute, group, split}
    free = [column for column in columns if column not in used]
    found_image, found_text, vectors = find_inputs(rows, image=image, text=text, features=features, free=free)
    return Roles(
        found_label, found_image, found_text, vectors, attribute, group,
        split or (SPLIT if SPLIT in free and SPLIT not in (found_image, found_text) else None),
    )  # fmt: skip


def find_inputs(
    rows: Rows, *, image: str | None, text: str | None, features: str | Sequence[str] | None, free: list[str]
) -> tuple[str | None, str | None, tuple[str, ...] | None]:
    """Settle which columns a model reads.

    Args:
        rows: the table.
        image: see `find_roles`.
        text: see `find_roles`.
        features: see `find_roles`.
        free: columns that have no other role.

    Returns:
        Columns of pictures, of texts and of features; None for those that there are not.

    Raises:
        InvalidInputError: a feature that was named is not there, or no column can be read by a model.
    """
    if features is not None:
        return image, text, _named_features(rows, features, free)
    if image is not None or text is not None:
        return image, text, None
    pictures = [] if rows.pictures is None else rows.pictures.column_names
    found_image = rows.paths or _first(IMAGES, free) or _first(tuple(pictures), free)
    found_text = None if found_image else _first(TEXTS, free)
    vectors = None if found_image or found_text else _usual_features(rows, free)
    if not (found_image or found_text or vectors):
        raise InvalidInputError(
            f"The data set {rows.where!r} has no column of pictures, texts or latents by a usual name; it has "
            f'{rows.columns}. Name yours: image=, text= or features= (features="all" for all columns of numbers), on '
            "the command line --image, --text or --features."
        )
    return found_image, found_text, vectors


def check_columns(rows: Rows, named: Mapping[str, str | None]) -> None:
    """Refuse columns that were named and are not there, or that were named twice.

    Args:
        rows: the table.
        named: column by role; None where none was named.

    Raises:
        InvalidInputError: naming the column, and the closest one that there is, or both of its roles.
    """
    roles: dict[str, str] = {}
    for role, column in named.items():
        if column is None:
            continue
        if column not in rows.columns:
            raise InvalidInputError(_missing(rows, column, role))
        if column in roles:
            raise InvalidInputError(
                f"{rows.where}: column {column!r} cannot be {roles[column]} and {role} at once; name a column for each"
            )
        roles[column] = role


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _missing(rows: Rows, column: str, role: str) -> str:
    # A name that nobody gave is not misspelt.
    hint = "" if column == LABELS[0] else did_you_mean(column, rows.columns)
    return MISSING.format(where=rows.where, column=column, role=role, columns=rows.columns, closest=hint)


def _named_features(rows: Rows, features: str | Sequence[str], free: list[str]) -> tuple[str, ...]:
    if features == "all" and "all" not in rows.columns:
        chosen = tuple(name for name in free if name in rows.frame and name != SPLIT and _is_numeric(rows, name))
        if not chosen:
            raise InvalidInputError(f"{rows.where}: no column besides the label holds numbers; it has {rows.columns}")
        return chosen
    named = [features] if isinstance(features, str) else features
    if not isinstance(named, list | tuple) or not all(isinstance(column, str) for column in named):
        raise InvalidInputError(
            f'features must be the name of a column, a list of names, or "all"; got {features!r:.200}'
        )
    chosen = tuple(named)
    for column in chosen:
        if column not in rows.columns:
            raise InvalidInputError(_missing(rows, column, "features"))
    taken = [column for column in chosen if column not in free]
    if taken or not chosen:
        raise InvalidInputError(f"{rows.where}: features need columns of their own; got {listed(taken) or 'none'}")
    return chosen


def _usual_features(rows: Rows, free: list[str]) -> tuple[str, ...] | None:
    """A matrix or a column of vectors by a usual name; columns of numbers that are counted (`z0`, `z1`, ...)."""
    single = _first(FEATURES, [name for name in free if name in rows.vectors or _is_vector(rows, name)])
    if single is not None:
        return (single,)
    counted: dict[str, list[str]] = {}
    for name in free:
        prefix = name.rstrip("0123456789")
        if prefix != name and name in rows.frame and _is_numeric(rows, name):
            counted.setdefault(prefix, []).append(name)
    largest: list[str] = max(counted.values(), key=len, default=[])
    return (
        tuple(sorted(largest, key=lambda name: int(name[len(name.rstrip("0123456789")) :])))
        if len(largest) > 1
        else None
    )


def _is_vector(rows: Rows, column: str) -> bool:
    return column in rows.frame and len(rows) > 0 and isinstance(rows.frame[column].iloc[0], list | tuple | np.ndarray)


def _is_numeric(rows: Rows, column: str) -> bool:
    import pandas as pd

    values = rows.frame[column]
    if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_datetime64_any_dtype(values):
        return False
    filled = values[~values.isna() & (values.astype(str).str.strip() != "")]
    return bool(len(filled)) and bool(pd.to_numeric(filled, errors="coerce").notna().all())


def splits_of(rows: Rows, column: str | None) -> NDArray[np.str_] | None:
    """Which split each row belongs to, `(n,)`, empty where a row has none; None where nothing says so.

    Args:
        rows: the table.
        column: the column of splits; None for the parts that the source came in.

    Raises:
        InvalidInputError: a value that is no split.
    """
    if column is None:
        return rows.parts if (rows.parts != "").any() else None
    from aifs_peft.data.own.values import categories

    found = categories(rows, column, "split")
    codes = CODES if set(found.names) <= set(CODES) else SPLITS
    unknown = [name for name in found.names if name.lower() not in codes]
    if unknown:
        count = int(np.isin(found.ids, [found.names.index(name) for name in unknown]).sum())
        raise InvalidInputError(
            f"{rows.where}: column {column!r} says which split a row belongs to and holds {listed(unknown)} in {count} "
            f"of {len(rows)} rows; known are train, validation (valid, val, dev) and test, or 0, 1 and 2. If it means "
            "something else, rename it"
        )
    table = np.asarray([codes[name.lower()] for name in found.names] + [""])
    return np.asarray(table[found.ids], dtype=str)


def is_dataset_column(rows: Rows, column: str | None) -> bool:
    """Whether a column holds pictures of a `datasets` object."""
    return rows.pictures is not None and column in rows.pictures.column_names


def values_of(rows: Rows, column: str) -> list[Any]:
    """The cells of a column, as Python objects."""
    return list(rows.frame[column].tolist())

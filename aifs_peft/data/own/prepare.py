"""Rows and roles to one checked data set: what is missing is refused or told, classes and cells are numbered."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aifs_peft._checks import check_choice
from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.notes import listed, shown, tell
from aifs_peft.data.own.build import build
from aifs_peft.data.own.inputs import is_paths, missing_inputs, picture_root, vectors
from aifs_peft.data.own.roles import Roles, is_dataset_column, splits_of
from aifs_peft.data.own.rows import Rows
from aifs_peft.data.own.values import Categories, categories, check_values
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Own:
    """Checked rows, built but not cut."""

    rows: Rows
    dataset: Dataset
    spec: GroupSpec | None
    label: Categories
    other: Categories | None  # attribute values, or ready-made groups
    given: NDArray[np.str_] | None

    def strata(self) -> NDArray[np.int64]:
        """Cells to cut by, from 0: label x attribute; rows without an attribute are cells of their own."""
        if self.other is None:
            return self.label.ids
        width = len(self.other.names) + 1
        return np.asarray(
            self.label.ids * width + np.where(self.other.missing, width - 1, self.other.ids), dtype=np.int64
        )

    def known(self) -> NDArray[np.bool_]:
        """Where a row is in a cell."""
        return np.ones(len(self.rows), dtype=bool) if self.other is None else ~self.other.missing


def prepare(rows: Rows, roles: Roles, missing: str, root: str | Path | None) -> Own:
    """Check the rows, leave out or refuse incomplete ones, and build the data set.

    Args:
        rows: the table.
        roles: its columns by role.
        missing: "error" or "drop".
        root: folder of the pictures, as in `load_own`.

    Raises:
        InvalidInputError: a value is missing or of the wrong kind, or there is one class only.
    """
    check_choice("missing", missing, ("error", "drop"), error=InvalidInputError)
    given = splits_of(rows, roles.split)
    if given is not None:
        rows.parts = given
    folder = folder_of(rows, roles.image, root)
    lacking = {roles.label: categories(rows, roles.label, "label").missing}
    if roles.split is not None:
        lacking[roles.split] = rows.parts == ""
    lacking |= missing_in(rows, roles.image, roles.text, roles.features, folder)
    keep = complete(rows, lacking, missing, roles.image if folder is not None else None, folder)
    if not keep.all():
        rows, given = rows.select(keep), None if given is None else given[keep]
    label = categories(rows, roles.label, "label")
    check_values(label, rows.where, roles.label, "label")
    if len(np.unique(label.ids)) < 2:
        raise InvalidInputError(
            f"{rows.where}: column {roles.label!r}, the label, needs at least two classes; all {len(rows)} rows are "
            f"{label.names[label.ids[0]]!r}"
        )
    _tell_alike(rows, roles.label, "label", label.names)
    other = None
    for role, column in (("attribute", roles.attribute), ("group", roles.group)):
        if column is not None:
            other = _evaluation(rows, column, role)
    numbers = None if roles.features is None else vectors(rows, roles.features)[0]
    attribute, group = (other, None) if roles.attribute is not None else (None, other)
    dataset, spec = build(rows, roles, label, attribute, group, numbers, folder)
    return Own(rows, dataset, spec, label, other, given)


def folder_of(rows: Rows, image: str | None, root: str | Path | None) -> Path | None:
    """Where the paths of a column of pictures start; None where there are no paths.

    Args:
        rows: the table.
        image: column of pictures, if there is one.
        root: folder of the pictures, as in `load_own`.
    """
    if image is None or is_dataset_column(rows, image) or not is_paths(rows, image):
        return None
    return picture_root(rows, image, root)


def missing_in(
    rows: Rows, image: str | None, text: str | None, features: Sequence[str] | None, folder: Path | None
) -> dict[str, NDArray[np.bool_]]:
    """Where what a model reads is missing, `(n,)` each, by column.

    Args:
        rows: the table.
        image: column of pictures.
        text: column of texts.
        features: columns of numbers.
        folder: see `folder_of`.
    """
    lacking = {}
    if image is not None and not is_dataset_column(rows, image):
        lacking[image] = missing_inputs(rows, image, folder)
    if text is not None:
        lacking[text] = missing_inputs(rows, text, None)
    if features is not None:
        lacking[", ".join(features[:3])] = vectors(rows, features)[1]
    return lacking


def complete(
    rows: Rows, lacking: Mapping[str, NDArray[np.bool_]], missing: str, paths: str | None, folder: Path | None
) -> NDArray[np.bool_]:
    """Which rows lack nothing; the others are refused, or told and left out.

    Args:
        rows: the table.
        lacking: by column, where it is missing.
        missing: "error" or "drop".
        paths: the column of paths, where there is one.
        folder: where those start.

    Raises:
        InvalidInputError: something is missing and may not be, or no row is left.
    """
    keep = np.ones(len(rows), dtype=bool)
    for column, absent in lacking.items():
        if not absent.any():
            continue
        what = (
            f"{rows.where}: column {column!r} is missing in {int(absent.sum())} of {len(rows)} rows ({rows.at(absent)})"
        )
        if column == paths:
            example = rows.frame[column].tolist()[int(np.flatnonzero(absent)[0])]
            what += f": the cell is empty, or the file is not there or empty, such as {shown(example)!r} in {folder}"
        if missing == "error":
            raise InvalidInputError(f'{what}; fill them in, or leave these rows out by missing="drop"')
        tell(f"{what}; they were left out")
        keep &= ~absent
    if not keep.any():
        raise InvalidInputError(f"{rows.where}: no row is left")
    return keep


def _tell_alike(rows: Rows, column: str, role: str, names: Sequence[str]) -> None:
    """Names that differ in case or the form of an accent only are counted as different ones, and told."""
    forms: dict[str, list[str]] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", str(name)).casefold().split())
        forms.setdefault(plain, []).append(str(name))
    alike = [" and ".join(map(repr, group)) for group in forms.values() if len(group) > 1]
    if alike:
        tell(
            f"{rows.where}: column {column!r}, the {role}, holds {listed(alike)}, which differ in case or the form "
            "of an accent only and count as different ones; write them alike if they are the same"
        )


def _evaluation(rows: Rows, column: str, role: str) -> Categories:
    """Attribute values or groups; a missing one is told and is in no group."""
    found = categories(rows, column, role)
    check_values(found, rows.where, column, role)
    _tell_alike(rows, column, role, found.names)
    if found.missing.any():
        tell(
            f"{rows.where}: column {column!r}, the {role}, is missing in {int(found.missing.sum())} of {len(rows)} "
            f"rows ({rows.at(found.missing)}); they stay, and are in no evaluation group"
        )
    return found

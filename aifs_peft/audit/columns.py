"""Columns of a metadata table as what can be tested: values of a category, numbers, or the reason why neither."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset

# A numeric column with at most this many distinct values is a category.
MAX_DISTINCT = 10
# A category keeps this many values, the most frequent ones; the others, and those of fewer examples, are one value.
MAX_LEVELS = 50
MIN_PER_LEVEL = 5
# A numeric column with missing values is cut into this many ranges, fewer where they would be small: missing is then a
# value beside them.
CUTS = 5
# Features of a `datasets.Dataset` that hold one value per example; images, audio and lists do not.
_SCALARS = ("Value", "ClassLabel")
MISSING = "(missing)"
OTHER = "(other)"


@dataclass(frozen=True)
class Column:
    """One column of metadata.

    Args:
        name: its name.
        levels: values of a category, in the order of `codes`; empty for numbers.
        codes: value of each example, in `0..len(levels)-1`, shape `(n,)`; `None` for numbers.
        numbers: shape `(n,)` float64, finite; `None` for a category.
        note: how it was read; where it cannot be tested, why.
    """

    name: str
    levels: tuple[str, ...] = ()
    codes: NDArray[np.integer] | None = None
    numbers: NDArray[np.float64] | None = None
    note: str = ""

    @property
    def testable(self) -> bool:
        """Whether it can be compared with anything."""
        return self.codes is not None or self.numbers is not None

    @property
    def kind(self) -> str:
        """`"categorical"`, `"numeric"` or `"skipped"`."""
        if self.codes is not None:
            return "categorical"
        return "numeric" if self.numbers is not None else "skipped"


def as_frame(metadata: Any, n: int) -> pd.DataFrame:
    """Metadata as a table with one row per example, numbered from 0.

    Args:
        metadata: `DataFrame`, `Series`, mapping of names to `n` values, a `datasets.Dataset` (its images and audio are
            left out), or a list of dictionaries; `None` is a table without columns.
        n: number of examples.

    Raises:
        InvalidInputError: For another number of rows, another type, or two columns of one name.

    Example:
        >>> as_frame({"site": ["a", "b"]}, 2).columns.tolist()
        ['site']
    """
    if metadata is None:
        return pd.DataFrame(index=pd.RangeIndex(n))
    if hasattr(metadata, "features") and hasattr(metadata, "select_columns"):
        metadata = _of_dataset(metadata)
    if isinstance(metadata, pd.Series):
        metadata = metadata.to_frame(metadata.name if metadata.name is not None else "metadata")
    if isinstance(metadata, Mapping):
        sizes = {str(name): len(values) for name, values in metadata.items()}
        if set(sizes.values()) - {n}:
            raise InvalidInputError(f"metadata columns have {sizes} values for {n} examples; give {n} each.")
        metadata = {name: list(values) for name, values in metadata.items()}
    elif not isinstance(metadata, pd.DataFrame | list):
        raise InvalidInputError(
            f"metadata of type {type(metadata).__name__} was given; needed is a pandas DataFrame, a datasets.Dataset, "
            "or a mapping of column names to one value per example."
        )
    frame = pd.DataFrame(metadata) if len(metadata) else pd.DataFrame(index=pd.RangeIndex(n))
    if len(frame) != n:
        raise InvalidInputError(
            f"metadata has {len(frame)} rows for {n} examples; needed is one row per example, in the same order."
        )
    frame.columns = [str(name) for name in frame.columns]
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise InvalidInputError(f"metadata has several columns named {', '.join(map(repr, twice))}; rename them.")
    return frame.reset_index(drop=True)


def _of_dataset(dataset: Any) -> pd.DataFrame:
    """The scalar columns of a `datasets.Dataset`, class labels by name."""
    scalar = {name: feature for name, feature in dataset.features.items() if type(feature).__name__ in _SCALARS}
    frame: pd.DataFrame = dataset.with_format(None).select_columns(list(scalar)).to_pandas()
    for name, feature in scalar.items():
        if hasattr(feature, "names"):
            known = dict(enumerate(feature.names))
            frame[name] = frame[name].map(known)
    return frame


def read_column(name: str, values: pd.Series) -> Column:
    """One column, read as a category or as numbers.

    Missing values are a value of their own. Identifiers (text or whole numbers, all different), constants and values
    that are no scalars are told and not tested.

    Args:
        name: its name.
        values: one per example.

    Example:
        >>> read_column("site", pd.Series(["a", "b", None] * 5)).levels
        ('(missing)', 'a', 'b')
        >>> read_column("file", pd.Series(["1.png", "2.png", "3.png"])).note
        'all values differ: an identifier'
    """
    if pd.api.types.is_float_dtype(values):
        values = values.replace([np.inf, -np.inf], np.nan)
    present = values.dropna()
    try:
        distinct = int(present.nunique())
    except TypeError:
        return Column(name, note=f"values of type {type(present.iloc[0]).__name__} cannot be compared")
    missing = len(values) - len(present)
    if distinct + (missing > 0) < 2:
        return Column(name, note="one value only")
    boolean = pd.api.types.is_bool_dtype(present)
    dates = pd.api.types.is_datetime64_any_dtype(present)
    numeric = (pd.api.types.is_numeric_dtype(present) and not boolean) or dates
    whole = numeric and not dates and bool(np.all(np.mod(present.to_numpy(np.float64), 1.0) == 0.0))
    if distinct == len(present) and (not numeric or (whole and distinct > MAX_DISTINCT)):
        return Column(name, note="all values differ: an identifier")
    if not numeric or distinct <= MAX_DISTINCT:
        return _category(name, values)
    if missing:
        ranges = max(2, min(CUTS, len(present) // MIN_PER_LEVEL))
        column = _category(name, pd.qcut(values, ranges, duplicates="drop"))
        note = f"{missing} missing: cut into {ranges} ranges, with missing as a value of its own"
        return Column(name, column.levels, column.codes, note=note)
    numbers = present.astype("int64") if dates else present
    return Column(name, numbers=numbers.to_numpy(np.float64))


def _category(name: str, values: pd.Series) -> Column:
    text = values.astype(object).where(values.notna(), MISSING).map(str)
    counts = text.value_counts()
    kept = set(counts[counts >= MIN_PER_LEVEL].index[:MAX_LEVELS])
    rare = int(len(counts) - len(kept))
    note = f"{int(values.isna().sum())} missing: a value of its own" if values.isna().any() else ""
    if rare > 1:
        text = text.where(text.isin(kept), OTHER)
        note = "; ".join(filter(None, [note, f"{rare} rare values taken together"]))
    if text.nunique() < 2:
        return Column(name, note="nearly all values differ: an identifier")
    codes, levels = pd.factorize(text, sort=True)
    return Column(name, tuple(map(str, levels)), np.asarray(codes, dtype=np.int64), note=note)


def read_columns(frame: pd.DataFrame) -> list[Column]:
    """All columns of a table, in its order.

    Args:
        frame: one row per example.
    """
    return [read_column(str(name), frame[name]) for name in frame.columns]


def metadata_columns(rows: Dataset, used: Collection[str]) -> list[str]:
    """The columns that a shortcut is compared with: neither inputs nor labels, nor groups made of label and attribute.

    Own data have their attribute twice, as `attribute` and under the user's name for it: the latter alone is compared.

    Args:
        rows: a `datasets.Dataset`.
        used: names of the columns of inputs and labels.

    Returns:
        Names, in the order of the columns.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"label": [0, 1, 1], "attribute": [0, 0, 1], "group": [0, 2, 3], "age": [9, 9, 9]})
        >>> metadata_columns(rows, ["label"])
        ['attribute', 'age']
        >>> metadata_columns(rows.add_column("scanner", ["A", "A", "B"]), ["label"])
        ['age', 'scanner']
    """
    skipped = {*used, *(["group"] if "attribute" in rows.column_names else [])}
    names = [str(name) for name in rows.column_names if name not in skipped]
    if "attribute" in names and any(_repeats_attribute(rows, name) for name in names if name != "attribute"):
        names.remove("attribute")
    return names


def _repeats_attribute(rows: Dataset, name: str) -> bool:
    """Whether a column tells the same examples apart as `attribute` does, wherever that is known (-1 is not)."""
    if not all(type(rows.features[column]).__name__ in _SCALARS for column in (name, "attribute")):
        return False
    plain = rows.with_format(None)
    attribute, column = pd.Series(plain["attribute"][:]), pd.Series(plain[name][:])
    known = attribute != -1
    return bool((pd.factorize(attribute[known])[0] == pd.factorize(column[known])[0]).all())

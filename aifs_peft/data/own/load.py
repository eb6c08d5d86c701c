"""Own data of any kind as train, validation and test, with evaluation cells where an attribute is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aifs_peft._checks import check_count
from aifs_peft.data.own.cuts import CUTS, ORDER, SHARE, check_shares, split_rows, tell_small
from aifs_peft.data.own.prepare import prepare
from aifs_peft.data.own.roles import find_roles
from aifs_peft.data.own.sources import read
from aifs_peft.data.tables import assemble
from aifs_peft.errors import DataNotFoundError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import DatasetDict


def load_own(
    source: Any,
    *,
    image: str | None = None,
    text: str | None = None,
    label: str | None = None,
    features: str | Sequence[str] | None = None,
    attribute: str | None = None,
    group: str | None = None,
    split: str = "stratified",
    test_share: float | str = SHARE,
    validation_share: float = 0.1,
    seed: int = 0,
    missing: str = "error",
    root: str | Path | None = None,
    data_dir: str | Path | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """Train, validation and test of the user's own images, texts or vectors.

    Columns of the result: `image`, `text` or `features`; `label`; with an attribute also `attribute` and `group` (label
    x attribute, for evaluation only; -1 where the attribute is missing); every other column of the table.

    Args:
        source: a CSV, TSV, Parquet, JSON, JSON lines or `npz` file; a folder with such a table beside the pictures,
            with one table per split, or of class folders; a data set of the Hub; a DataFrame; a Dataset or DatasetDict.
        image: column of pictures: paths relative to the table, files or arrays. None looks for usual names, and so do
            the others.
        text: column of texts.
        label: column of classes: strings, whole numbers or booleans.
        features: column of vectors, or names of columns of numbers, or "all": every column of numbers.
        attribute: column whose values, with the classes, make the evaluation cells. No training method reads it.
        group: column of ready-made evaluation groups instead.
        split: "stratified" (the same shares of every cell) or "random" cuts, where no column `split` and no files say
            what belongs where; "none" cuts nothing: what belongs nowhere is `train`; or the name of the column that
            says it.
        test_share: of the rows, in (0, 1); or "balanced": equally many of every cell, at most half of the smallest.
        validation_share: of the rows that are not in the test, in (0, 1).
        seed: of the cuts.
        missing: "error" or "drop", for rows without label, picture, text or number; dropped rows are counted and told.
        root: folder of the pictures, where paths do not start at the table's folder, or leave it.
        data_dir: folder inside a repository of the Hub.
        revision: of a data set of the Hub.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: the source does not exist.
        InvalidInputError: the source cannot be read, a column is missing or empty, a class is too small to be cut.

    Warns:
        DataWarning: rows were left out, attribute values are missing, or a test cell has under 10 examples.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"review": [f"text {i}" for i in range(80)], "stars": ["low", "high"] * 40})
        >>> splits = load_own(frame, text="review", label="stars")
        >>> {name: len(rows) for name, rows in splits.items()}, splits["train"].features["label"].names
        ({'train': 58, 'validation': 6, 'test': 16}, ['high', 'low'])
    """
    check_shares(validation_share, test_share)
    check_count("seed", seed, low=0, error=InvalidInputError)
    how = split if split in CUTS else CUTS[0]
    try:
        rows = read(source, data_dir=data_dir, revision=revision)
    except DataNotFoundError as error:
        named = {
            "pictures": image, "texts": text, "vectors": features, "classes": label, "the attribute": attribute,
            "groups": group, "what is train, validation or test": None if split in CUTS else split,
        }  # fmt: skip
        raise DataNotFoundError(f"{error}{_wanted(named)}") from error
    roles = find_roles(
        rows, label=label, image=image, text=text, features=features, attribute=attribute, group=group,
        split=None if split in CUTS else split,
    )  # fmt: skip
    own = prepare(rows, roles, missing, root)
    parts = split_rows(own, how, validation_share, test_share, np.random.default_rng(seed))
    splits = {name: own.dataset.select(np.flatnonzero(parts == name)) for name in ORDER if (parts == name).any()}
    tell_small(own, parts, test_share)
    cuts = "as given" if own.given is not None else f"{how}, test {test_share}, seed {seed}"
    return cast("DatasetDict", assemble(splits, own.spec, f"Own data from {rows.where}; splits: {cuts}."))


def _wanted(named: Mapping[str, str | Sequence[str] | None]) -> str:
    """Which columns a source should have, as far as they were named."""
    columns = [f"{column!r} ({role})" for role, column in named.items() if isinstance(column, str) and column != "all"]
    return f"; wanted is a table with the columns {', '.join(columns)}" if columns else ""


def from_table(
    table: pd.DataFrame | str | Path,
    *,
    label: str,
    image: str | None = None,
    text: str | None = None,
    features: str | Sequence[str] | None = None,
    attribute: str | None = None,
    split: str | None = None,
    test_share: float | str = SHARE,
    validation_share: float = 0.1,
    seed: int = 0,
    missing: str = "error",
    root: str | Path | None = None,
) -> DatasetDict:
    """A table as train, validation and test: `load_own` for a DataFrame or one file.

    Args:
        table: DataFrame, or path of a CSV, TSV, Parquet, JSON, JSON lines or `npz` file.
        label: column of classes: strings, whole numbers or booleans.
        image: column of pictures: paths relative to the table, files or arrays.
        text: column of texts.
        features: column of vectors, or names of columns of numbers, or "all" for every column of numbers.
        attribute: column whose values, with the classes, make the evaluation cells.
        split: name of the column that says which split a row belongs to; "stratified", "random" or "none" (nothing is
            cut); None takes a column `split` where there is one, else cuts stratified.
        test_share: of the rows, in (0, 1); or "balanced": equally many of every cell.
        validation_share: of the rows that are not in the test.
        seed: of the cuts.
        missing: "error" or "drop".
        root: folder of the pictures.

    Returns:
        As `load_own`.

    Raises:
        DataNotFoundError: the file does not exist.
        InvalidInputError: as `load_own`, or the source is no table.

    Example:
        >>> import pandas as pd
        >>> rows = range(400)
        >>> frame = pd.DataFrame(
        ...     {
        ...         "report": [f"report {i}" for i in rows],
        ...         "finding": ["yes" if i % 2 else "no" for i in rows],
        ...         "scanner": ["A" if i % 4 < 2 else "B" for i in rows],
        ...     }
        ... )
        >>> splits = from_table(frame, label="finding", text="report", attribute="scanner")
        >>> from aifs_peft.data import group_spec
        >>> print(group_spec(splits).table(splits))
        group     train  validation  test
        no x A       72           8    20
        no x B       72           8    20
        yes x A      72           8    20
        yes x B      72           8    20
        examples    288          32    80
    """
    import pandas as pd

    if isinstance(table, str | Path) and Path(table).is_dir():
        raise InvalidInputError(f"{str(table)!r} is a folder; name the table in it, or use aifs_peft.data.load_own")
    if not isinstance(table, pd.DataFrame | str | Path):
        raise InvalidInputError(
            f"from_table needs a DataFrame or the path of a file; got {type(table).__name__}: use "
            "aifs_peft.data.load_own"
        )
    return load_own(
        table, image=image, text=text, label=label, features=features, attribute=attribute, split=split or CUTS[0],
        test_share=test_share, validation_share=validation_share, seed=seed, missing=missing, root=root,
    )  # fmt: skip

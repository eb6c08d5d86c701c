"""Your own data: a local folder or a Hub data set that `datasets.load_dataset` reads, with a label column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset

from aifs_peft.errors import InvalidInputError

MISSING_COLUMN = (
    "The data set {source!r} has no column {column!r} for the {role}; it has {columns}. "
    'Name yours, for example --dataset-options \'{{"{role}": "my_column"}}\'.'
)
MISSING_SOURCE = (
    "Could not load the data set {source!r}: it is no local folder that datasets.load_dataset reads "
    "(images in class folders, or CSV, JSON or Parquet files), and the Hub did not give it ({reason})."
)


def load_custom(
    source: str | Path,
    data_dir: str | Path | None = None,
    *,
    label: str = "label",
    image: str = "image",
    text: str = "text",
    group: str | None = None,
    revision: str | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
) -> DatasetDict:
    """Train, validation and test of any labelled image or text data set.

    Splits that are missing are cut from `train`, stratified by label.

    Args:
        source: local folder or Hub name.
        data_dir: folder inside a Hub repository.
        label: column of class labels; strings and integers become a `ClassLabel`.
        image: column of images.
        text: column of texts; one of `image` and `text` must exist.
        group: column of evaluation groups, if there is one; never seen in training.
        revision: of the Hub data set.
        validation_share: share of `train` cut off when there is no validation split, in (0, 1).
        test_share: the same for the test split.
        seed: of the cuts.

    Raises:
        InvalidInputError: the source cannot be loaded, or a column is missing.

    Example:
        >>> load_custom("no/such-data")
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidInputError: Could not load the data set 'no/such-data': it is no local folder ...
    """
    try:
        if Path(source).is_dir():
            raw = load_dataset(str(source))
        else:
            raw = load_dataset(str(source), data_dir=None if data_dir is None else str(data_dir), revision=revision)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InvalidInputError(MISSING_SOURCE.format(source=str(source), reason=reason[:200])) from error
    columns = next(iter(raw.values())).column_names
    source_input = image if image in columns else text
    wanted = {"label": label, "image or text": source_input, **({} if group is None else {"group": group})}
    for role, column in wanted.items():
        if column not in columns:
            key = {"image or text": "image"}.get(role, role)
            raise InvalidInputError(MISSING_COLUMN.format(source=str(source), column=column, role=key, columns=columns))
    renamed = {label: "label", source_input: "image" if source_input == image else "text"}
    if group is not None:
        renamed[group] = "group"
    splits = raw.rename_columns({old: new for old, new in renamed.items() if old != new})
    return _complete(_encoded(splits), validation_share, test_share, seed)


def _encoded(splits: DatasetDict) -> DatasetDict:
    """Labels and groups as `ClassLabel`, with the same names in every split."""
    for column in ("label", "group"):
        first = next(iter(splits.values()))
        if column not in first.column_names or isinstance(first.features[column], ClassLabel):
            continue
        values: set[Any] = set()
        for rows in splits.values():
            values |= set(rows.unique(column))
        ordered = sorted(values)
        numbers = {value: number for number, value in enumerate(ordered)}
        feature = ClassLabel(names=[str(value) for value in ordered])

        def encode(row: dict[str, Any], column: str = column, numbers: dict[Any, int] = numbers) -> dict[str, int]:
            return {column: numbers[row[column]]}

        splits = splits.map(encode, features=_with_feature(first, column, feature))
    return splits


def _with_feature(rows: Dataset, column: str, feature: ClassLabel) -> Any:
    features = rows.features.copy()
    features[column] = feature
    return features


def _complete(splits: DatasetDict, validation_share: float, test_share: float, seed: int) -> DatasetDict:
    parts = dict(splits)
    if "train" not in parts:
        raise InvalidInputError(f"The data set has the splits {sorted(parts)}; needed is at least 'train'.")
    for name, share in (("test", test_share), ("validation", validation_share)):
        if name not in parts:
            cut = parts["train"].train_test_split(share, seed=seed, stratify_by_column="label")
            parts["train"], parts[name] = cut["train"], cut["test"]
    return DatasetDict({name: parts[name] for name in ("train", "validation", "test")})

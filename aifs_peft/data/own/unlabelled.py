"""Own data without labels: what a model reads, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft._checks import check_choice
from aifs_peft.data.own.build import dataset_pictures, input_columns
from aifs_peft.data.own.inputs import vectors
from aifs_peft.data.own.prepare import complete, folder_of, missing_in
from aifs_peft.data.own.roles import LABELS, SPLIT, check_columns, find_inputs
from aifs_peft.data.own.sources import read, read_pictures
from aifs_peft.data.tables import build_split
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset

_BESIDE = ("attribute", "group", SPLIT)


def load_unlabelled(
    source: Any,
    *,
    image: str | None = None,
    text: str | None = None,
    features: str | Sequence[str] | None = None,
    beside: Sequence[str] = (),
    missing: str = "error",
    root: str | Path | None = None,
    data_dir: str | Path | None = None,
    revision: str | None = None,
) -> Dataset:
    """Images, texts or vectors of all rows of a source, whatever splits it has; labels in it are not read.

    Args:
        source: as for `load_own`; of a folder without a table every picture in it is read.
        image: column of pictures; None looks for one.
        text: column of texts; None looks for one.
        features: column of vectors, names of columns of numbers, or "all".
        beside: columns that hold labels or attributes, which are no features; they need not be there. Columns called
            as such usually are never features.
        missing: "error" or "drop", for rows without a picture, text or number.
        root: folder of the pictures.
        data_dir: folder inside a repository of the Hub.
        revision: of a data set of the Hub.

    Returns:
        One `datasets.Dataset` with `image`, `text` or `features`.

    Raises:
        DataNotFoundError: the source does not exist.
        InvalidInputError: it cannot be read, or has nothing that a model reads.

    Example:
        >>> import pandas as pd
        >>> rows = load_unlabelled(pd.DataFrame({"review": ["good", "bad"], "stars": [5, 1]}), text="review")
        >>> rows.column_names, len(rows)
        (['text'], 2)
    """
    from datasets import Features, concatenate_datasets

    check_choice("missing", missing, ("error", "drop"), error=InvalidInputError)
    pictures = read_pictures(Path(source)) if isinstance(source, str | Path) and Path(source).is_dir() else None
    rows = pictures or read(source, data_dir=data_dir, revision=revision)
    check_columns(rows, {"image": image, "text": text})
    used = {*LABELS, *_BESIDE, *beside}
    free = [column for column in rows.columns if column not in used]
    image, text, numbers = find_inputs(rows, image=image, text=text, features=features, free=free)
    folder = folder_of(rows, image, root)
    lacking = missing_in(rows, image, text, numbers, folder)
    keep = complete(rows, lacking, missing, image if folder is not None else None, folder)
    rows = rows if keep.all() else rows.select(keep)
    values = None if numbers is None else vectors(rows, numbers)[0]
    columns, kinds = input_columns(rows, image, text, values, folder)
    parts = [dataset_pictures(rows, image), build_split(columns, Features(kinds)) if columns else None]
    found = [part for part in parts if part is not None]
    both: Dataset = found[0] if len(found) == 1 else concatenate_datasets(found, axis=1)
    return both

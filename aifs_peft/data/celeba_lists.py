"""The lists of CelebA in the forms in which they are around: official text files, their CSV copies, one metadata table.

- `list_attr_celeba.txt` and `list_eval_partition.txt`: the official files.
- `list_attr_celeba.csv` and `list_eval_partition.csv`: the same with a header and a column `image_id`, as group DRO
  reads them.
- `metadata_celeba.csv` (`filename`, `split`, `y`, `a`), or `celeba_metadata.csv` and `metadata.csv` (`img_filename`,
  `split`, `y`, `place`): blond hair and gender only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.reading import filled, known_values, read_csv, reading, require_columns
from aifs_peft.data.sources import DataCard, missing, verify_md5
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

LISTS = ("list_attr_celeba", "list_eval_partition")
METADATA = ("metadata_celeba.csv", "celeba_metadata.csv", "metadata.csv")
FOLDERS = (".", "celeba", "celebA", "CelebA", "data", "celeba/data", "celebA/data", "CelebA/data")
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba")
_FILE = ("image_id", "filename", "img_filename")


def find_lists(outer: Path, card: DataCard) -> tuple[Path, ...]:
    """The attribute list and the partition, or the one table that holds both.

    Args:
        outer: the folder the user names; the files may lie in one of `FOLDERS` below it.
        card: for messages.

    Returns:
        Two paths of the same form, or one.

    Raises:
        DataNotFoundError: none is there, or only one of the two.
    """
    places = [outer / name for name in FOLDERS]
    for kind in (".txt", ".csv"):
        for folder in places:
            paths = tuple(folder / f"{name}{kind}" for name in LISTS)
            if any(path.is_file() for path in paths):
                absent = next((path for path in paths if not path.is_file()), None)
                if absent is not None:
                    raise missing(absent, card)
                return paths
    for folder in places:
        for name in METADATA:
            if (folder / name).is_file():
                return (folder / name,)
    raise missing(outer / f"{LISTS[0]}.txt", card)


def find_images(folder: Path, card: DataCard) -> Path:
    """The folder of pictures, beside the lists or below `celeba/` (some archives hold it twice, one in the other).

    Raises:
        DataNotFoundError: it is not there.
    """
    for place in (folder / inner / images for inner in (".", "celeba") for images in _IMAGES):
        if place.is_dir():
            return place
    raise missing(folder / _IMAGES[-1], card)


def read_lists(
    paths: tuple[Path, ...], card: DataCard, official_rows: int | None
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Attributes as booleans, indexed by file name, and the partition code of every row.

    Args:
        paths: what `find_lists` found.
        card: with the published checksums.
        official_rows: compare text files of so many rows with them; None for no check.

    Raises:
        InvalidInputError: a file is not what it should be.
    """
    if len(paths) == 1:
        return _read_metadata(paths[0])
    attributes, partition = paths
    if attributes.suffix == ".txt":
        table, codes = _read_text(attributes, partition, card, official_rows)
    else:
        table, codes = _indexed(attributes), _indexed(partition)
    if table.shape[1] != 40 or not np.isin(table.to_numpy(), (-1, 1)).all():
        raise InvalidInputError(f"celeba: {attributes} must have 40 columns of -1 or 1; it has {table.shape[1]}")
    if not table.index.equals(codes.index):
        raise InvalidInputError("celeba: the two lists do not name the same images in the same order")
    require_columns(codes, ["partition"], partition, "celeba", card.source)
    known_values(codes, "partition", (0, 1, 2), f"celeba: {partition}")
    return table == 1, codes["partition"].to_numpy(dtype=np.int64)


def _read_text(
    attributes: Path, partition: Path, card: DataCard, official_rows: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    with reading(attributes, "a list of attributes", "celeba"), attributes.open(encoding="ascii") as stream:
        first = stream.readline().strip()
    if not first.isdigit():
        raise InvalidInputError(f"celeba: {attributes} must begin with the number of images; it begins with {first!r}")
    if official_rows is not None and int(first) == official_rows:
        for path in (attributes, partition):
            verify_md5(path, card.md5[path.name], card)
    # A row has one field more than the header: the file name.
    table = read_csv(attributes, where="celeba", sep=r"\s+", skiprows=1, header=0, index_col=None)
    if len(table) != int(first):
        raise InvalidInputError(f"celeba: {attributes} announces {first} images and lists {len(table)}: truncated?")
    if table.index.nlevels > 1:
        raise InvalidInputError(f"celeba: {attributes} has rows of {table.index.nlevels} fields more than its header")
    codes = read_csv(
        partition, where="celeba", sep=r"\s+", header=None, index_col=None, names=["image_id", "partition"]
    )
    return table.set_index(table.index.astype(str)), codes.set_index(codes["image_id"].astype(str))


def _indexed(path: Path) -> pd.DataFrame:
    table = read_csv(path, where="celeba")
    require_columns(table, ["image_id"], path, "celeba")
    filled(table, "image_id", f"celeba: {path}")
    return table.set_index(table.pop("image_id").astype(str))


def _read_metadata(path: Path) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    import pandas as pd

    table = read_csv(path, where="celeba")
    file = next((name for name in _FILE if name in table), _FILE[1])
    value = "a" if "a" in table else "place"
    require_columns(table, [file, "split", "y", value], path, "celeba")
    where = f"celeba: {path}"
    for column, allowed in (("y", (0, 1)), (value, (0, 1)), ("split", (0, 1, 2))):
        known_values(table, column, allowed, where)
    filled(table, file, where)
    # Some tables name the folder, too.
    names = [str(name).replace("\\", "/").rpartition("/")[2] for name in table[file]]
    both = {"Blond_Hair": (table["y"] == 1).to_numpy(), "Male": (table[value] == 1).to_numpy()}
    return pd.DataFrame(both, index=pd.Index(names)), table["split"].to_numpy(dtype=np.int64)

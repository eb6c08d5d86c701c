"""Where own data come from: a file, a folder, the Hub, a DataFrame or `datasets` objects; all become `Rows`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft._hub import expecting_answers
from aifs_peft.data.notes import listed, tell
from aifs_peft.data.own.matrices import LARGE, dataset_matrix, is_vector_type
from aifs_peft.data.own.rows import Rows, single, stacked
from aifs_peft.data.own.tables import TABLES, read_arrays, read_file, read_shards, with_arrays
from aifs_peft.errors import DataNotFoundError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What a split may be called, and what it is called here."""
PICTURES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
)
_SHARD = re.compile(r"(?P<name>.*?[^0-9_-])[-_](?P<number>\d+)(-of-(?P<of>\d+))?")
_SAVED = ("dataset_dict.json", "state.json")
KINDS = (
    "a table (CSV, TSV, Parquet, JSON, JSON lines, npz), a folder with a table beside the pictures, a folder of "
    "NumPy arrays (Z.npy, y.npy), a folder of class folders, a data set of the Hub (OWNER/NAME), a pandas DataFrame or "
    "a Dataset or DatasetDict of datasets"
)


def is_own(source: object) -> bool:
    """Whether a source is the user's own data rather than the name of a data set of this package.

    Example:
        >>> is_own("scans.csv"), is_own("owner/name"), is_own("celeba")
        (True, True, False)
    """
    if not isinstance(source, str):
        return not isinstance(source, type(None) | bool | int | float)
    from aifs_peft.data import names

    return source not in names() and ("/" in source or suffix(Path(source)) in TABLES or Path(source).exists())


def read(source: Any, *, data_dir: str | Path | None = None, revision: str | None = None) -> Rows:
    """Read own data of any kind.

    Args:
        source: see `KINDS`.
        data_dir: folder inside a repository of the Hub.
        revision: of a data set of the Hub.

    Returns:
        The rows, not yet interpreted.

    Raises:
        DataNotFoundError: a file or folder does not exist.
        InvalidInputError: nothing that can be read.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return _of_frame(source)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            rows = _of_folder(path)
        elif path.is_file() or suffix(path) in TABLES:
            rows = read_file(path)
        else:
            rows = _of_hub(str(source), data_dir, revision)
    else:
        rows = _of_datasets(source, type(source).__name__)
    if not len(rows):
        raise InvalidInputError(f"{rows.where} has no row")
    return rows


def read_pictures(folder: Path) -> Rows | None:
    """Every picture in a folder and the folders below it, whatever those are called.

    Args:
        folder: to look through.

    Returns:
        The rows; None where a table or a saved data set says what is there, or there are no pictures.
    """
    import pandas as pd

    saved = any((folder / name).is_file() for name in _SAVED)
    if saved or any(path.is_file() and suffix(path) in TABLES for path in folder.iterdir()):
        return None
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES]
    shown = [str(path) for path in files if not any(part.startswith(".") for part in path.parts)]
    frame = pd.DataFrame({"file": shown}).astype(object)
    return single(str(folder), frame, folder=folder, confined=True, paths="file") if shown else None


def suffix(path: Path) -> str:
    """`.csv` of `scans.csv`, also of `scans.csv.gz`."""
    name = path.name.lower()
    for packed in (".gz", ".bz2", ".xz", ".zip", ".zst"):
        name = name.removesuffix(packed)
    return Path(name).suffix


def _of_frame(frame: pd.DataFrame) -> Rows:
    frame = frame.rename(columns=str)
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:
        raise InvalidInputError(f"the DataFrame has the columns {listed(twice)} more than once; rename them")
    if not len(frame):
        raise InvalidInputError("the DataFrame has no row")
    return single("the DataFrame", frame)


def _of_folder(folder: Path) -> Rows:
    if any((folder / name).is_file() for name in _SAVED):
        return _saved(folder)
    tables = sorted(p for p in folder.iterdir() if p.is_file() and suffix(p) in TABLES)
    arrays = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix == ".npy")
    if tables:
        found = _of_tables(folder, tables)
        return with_arrays(found, arrays) if arrays and len(tables) == 1 else found
    if arrays:
        return read_arrays(folder, arrays)
    rows = _of_class_folders(folder)
    if rows is not None:
        return rows
    return _of_hub(str(folder), None, None)


def _of_tables(folder: Path, tables: list[Path]) -> Rows:
    """One table, or one for each split; each may lie in several files with a number each."""
    shards = shards_of(folder, tables)
    if len(shards) == 1:
        ((name, paths),) = shards.items()
        part = SPLITS.get(name, "")
        return read_file(paths[0], part) if len(paths) == 1 else read_shards(paths, part)
    named = {paths[0]: SPLITS.get(name, "") for name, paths in shards.items()}
    parts = {path: part for path, part in named.items() if part}
    if not parts or len(set(parts.values())) < len(parts):
        raise InvalidInputError(
            f"{folder} holds several tables ({listed([p.name for p in tables])}): name the one to read, or call them "
            "train, validation and test"
        )
    rest = [path.name for path, part in named.items() if not part]
    if rest:
        tell(f"{folder}: {listed(rest)} left out, beside the tables of the splits")
    files = {paths[0]: paths for paths in shards.values()}
    return stacked(
        str(folder),
        [
            read_shards(files[path], part) if len(files[path]) > 1 else read_file(path, part)
            for path, part in parts.items()
        ],
    )


def shards_of(folder: Path, tables: list[Path]) -> dict[str, list[Path]]:
    """Files by the name of their table, in the order of their numbers: `train-00000-of-00002.parquet`, `part-0.csv`."""
    names = {path: path.name.partition(".")[0].lower() for path in tables}
    numbered = {path: found for path, name in names.items() if (found := _SHARD.fullmatch(name))}
    together = Counter((found["name"], found["of"]) for found in numbered.values())
    files: dict[str, list[Path]] = {}
    for path in sorted(tables, key=lambda path: int(numbered[path]["number"]) if path in numbered else -1):
        found = numbered.get(path)
        shard = found is not None and (found["of"] is not None or together[found["name"], None] > 1)
        files.setdefault(found["name"] if found is not None and shard else names[path], []).append(path)
    for name, paths in files.items():
        total = {int(numbered[path]["of"] or 0) for path in paths if path in numbered}
        if total and max(total) not in (0, len(paths)):
            raise InvalidInputError(
                f"{folder}: {len(paths)} of {max(total)} files of the table {name!r} are there "
                f"({listed([path.name for path in paths])}); get the others, or name one file to read it alone"
            )
        if total == {0} and len(paths) > 1:
            tell(f"{folder}: {listed([path.name for path in paths])} read as one table, one below the other")
    return files


def _of_class_folders(folder: Path) -> Rows | None:
    """A folder per class, or a folder per split with a folder per class in it; None where there are no pictures."""
    import pandas as pd

    outer = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = {
        p: SPLITS[p.name.lower()] for p in outer if p.name.lower() in SPLITS and any(c.is_dir() for c in p.iterdir())
    }
    tables = []
    for place, part in splits.items() or [(folder, "")]:
        found = [
            (str(path.relative_to(folder)), kind.name)
            for kind in sorted(place.iterdir())
            if kind.is_dir() and not kind.name.startswith(".")
            for path in sorted(kind.rglob("*"))
            if path.suffix.lower() in PICTURES and not path.name.startswith(".")
        ]
        frame = pd.DataFrame(found, columns=["file", "label"]).astype(object)
        tables.append(single(str(folder), frame, part, folder=folder, confined=True, paths="file"))
    beside = [p.name for p in outer if splits and p not in splits]
    if not sum(map(len, tables)):
        return None
    if beside:
        tell(f"{folder}: the folders {listed(beside)} are no splits and were left out")
    return stacked(str(folder), [table for table in tables if len(table)])


def _saved(folder: Path) -> Rows:
    import datasets

    from aifs_peft.data.reading import reading

    with reading(folder, "a saved data set"):
        loaded = datasets.load_from_disk(str(folder))
    return _of_datasets(loaded, str(folder))


def _of_hub(name: str, data_dir: str | Path | None, revision: str | None) -> Rows:
    """What `datasets.load_dataset` reads: a repository of the Hub, or a folder of Parquet shards."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    inner = None if data_dir is None else str(data_dir)
    try:
        with expecting_answers():
            loaded = datasets.load_dataset(name, data_dir=inner, revision=revision)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, DatasetGenerationError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"Could not load the data set {name!r}: it is no local folder or file that can be read"
        if not Path(name).is_dir():
            text += f", and the Hub did not give it ({reason[:200]})"
            raise DataNotFoundError(f"{text}. Needed is {KINDS}.") from error
        raise InvalidInputError(f"{text} ({reason[:200]}). Needed is {KINDS}.") from error
    return _of_datasets(loaded, name)


def _of_datasets(source: Any, where: str) -> Rows:
    from datasets import Dataset

    if isinstance(source, Dataset):
        return _of_dataset(source, where, "")
    if not isinstance(source, Mapping) or not source or not all(isinstance(p, Dataset) for p in source.values()):
        kind = "an empty dictionary" if isinstance(source, Mapping) and not source else type(source).__name__
        raise InvalidInputError(
            f"own data must be {KINDS}; got {kind} (a stream must be read first: Dataset.from_list(list(stream)))"
        )
    named = {SPLITS.get(str(name).lower(), ""): part for name, part in source.items()}
    rest = [str(name) for name in source if str(name).lower() not in SPLITS]
    if len(source) == 1:
        return _of_dataset(next(iter(source.values())), where, next(iter(named)))
    if rest:
        tell(f"{where}: the splits {listed(rest)} are neither train, validation nor test and were left out")
    if len(named) + len(rest) - bool(rest) < len(source) or not set(named) - {""}:
        raise InvalidInputError(f"{where}: the splits {list(source)} need to be train, validation and test, once each")
    return stacked(where, [_of_dataset(part, where, name) for name, part in named.items() if name])


def _of_dataset(dataset: Any, where: str, part: str) -> Rows:
    """Columns of a `Dataset`; pictures stay undecoded."""
    from datasets import ClassLabel, Image

    plain = dataset.with_format(None)
    images = [name for name, feature in plain.features.items() if isinstance(feature, Image)]
    large = _large_columns(plain)
    aside = [*images, *large]
    frame = plain.remove_columns(aside).to_pandas() if aside else plain.to_pandas()
    if len(aside) == len(plain.features):  # nothing is left that knows the number of rows
        frame = frame.reindex(range(len(plain)))
    names = {name: list(feature.names) for name, feature in plain.features.items() if isinstance(feature, ClassLabel)}
    pictures = plain.select_columns(images) if images else None
    vectors = {name: dataset_matrix(plain, name, where) for name in large}
    return single(where, frame.rename(columns=str), part, class_names=names, pictures=pictures, vectors=vectors)


def _large_columns(dataset: Any) -> list[str]:
    """Columns of vectors that hold `LARGE` numbers or more, by the first row."""
    kinds = dataset.features.arrow_schema
    lists = [field.name for field in kinds if is_vector_type(field.type)]
    if not lists or not len(dataset):
        return []
    first = dataset.select(range(1)).select_columns(lists)[0]
    return [name for name in lists if len(first[name] or ()) * len(dataset) >= LARGE]

"""Own data whose training split is read from its beginning, pass after pass, and never held.

Held are the columns beside pictures, texts and vectors of the training split, and validation and test whole. What a
model reads of a training row is read, and checked, when its turn comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._hub import expecting_answers
from aifs_peft.data.images import read_images
from aifs_peft.data.notes import listed
from aifs_peft.data.own.build import input_columns
from aifs_peft.data.own.cuts import ORDER, SHARE, tell_small
from aifs_peft.data.own.inputs import is_paths, picture_root, vectors
from aifs_peft.data.own.matrices import parquet_batches
from aifs_peft.data.own.prepare import complete, folder_of, missing_in, prepare
from aifs_peft.data.own.roles import Roles, find_roles
from aifs_peft.data.own.rows import Rows, single, stacked
from aifs_peft.data.own.sources import SPLITS, shards_of, suffix
from aifs_peft.data.own.tables import TABLES, header_of, separator_of
from aifs_peft.data.reading import reading
from aifs_peft.data.tables import assemble, build_split
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict

CHUNK = 64
"""Rows whose pictures, texts or vectors are read at a time."""
LIGHT_CHUNK = 2048
"""Rows whose other columns are read at a time."""
_KINDS = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".pq": "Parquet", ".jsonl": "JSON lines",
          ".ndjson": "JSON lines"}  # fmt: skip
NEEDED = (
    "a data set that is streamed comes with its splits: tables called train, validation and test in a folder, of one "
    "kind (CSV, Parquet, JSON lines), in several files each if they are large (train-00000-of-00008.parquet), a data "
    "set that save_to_disk has written, or one of the Hub (OWNER/NAME)"
)


@dataclass(frozen=True)
class StreamedData:
    """A data set whose training split is streamed.

    Args:
        splits: `train` without what a model reads, and `validation` and `test` whole.
        modality: what a model reads: `"image"`, `"text"` or `"features"`.
        inputs: gives that of the training rows in their order, some at a time, from the beginning.
    """

    splits: DatasetDict
    modality: str
    inputs: Callable[[], Iterator[list[Any]]]


def stream_own(
    source: str | Path,
    *,
    image: str | None = None,
    text: str | None = None,
    label: str | None = None,
    features: Any = None,
    attribute: str | None = None,
    group: str | None = None,
    root: str | Path | None = None,
    data_dir: str | Path | None = None,
    revision: str | None = None,
) -> StreamedData:
    """Own data with a streamed training split; columns as for `load_own`.

    Args:
        source: see `NEEDED`.
        image: column of pictures.
        text: column of texts.
        label: column of classes.
        features: column of vectors, or columns of numbers.
        attribute: column whose values, with the classes, make the evaluation cells.
        group: column of ready-made evaluation groups instead.
        root: folder of the pictures, where paths do not start at the table's folder.
        data_dir: folder inside a repository of the Hub.
        revision: of a data set of the Hub.

    Raises:
        InvalidInputError: data that do not come in splits, or that cannot be read.
        DataNotFoundError: the source does not exist.
    """
    where = str(source)
    with reading(where, "a data set that is streamed"):
        parts = _opened(source, data_dir, revision)
        place = _Place(where, Path(source) if Path(source).is_dir() else None, parts)
        roles, train = place.light(
            lambda first: find_roles(
                first, label=label, image=image, text=text, features=features, attribute=attribute, group=group,
                split=None,
            )
        )  # fmt: skip
        rest = stacked(where, [place.whole(name) for name in ORDER[1:]])
    kind = "image" if roles.image else "text" if roles.text else "features"
    light = replace(roles, image=None, text=None, features=None, split=None)
    beside = [name for name in rest.columns if name in train.columns]
    own = prepare(stacked(where, [train, replace(rest, frame=rest.frame[beside])]), light, "error", root)
    assert own.given is not None  # noqa: S101 - every row has come with its split
    tell_small(own, own.given, SHARE)
    whole = _inputs_of(rest, roles, root)
    splits = {"train": own.dataset.select(np.flatnonzero(own.given == "train"))}
    for name in ORDER[1:]:
        splits[name] = _joined(
            own.dataset, np.flatnonzero(own.given == name), whole.select(np.flatnonzero(rest.parts == name))
        )
    inputs = _Inputs(place, roles, kind, root)
    text_of = f"Own data from {where}; the training split is streamed."
    return StreamedData(assemble(splits, own.spec, text_of), kind, inputs)


@dataclass(frozen=True)
class _Part:
    """A split that is read from its beginning.

    Args:
        read: gives tables of so many rows, with some columns or, for None, all.
        class_names: of columns that are numbered already.
    """

    read: Callable[[Sequence[str] | None, int], Iterator[pd.DataFrame]]
    class_names: Mapping[str, list[str]] = field(default_factory=dict)


def _opened(source: str | Path, data_dir: Any, revision: str | None) -> dict[str, _Part]:
    """The three splits, of which nothing is read yet."""
    path = Path(source)
    if path.is_file() or (not path.exists() and suffix(path) in TABLES):
        path.open("rb").close()
        raise InvalidInputError(
            f"{source} is one file, and cutting splits from it needs all of its rows. Needed: {NEEDED}"
        )
    if path.is_dir() and not (path / "dataset_dict.json").is_file():
        found: dict[str, _Part] = _of_tables(path)
    else:
        found = {name: _of_datasets(part) for name, part in _loaded(path, data_dir, revision).items()}
    named = {SPLITS.get(str(name).lower(), ""): part for name, part in found.items()}
    lacking = [name for name in ORDER if name not in named]
    if lacking:
        raise InvalidInputError(
            f"{source} has the splits {listed([str(name) for name in found]) or '(none)'} and lacks {listed(lacking)}, "
            f"which are not cut from a stream. Needed: {NEEDED}"
        )
    return {name: named[name] for name in ORDER}


def _loaded(path: Path, data_dir: Any, revision: str | None) -> dict[str, Any]:
    """Splits of a saved data set, or streams of the Hub."""
    import datasets

    if path.is_dir():
        return dict(datasets.load_from_disk(str(path)))
    inner = None if data_dir is None else str(data_dir)
    with expecting_answers():
        return dict(datasets.load_dataset(str(path), data_dir=inner, revision=revision, streaming=True))


def _of_datasets(part: Any) -> _Part:
    """A `Dataset` or `IterableDataset`, its pictures as files that are opened when they are needed."""
    import pandas as pd
    from datasets import ClassLabel, Image

    kinds = dict(part.features or {})
    for name, kind in kinds.items():
        if isinstance(kind, Image):
            part = part.cast_column(name, Image(decode=False))

    def read(columns: Sequence[str] | None, size: int) -> Iterator[pd.DataFrame]:
        rows = part if columns is None else part.select_columns(list(columns))
        for batch in rows.iter(batch_size=size):
            yield pd.DataFrame({name: pd.Series(list(values)) for name, values in batch.items()})

    return _Part(read, {name: list(kind.names) for name, kind in kinds.items() if isinstance(kind, ClassLabel)})


def _of_tables(folder: Path) -> dict[str, _Part]:
    """The tables of a folder by their names."""
    tables = sorted(p for p in folder.iterdir() if p.is_file() and suffix(p) in _KINDS)
    if not tables:
        raise InvalidInputError(
            f"{folder} holds no such tables. Pictures in folders of classes are opened one by one anyway: leave "
            f"streaming out. Needed: {NEEDED}"
        )
    kinds = sorted({_KINDS[suffix(path)] for path in tables})
    if len(kinds) > 1:
        raise InvalidInputError(f"{folder} holds tables of several kinds ({listed(kinds)}). Needed: {NEEDED}")
    read = {"CSV": _csv, "Parquet": _parquet, "JSON lines": _json_lines}[kinds[0]]
    return {name: _files(paths, read) for name, paths in shards_of(folder, tables).items() if name in SPLITS}


def _files(paths: list[Path], read: Callable[[Path, Sequence[str] | None, int], Iterator[pd.DataFrame]]) -> _Part:
    """One split in some files, one after the other."""
    return _Part(lambda columns, size: (frame for path in paths for frame in read(path, columns, size)))


def _csv(path: Path, columns: Sequence[str] | None, size: int) -> Iterator[pd.DataFrame]:
    """As text, as `load_own` reads it: what a value means is decided by its role."""
    import pandas as pd

    mark = separator_of(path, "\t" if suffix(path) == ".tsv" else ",")
    names = [str(name) for name in header_of(path, mark)]
    options: dict[str, Any] = {"sep": mark, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    with pd.read_csv(path, names=names, header=0, chunksize=size, **options) as chunks:
        for frame in chunks:
            yield frame.astype(object) if columns is None else frame[list(columns)].astype(object)


def _parquet(path: Path, columns: Sequence[str] | None, size: int) -> Iterator[pd.DataFrame]:
    for batch in parquet_batches(path, columns, size):
        yield batch.to_pandas().reset_index(drop=True)


def _json_lines(path: Path, columns: Sequence[str] | None, size: int) -> Iterator[pd.DataFrame]:
    import pandas as pd

    with path.open(encoding="utf-8-sig") as lines:
        records = (json.loads(line) for line in lines if line.strip())
        while block := list(islice(records, size)):
            yield pd.DataFrame(block, columns=None if columns is None else list(columns))


@dataclass(frozen=True)
class _Place:
    """Where rows come from.

    Args:
        where: the source, for messages.
        folder: of local tables.
        parts: the splits.
    """

    where: str
    folder: Path | None
    parts: Mapping[str, _Part]

    def rows(self, frame: pd.DataFrame, part: str, start: int = 0) -> Rows:
        """A table as rows, from number `start` of their split on."""
        names = dict(self.parts[part].class_names)
        found = single(
            self.where, frame.rename(columns=str), part, folder=self.folder, confined=True, class_names=names
        )
        found.numbers = found.numbers + start
        return found

    def whole(self, part: str) -> Rows:
        """All rows of a split."""
        import pandas as pd

        frames = list(self.parts[part].read(None, LIGHT_CHUNK))
        if not sum(map(len, frames)):
            raise InvalidInputError(f"{self.where}: the split {part} has no row")
        return self.rows(pd.concat(frames, ignore_index=True), part)

    def light(self, find: Callable[[Rows], Roles]) -> tuple[Roles, Rows]:
        """Which column of the training split is what, by its first rows; and all rows without what a model reads."""
        import pandas as pd

        first = next(self.parts["train"].read(None, CHUNK), None)
        if first is None or not len(first):
            raise InvalidInputError(f"{self.where}: the split train has no row")
        rows = self.rows(first, "train")
        roles = find(rows)
        used = _read_columns(roles)
        beside = [name for name in rows.columns if name not in used or _holds_paths(rows, name, roles)]
        frames = list(self.parts["train"].read(beside, LIGHT_CHUNK))
        return roles, self.rows(pd.concat(frames, ignore_index=True), "train")


def _read_columns(roles: Roles) -> set[str]:
    """Columns that a model reads."""
    return {name for name in (roles.image, roles.text, *(roles.features or ())) if name is not None}


def _holds_paths(rows: Rows, name: str, roles: Roles) -> bool:
    """Whether it is the column of pictures and holds their paths, which are kept as what an example is called."""
    return name == roles.image and is_paths(rows, name)


def _inputs_of(rows: Rows, roles: Roles, root: str | Path | None) -> Dataset:
    """What a model reads of some rows, checked."""
    from datasets import Features

    folder = folder_of(rows, roles.image, root)
    lacking = missing_in(rows, roles.image, roles.text, roles.features, folder)
    complete(rows, lacking, "error", roles.image if folder is not None else None, folder)
    numbers = None if roles.features is None else vectors(rows, roles.features)[0]
    columns, kinds = input_columns(rows, roles.image, roles.text, numbers, folder)
    built: Dataset = build_split(columns, Features(kinds))
    return built


def _joined(every: Dataset, rows: NDArray[np.int64], inputs: Dataset) -> Dataset:
    """Columns beside the inputs, and the inputs, of the same rows."""
    from datasets import concatenate_datasets

    both: Dataset = concatenate_datasets([inputs.flatten_indices(), every.select(rows).flatten_indices()], axis=1)
    return both


@dataclass(frozen=True)
class _Inputs:
    """What a model reads of the training rows, from the beginning each time it is called.

    Args:
        place: where its rows come from.
        roles: its columns by role.
        modality: what is read.
        root: folder of the pictures.
    """

    place: _Place
    roles: Roles
    modality: str
    root: str | Path | None

    def __call__(self) -> Iterator[list[Any]]:
        """Pictures, texts or vectors, some rows at a time."""
        start, root = 0, self.root
        chosen = sorted(_read_columns(self.roles))
        for frame in self.place.parts["train"].read(chosen, CHUNK):
            rows = self.place.rows(frame, "train", start)
            if root is None and self.roles.image is not None and is_paths(rows, self.roles.image):
                root = picture_root(rows, self.roles.image, None)  # of all rows, as of the first ones
            part = _inputs_of(rows, self.roles, root)
            if self.modality == "image":
                try:
                    images: list[Any] = list(read_images(part.with_format(None), range(len(part)), split="train"))
                except InvalidInputError as error:
                    raise InvalidInputError(f"counted from row {start} of the stream: {error}") from error
                yield images
            else:
                yield list(part[self.modality][:])
            start += len(rows)

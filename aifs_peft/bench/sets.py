"""Data sets of the benchmark alone: local files of other layouts, read into the data sets of `aifs_peft.data`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft import data
from aifs_peft._checks import check_names
from aifs_peft.bench.experiment import DataEntry, where
from aifs_peft.errors import DataNotFoundError, InvalidConfigError, InvalidInputError

if TYPE_CHECKING:
    from datasets import DatasetDict

_SHARES = ("aligned", "aligned_share")


def cars_dominoes(
    data_dir: str | Path, *, aligned: float = 0.95, n_train: int | None = None, n_test: int | None = None, seed: int = 0
) -> DatasetDict:
    """A CIFAR-10 automobile or truck under a handwritten 0 or 1.

    Args:
        data_dir: folder with `cars_trucks/train.parquet`, `cars_trucks/test.parquet` (`image`, `label` 0 and 1) and
            `mnist/`, as `load("dominoes")` wants it.
        aligned: share of training and validation examples whose digit follows the class.
        n_train: pictures for training and validation together; None for all.
        n_test: test pictures; None for all.
        seed: of every draw.

    Raises:
        DataNotFoundError: a file is missing.
    """
    from datasets import Image, load_dataset

    folder = Path(data_dir) / "cars_trucks"
    source = {}
    for split in ("train", "test"):
        file = _required(folder / f"{split}.parquet")
        rows = load_dataset("parquet", data_files=str(file), split="train").cast_column("image", Image(mode="RGB"))
        pictures = np.stack([np.asarray(picture) for picture in rows["image"]])
        source[split] = (pictures, np.asarray(rows["label"][:], dtype=np.int64))
    return data.load(
        "dominoes", Path(data_dir), bottom=source, bottom_classes=(0, 1), bottom_names=("automobile", "truck"),
        aligned=aligned, n_train=n_train, n_test=n_test, seed=seed,
    )  # fmt: skip


def tweets_dialect(
    data_dir: str | Path, *, test_share: float = 0.4, n: int | None = None, seed: int = 0
) -> DatasetDict:
    """Tweets, offensive or not, with the dialect that more of their words come from.

    Args:
        data_dir: folder with `tweets.csv.gz` (`text`, `label`, `p_aae`, `p_white`).
        test_share: of the tweets, in (0, 1).
        n: number of tweets, drawn by the seed; None for all.
        seed: of the cut.

    Raises:
        DataNotFoundError: the file is missing.
    """
    import pandas as pd

    frame = pd.read_csv(_required(Path(data_dir) / "tweets.csv.gz"), keep_default_na=False)
    frame["dialect"] = np.where(frame["p_aae"].astype(float) > frame["p_white"].astype(float), "aae", "white")
    if n is not None and n < len(frame):
        frame = frame.sample(n, random_state=seed)
    table = frame[["text", "label", "dialect"]].reset_index(drop=True)
    return data.load_own(table, text="text", label="label", attribute="dialect", test_share=test_share, seed=seed)


_SETS: dict[str, Callable[..., Any]] = {"cars_dominoes": cars_dominoes, "tweets_dialect": tweets_dialect}


def names() -> tuple[str, ...]:
    """The data sets of this module, sorted.

    Example:
        >>> names()
        ('cars_dominoes', 'tweets_dialect')
    """
    return tuple(sorted(_SETS))


def load(entry: DataEntry, seed: int) -> DatasetDict:
    """Train, validation and test of an entry.

    Args:
        entry: which data.
        seed: of the draw, where the data set has one.

    Raises:
        InvalidConfigError: options that the loader does not have.
        DataNotFoundError: a file is missing.
        InvalidInputError: an unknown data set, or a split or the groups are missing.
    """
    name, folder = where(entry.dataset), None if entry.data_dir is None else where(entry.data_dir)
    own, known = name in _SETS, _known(name)
    options = {**entry.options, **({"seed": seed} if entry.seeded and "seed" in known else {})}
    if entry.aligned_share is not None:
        given = [share for share in _SHARES if share in known]
        if not given:
            raise InvalidConfigError(
                f"data set {entry.name!r}: the loader of {entry.dataset!r} takes no aligned share; leave aligned_share "
                "out, and say it in options"
            )
        options[given[0]] = entry.aligned_share
    check_names(options, known, f"data set {entry.name!r}: {entry.dataset} has no option")
    if own and folder is None:
        raise InvalidConfigError(f"data set {entry.name!r} needs data_dir: {entry.dataset} is read from local files")
    splits: DatasetDict = _SETS[name](folder, **options) if own else data.load(name, folder, **options)
    for split in ("train", "validation", "test"):
        if split not in splits or "group" not in splits[split].column_names:
            raise InvalidInputError(f"data set {entry.name!r} needs the split {split!r} with a column 'group'")
    return splits


def _known(name: str) -> list[str]:
    """Options of a data set's loader."""
    loader: Callable[..., Any]
    if name in _SETS:
        loader = _SETS[name]
    elif name in data.names():
        return list(data.describe(name).options)
    else:
        loader = data.load_own
    return [p for p in inspect.signature(loader).parameters if p not in ("source", "data_dir")]


def _required(file: Path) -> Path:
    if not file.is_file():
        raise DataNotFoundError(f"{file} is missing; see aifs_peft.bench.sets for the layout that is read")
    return file

"""Where data come from: local files, checked before they are read, or the Hub by name and revision."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._hub import expecting_answers
from aifs_peft.data.reading import reading
from aifs_peft.errors import DataNotFoundError, InvalidInputError


@dataclass(frozen=True)
class DataCard:
    """What a data set is and how to get it; `describe(name)` gives one with its options filled in.

    Args:
        name: the name `load` knows.
        title: one line.
        inputs: the columns a model reads (`image`, `text`, `features`).
        groups: how the groups are formed.
        source: where the files are to be had.
        layout: which files are expected, and where in `data_dir`.
        terms: licence or terms of use as the source states them.
        options: option name to default.
        md5: published MD5 by file name, empty where the source publishes none.
    """

    name: str
    title: str
    inputs: tuple[str, ...]
    groups: str
    source: str
    layout: str
    terms: str
    options: dict[str, Any] = field(default_factory=dict)
    md5: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items()) or "none"
        return (
            f"{self.name}: {self.title}\n  inputs: {', '.join(self.inputs)}\n  groups: {self.groups}\n"
            f"  source: {self.source}\n  layout: {self.layout}\n  terms: {self.terms}\n  options: {options}"
        )


def missing(path: Path | str, card: DataCard) -> DataNotFoundError:
    """The error for an absent file: its name, where to get it and how to lay it out."""
    return DataNotFoundError(
        f"{card.name}: {path} is missing. Get it from {card.source}. Expected layout: {card.layout}"
    )


def require_dir(data_dir: str | Path | None, card: DataCard) -> Path:
    """The folder of local files.

    Raises:
        DataNotFoundError: none was given, or it does not exist.
    """
    if data_dir is None:
        raise DataNotFoundError(
            f"{card.name}: data_dir was not given, and this set is only read from local files. "
            f"Get them from {card.source}. Expected layout: {card.layout}"
        )
    path = Path(data_dir)
    if not path.is_dir():
        raise missing(path, card)
    return path


def require_file(folder: Path, names: tuple[str, ...], card: DataCard) -> Path:
    """The first of several accepted files that exists in a folder.

    Raises:
        DataNotFoundError: none of them does; the message names the first.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise missing(folder / names[0], card)


def md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify_md5(path: Path, expected: str, card: DataCard) -> None:
    """Compare a file with its published MD5 (a check against truncation and mix-ups, not against malice).

    Raises:
        InvalidInputError: it differs.
    """
    found = md5(path)
    if found != expected:
        raise InvalidInputError(
            f"{card.name}: {path} has MD5 {found}, the published file has {expected}. Fetch it "
            f"again from {card.source}; pass verify=False to read a file that was changed on purpose"
        )


def load_hub(name: str, revision: str, card: DataCard, **options: Any) -> Any:
    """`datasets.load_dataset` by name and revision; without a network, an error that says what to do.

    Raises:
        DataNotFoundError: the Hub cannot be reached or lacks the set, and the local cache has no copy.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        with expecting_answers():
            return datasets.load_dataset(name, revision=revision, **options)
    except (ConnectionError, TimeoutError, DatasetNotFoundError) as error:
        raise DataNotFoundError(
            f"{card.name}: the Hub does not give {name!r} (revision {revision!r}): {error}. Use local files "
            f"instead, load({card.name!r}, data_dir=...), from {card.source}. Expected layout: {card.layout}"
        ) from error


# Published with the original files and used by the common loaders.
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MNIST_LAYOUT = (
    "data_dir/train.npz and data_dir/test.npz with arrays x (n, 28, 28) uint8 and y (n,); or the original "
    "files data_dir/train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
    "t10k-labels-idx1-ubyte.gz; or data_dir=None for ylecun/mnist from the Hub"
)
MNIST_SOURCE = "https://huggingface.co/datasets/ylecun/mnist"
Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_mnist(
    data_dir: str | Path | None, card: DataCard, revision: str = "main", verify: bool = True
) -> dict[str, Digits]:
    """MNIST from local files or the Hub.

    Args:
        data_dir: folder with `train.npz`/`test.npz` or the four IDX files (also in `mnist/`); None: the Hub.
        card: the data set that asks, for messages.
        revision: Hub revision.
        verify: compare the IDX files with their published MD5.

    Returns:
        `train` and `test`, each (images `(n, 28, 28)` uint8, digits `(n,)` int64).

    Raises:
        DataNotFoundError: a file is missing, or the Hub cannot be reached.
        InvalidInputError: a file is not what it should be.
    """
    if data_dir is None:
        hub = load_hub("ylecun/mnist", revision, card)
        return {
            s: (np.stack([np.asarray(i) for i in hub[s]["image"]]), np.asarray(hub[s]["label"][:]))
            for s in ("train", "test")
        }
    folder = require_dir(data_dir, card)
    folder = folder / "mnist" if (folder / "mnist").is_dir() else folder
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return {s: _read_idx(folder, prefix, card, verify) for s, prefix in (("train", "train"), ("test", "t10k"))}
    digits = {}
    for split in ("train", "test"):
        path = require_file(folder, (f"{split}.npz",), card)
        arrays = read_npz(path, card.name)
        if not {"x", "y"} <= set(arrays):
            raise InvalidInputError(f"{card.name}: {path} needs arrays x and y; it has {sorted(arrays)}")
        digits[split] = _checked_digits(arrays["x"], arrays["y"], path, card)
    return digits


def read_npz(path: Path, where: str) -> dict[str, NDArray[Any]]:
    """All arrays of an `npz` file; none that would need pickle, which could run code.

    Args:
        path: the file.
        where: name of the data set, for messages.

    Returns:
        Name to array.

    Raises:
        DataNotFoundError: it does not exist.
        InvalidInputError: it is damaged, no `npz` file, or holds Python objects.
    """
    # Opened here: NumPy leaves a file open that it cannot read.
    with reading(path, "a file of NumPy arrays (npz)", where), path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InvalidInputError(f"{where}: {path} holds one array without a name; write it by numpy.savez")
        with loaded:
            return {name: loaded[name] for name in loaded.files}


def _read_idx(folder: Path, prefix: str, card: DataCard, verify: bool) -> Digits:
    arrays = []
    for kind, dims in (("images-idx3", 3), ("labels-idx1", 1)):
        path = require_file(folder, (f"{prefix}-{kind}-ubyte.gz",), card)
        if verify:
            verify_md5(path, MNIST_MD5[path.name], card)
        with reading(path, f"an IDX file of bytes with {dims} dimensions", card.name):
            with gzip.open(path, "rb") as stream:
                raw = stream.read()
            magic, *shape = struct.unpack(f">{1 + dims}I", raw[: 4 * (1 + dims)])
            if magic != 0x800 + dims:
                raise InvalidInputError(f"{card.name}: {path} is not an IDX file of bytes with {dims} dimensions")
            arrays.append(np.frombuffer(raw, dtype=np.uint8, offset=4 * (1 + dims)).reshape(shape))
    return _checked_digits(arrays[0], arrays[1], folder / prefix, card)


def _checked_digits(images: Any, digits: Any, path: Path, card: DataCard) -> Digits:
    if images.ndim != 3 or images.dtype != np.uint8 or len(images) != len(digits) or len(images) == 0:
        raise InvalidInputError(
            f"{card.name}: {path} must hold uint8 images (n, height, width) with one digit each; got "
            f"{images.dtype} {images.shape} and {digits.shape}"
        )
    if digits.ndim != 1 or digits.dtype.kind not in "ui" or digits.min() < 0 or digits.max() > 9:
        raise InvalidInputError(f"{card.name}: {path} must hold whole digits from 0 to 9, (n,); got {digits.dtype}")
    return images, digits.astype(np.int64)

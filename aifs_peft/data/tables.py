"""From arrays to `datasets.Dataset`: Arrow tables in memory, images as PNG bytes decoded on access."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec, describe_spec
from aifs_peft.errors import InvalidInputError

LARGE = 1 << 26
"""Tables of more bytes get a random fingerprint."""


def encode_png(images: Iterable[NDArray[np.uint8]]) -> list[bytes]:
    """Encode images as PNG, losslessly.

    Args:
        images: uint8, each `(height, width, 3)` or `(height, width)`.

    Returns:
        One PNG file per image, as bytes.
    """
    from PIL import Image

    files = []
    for array in images:
        buffer = io.BytesIO()
        # Level 1: generated noise hardly compresses, and speed counts when tens of thousands are written.
        Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
        files.append(buffer.getvalue())
    return files


def image_column(*, files: Sequence[bytes] | None = None, paths: Sequence[str] | None = None) -> pa.Array:
    """The storage of an `Image()` column: PNG bytes, or paths opened on access. Give one of the two."""
    if (files is None) == (paths is None):
        raise InvalidInputError("image_column needs either files or paths")
    n = len(files) if files is not None else len(paths or ())
    data = pa.array(files, type=pa.binary()) if files is not None else pa.nulls(n, pa.binary())
    names = pa.array(paths, type=pa.string()) if paths is not None else pa.nulls(n, pa.string())
    return pa.StructArray.from_arrays([data, names], ["bytes", "path"])


def vector_column(values: NDArray[Any]) -> pa.Array:
    """A fixed-length list column from a matrix `(n, width)`, without a Python loop."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def build_split(columns: Mapping[str, Any], features: Any) -> Any:
    """One split, in memory: nothing is written to a cache, so no cache can be left half-written.

    Args:
        columns: column name to array, list or Arrow array, all of one length.
        features: `datasets.Features` with the same names.

    Returns:
        A `datasets.Dataset`.

    Raises:
        InvalidInputError: names or lengths do not fit.
    """
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint

    if set(columns) != set(features):
        raise InvalidInputError(f"columns {sorted(columns)} and features {sorted(features)} differ")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"columns of different lengths: {lengths}")
    schema = features.arrow_schema
    arrays = [_column(columns[field.name], field) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    # Else `datasets` makes one from all values, of which it takes a copy.
    large = generate_random_fingerprint() if table.nbytes > LARGE else None
    return Dataset(table, fingerprint=large)


def _column(values: Any, field: pa.Field) -> pa.Array:
    try:
        return values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"column {field.name!r} does not hold {field.type} throughout: {reason}") from error


def assemble(splits: Mapping[str, Any], spec: GroupSpec | None, text: str) -> Any:
    """A dictionary of splits that carry a description and the definition of their groups.

    Args:
        splits: split name to `datasets.Dataset`, or `IterableDataset`, each with a column `label`, and `group` where
            there is a definition.
        spec: what the numbers in `group` mean; None where there are no groups.
        text: a sentence or two on where the data come from and with which options.

    Returns:
        `datasets.DatasetDict`, or `IterableDatasetDict` of streams, in the order given.
    """
    from datasets import DatasetDict, IterableDataset, IterableDatasetDict

    description = text if spec is None else describe_spec(spec, text)
    for part in splits.values():
        part.info.description = description
    streams = any(isinstance(part, IterableDataset) for part in splits.values())
    return (IterableDatasetDict if streams else DatasetDict)(dict(splits))


def stream(data: Any, shards: int = 64) -> Any:
    """A `DatasetDict` as an `IterableDatasetDict`: the same rows in the same order, with the same description.

    Args:
        data: a `datasets.DatasetDict`.
        shards: at most so many parts per split, for the workers of a data loader.
    """
    from datasets import IterableDatasetDict

    parts = {}
    for split, part in data.items():
        parts[split] = part.to_iterable_dataset(num_shards=max(1, min(shards, len(part))))
        parts[split].info.description = part.info.description
    return IterableDatasetDict(parts)


def group_features(spec: GroupSpec) -> dict[str, Any]:
    """The features `label`, `attribute` and `group` of a partition."""
    from datasets import ClassLabel

    return {
        "label": ClassLabel(names=list(spec.classes)),
        "attribute": ClassLabel(names=list(spec.attributes)),
        "group": ClassLabel(names=list(spec.names)),
    }

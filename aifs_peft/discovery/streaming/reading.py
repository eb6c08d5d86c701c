"""Whatever a user has as latents, as a source."""

from __future__ import annotations

from typing import Any

import numpy as np

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.streaming.arrays import ArrayLatents
from aifs_peft.discovery.streaming.columns import ColumnLatents, is_column
from aifs_peft.discovery.streaming.source import LatentSource
from aifs_peft.errors import InvalidInputError


def as_source(Z: Any) -> LatentSource:
    """Latents as they are read; nothing is copied that lies in an array or a file already.

    Args:
        Z: A source, a column of a `datasets.Dataset` or of pyarrow, anything with rows by slices (NumPy arrays, memory
            maps, torch tensors, HDF5), or lists of numbers.

    Raises:
        InvalidInputError: For another shape or type.

    Example:
        >>> as_source([[1, 2], [3, 4]]).shape
        (2, 2)
    """
    if isinstance(Z, LatentSource):
        return Z
    if is_column(Z):
        return ColumnLatents(Z)
    if hasattr(Z, "shape") and hasattr(Z, "dtype") and hasattr(Z, "__getitem__") and len(Z.shape) == 2:
        return ArrayLatents(Z)
    try:
        array = np.asarray(to_numpy(Z))
    except (ValueError, OverflowError) as error:  # a ragged list
        raise InvalidInputError(f"Latents that make no array were given ({error}); needed is (n, d).") from error
    return ArrayLatents(array)

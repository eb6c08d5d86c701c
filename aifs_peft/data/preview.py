"""Pictures of a data set: one row of examples per group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.data.groups import group_array, spec_of
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image


def image_grid(dataset: Any, *, per_group: int = 8, size: int = 64, max_groups: int = 16) -> Image:
    """Draw a grid of examples: a row per group, in the order of the definition; empty places stay white.

    Args:
        dataset: one split with an `image` and a `group` column.
        per_group: pictures per group, the first ones of the split.
        size: side of a picture in the grid, in pixels; other proportions are fitted into the square.
        max_groups: at most so many groups, the first ones.

    Returns:
        A PIL image, `per_group * (size + 2)` wide and one such row per group high.

    Raises:
        InvalidInputError: the data set has no pictures.
    """
    from PIL import Image, ImageOps

    from aifs_peft.data.images import read_images

    if "image" not in dataset.column_names:
        raise InvalidInputError(f"a picture grid needs an 'image' column; this set has {dataset.column_names}")
    spec = spec_of(dataset)
    groups = group_array(dataset)
    shown = min(spec.num_groups, max_groups)
    step = size + 2
    grid = Image.new("RGB", (per_group * step, shown * step), "white")
    for row in range(shown):
        member = groups[:, row] if spec.overlapping else groups == row
        rows = np.flatnonzero(member)[:per_group].tolist()
        for column, image in enumerate(read_images(dataset, rows)):
            picture = ImageOps.contain(image, (size, size))
            grid.paste(picture, (column * step + 1, row * step + 1))
    return grid

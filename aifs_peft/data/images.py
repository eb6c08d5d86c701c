"""Pictures of any kind to 8-bit RGB, and damaged files named: the one place where pictures are decoded for a model.

- RGB, 8-bit grey, black and white, palette, CMYK, YCbCr, HSV, LAB: converted by Pillow.
- Grey of 16 or 32 bits or of real numbers: stretched from the picture's own smallest and largest value to 0..255; a
  constant one becomes black.
- Transparent (RGBA, LA, a transparent colour in a palette or in RGB): laid over white.
- With an EXIF orientation: turned upright.
- Animated, or of several pages: the first frame or page.
- An array `(h, w)`, `(h, w, 1)`, `(h, w, 3)` or `(h, w, 4)`: as the picture it holds; colour must be integers in
  [0, 255] or real numbers in [0, 1].
- NaN or infinite values, any other form: refused (`InvalidInputError`).

The stretch keeps order and contrast within a picture and loses the brightness between pictures. Where that is the
class (a depth map, a calibrated scan), write 8-bit files with a range of your own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's grey modes with more than 8 bits, which its own conversion would clip at 255."""


def damage() -> tuple[type[Exception], ...]:
    """What Pillow raises for files that are cut off or are no pictures; `SyntaxError` is its word for a broken PNG."""
    from PIL import Image

    return (
        OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError,
        AttributeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
    )  # fmt: skip


def to_rgb(image: Any) -> Image:
    """Turn a picture into 8-bit RGB, by the table at the head of this module.

    Args:
        image: a Pillow image in any mode, or an array `(h, w)` or `(h, w, channels)`.

    Returns:
        A Pillow image in mode RGB, upright, its first frame.

    Raises:
        InvalidInputError: values that are not finite, a mode without a conversion to RGB, or no picture at all.

    Example:
        >>> scan = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)
        >>> np.asarray(to_rgb(scan))[..., 0].tolist()
        [[0, 64], [128, 255]]
    """
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        image = _from_array(image)
    if getattr(image, "n_frames", 1) > 1 and image.tell() != 0:
        image = _first_frame(image)
    picture: Image.Image = ImageOps.exif_transpose(image)
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in DEEP_MODES:
        return Image.fromarray(stretched(np.asarray(picture))).convert("RGB")
    try:
        if picture.has_transparency_data:
            # Pillow knows no direct way from grey multiplied by its alpha to RGBA.
            picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except ValueError as error:
        raise InvalidInputError(
            f"a picture in mode {picture.mode!r} has no conversion to RGB ({error}); save it as RGB or greyscale"
        ) from error


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch grey values of any depth linearly from their smallest and largest to 0..255.

    Args:
        values: real numbers, shape `(h, w)`.

    Returns:
        uint8, the same shape; all 0 where every value is the same.

    Raises:
        InvalidInputError: NaN or infinite values.

    Example:
        >>> stretched(np.array([[-1.0, 0.0, 1.0]])).tolist()
        [[0, 128, 255]]
    """
    levels = np.asarray(values, dtype=np.float64)
    broken = int((~np.isfinite(levels)).sum())
    if broken:
        raise InvalidInputError(
            f"a greyscale picture holds {broken} values that are NaN or infinite; replace them before it is read"
        )
    if not levels.size:
        raise InvalidInputError("a picture has no pixel")
    low = float(levels.min())
    # Halved, so that the span of the largest floats does not overflow.
    span = float(levels.max()) / 2 - low / 2
    if span == 0:
        return np.zeros(levels.shape, dtype=np.uint8)
    return np.round((levels / 2 - low / 2) / span * 255).astype(np.uint8)


def _first_frame(image: Image) -> Image:
    """A copy of the first frame; the caller's image stays at the frame where it was."""
    position = image.tell()
    image.seek(0)
    first = image.copy()
    image.seek(position)
    return first


def _from_array(value: Any) -> Image:
    """An array as a picture; colour of real numbers must lie in [0, 1]."""
    from PIL import Image

    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype.kind not in "buif" or not (colour or array.ndim == 2) or 0 in array.shape:
        raise InvalidInputError(
            f"a picture must be a Pillow image or an array (height, width) or (height, width, 3 or 4) of numbers; got "
            f"{type(value).__name__} of {array.dtype}, shape {array.shape}"
        )
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.dtype == np.bool_:
        return Image.fromarray(array.astype(np.uint8) * np.uint8(255))
    if not colour:
        return Image.fromarray(stretched(array))
    largest = 1 if array.dtype.kind == "f" else 255
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= largest):
        raise InvalidInputError(
            f"a colour picture given as an array must hold integers in [0, 255] or real numbers in [0, 1]; got "
            f"{array.dtype} from {array.min()} to {array.max()}"
        )
    return Image.fromarray((np.round(array * 255) if largest == 1 else array).astype(np.uint8))


def undecoded(dataset: Dataset, column: str = "image") -> Dataset:
    """The data set with its pictures left as files, which `read_images` decodes; once, not for every call.

    Raises:
        InvalidInputError: there is no such column.
    """
    from datasets import Image

    if column not in dataset.column_names:
        raise InvalidInputError(f"no column {column!r} of pictures; the data set has {dataset.column_names}")
    feature = dataset.features[column]
    return (
        dataset.cast_column(column, Image(decode=False)) if isinstance(feature, Image) and feature.decode else dataset
    )


def read_images(dataset: Dataset, rows: Sequence[int], *, column: str = "image", split: str = "") -> list[Image]:
    """Decode some pictures of a data set to RGB.

    Args:
        dataset: a split with a column of pictures; by `undecoded` where it is read in many small parts.
        rows: row numbers.
        column: name of that column.
        split: name of the split, for the message.

    Returns:
        One RGB image per row.

    Raises:
        InvalidInputError: a file is missing, damaged or no picture: one line with its split, row and path.

    Example:
        >>> from datasets import Dataset
        >>> from PIL import Image
        >>> read_images(Dataset.from_dict({"image": [Image.new("L", (4, 3))]}), [0])[0].mode
        'RGB'
    """
    images = []
    wanted = slice(rows.start, rows.stop) if isinstance(rows, range) and rows.step == 1 else list(rows)
    for row, value in zip(rows, undecoded(dataset, column)[wanted][column], strict=True):
        image, reason = _decoded(value)
        if image is None:
            raise InvalidInputError(damage_line(split, row, _path(value), reason))
        images.append(image)
    return images


def damaged(dataset: Dataset, rows: Sequence[int], *, column: str = "image") -> Iterator[tuple[int, str, str]]:
    """Decode pictures one by one and yield those that cannot be read.

    Args:
        dataset: a split with a column of pictures.
        rows: row numbers.
        column: name of that column.

    Yields:
        Row, path (empty where the data set keeps none) and reason, on one line.
    """
    files = undecoded(dataset, column)
    for row in rows:
        value = files[int(row)][column]
        image, reason = _decoded(value)
        if image is None:
            yield int(row), _path(value), reason


def _path(value: Any) -> str:
    return str(value.get("path") or "") if isinstance(value, dict) else ""


def damage_line(split: str, row: int, path: str, reason: str) -> str:
    """The line about a picture that cannot be read."""
    place = f"row {row}" + (f" of {split}" if split else "") + (f", {path}," if path else "")
    return f"the picture in {place} cannot be read ({reason}); replace the file, or leave the row out"


def _decoded(value: Any) -> tuple[Image | None, str]:
    """A stored picture as RGB, or why it is none."""
    from PIL import Image

    try:
        if not isinstance(value, dict):
            return to_rgb(value), ""
        if value.get("bytes") is None and value.get("path") is None:
            return None, "it is empty"
        # Opened here, so that the file is closed even where it is damaged.
        source = BytesIO(value["bytes"]) if value.get("bytes") is not None else Path(value["path"]).open("rb")  # noqa: SIM115
        with source, Image.open(source) as image:
            image.load()
            return to_rgb(image), ""
    except damage() as error:
        # Pillow names the open file object, which says nothing to a reader.
        return None, " ".join(str(error).partition(" <_io")[0].split()) or type(error).__name__

"""Contact sheets: which training examples show the shortcut best, and their pictures or texts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SHEETS = {
    "conflicting": "Contact sheet of training images that go against the shortcut, the most certain ones first",
    "aligned": "Contact sheet of training images that go with the shortcut",
    "typical": "Contact sheet of typical training images of each class",
}
"""Kinds of sheets with the text that stands for them where no picture is shown."""
CELL = 112
COLUMNS = 6
MOST = 18
"""Examples of one kind."""
MOST_TEXT = 400
"""Characters of a text that are shown."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Example:
    """One training example of a sheet.

    Attributes:
        row: its position in the training set.
        label: its class.
        inferred: class whose attribute value it carries; equal to the label where aligned.
        confidence: of that, in [0, 1]; None where unknown.
        text: the text itself, or why there is no picture; None for a picture.
        picture: `CELL` pixels wide and high; None for a text.
    """

    row: int
    label: str
    inferred: str
    confidence: float | None = None
    text: str | None = None
    picture: Image.Image | None = None


def sheet_path(kind: str) -> str:
    """Where a sheet lies in the folder of a run."""
    return f"audit/contact_{kind}.png"


def choose(audit: Any, most: int = MOST, seed: int = 0) -> dict[str, list[Example]]:
    """The rows of each sheet, as many of every class as there is room for.

    Args:
        audit: an `Audit`.
        most: examples of one kind.
        seed: of the order among examples that are equally certain.

    Returns:
        "conflicting" (most certain first), "aligned" (most certain first) and "typical" (nearest to the middle of their
        class in the projection, else drawn at random); the first two only where a shortcut was found.
    """
    labels = _labels(audit)
    order = np.random.default_rng(seed).permutation(len(labels))
    certainty = np.asarray(audit.discovery.responsibilities_).max(axis=1)
    out: dict[str, list[Example]] = {}
    if audit.found:
        first = audit.conflicting.head(most).to_dict(orient="records")
        out["conflicting"] = [
            Example(int(r["row"]), str(r["label"]), str(r["inferred"]), float(r["confidence"])) for r in first
        ]
        moved = set(audit.conflicting["row"].tolist())
        aligned = [i for i in order[np.argsort(-certainty[order], kind="stable")] if i not in moved]
        out["aligned"] = _by_class(aligned, labels, certainty, most)
    out["typical"] = _by_class(_typical(audit, order), labels, None, most)
    return {kind: examples for kind, examples in out.items() if examples}


def _labels(audit: Any) -> list[str]:
    """Class of every training example as the audit names it: an aligned one carries its own class's value."""
    groups = np.asarray(audit.discovery.groups_)
    names = [str(c) for c in audit.discovery.classes_]
    if audit.projection is not None:
        for row, label in zip(audit.projection["row"], audit.projection["inferred"], strict=True):
            if groups[int(row)] < len(names):
                names[groups[int(row)]] = str(label)
    moved = {
        int(row): str(label) for row, label in zip(audit.conflicting["row"], audit.conflicting["label"], strict=True)
    }
    return [moved[i] if i in moved else names[group] for i, group in enumerate(groups)]


def _typical(audit: Any, order: Any) -> list[int]:
    points = audit.projection
    if points is None or not len(points):
        return [int(i) for i in order]
    axes = points[["class_axis", "attribute_axis"]]
    distance = (axes - axes.groupby(points["label"]).transform("median")).pow(2).sum(axis=1)
    return [int(row) for row in points["row"].iloc[np.argsort(distance.to_numpy(), kind="stable")]]


def _by_class(rows: Sequence[int], labels: Sequence[str], certainty: Any, most: int) -> list[Example]:
    """The first rows of every class, class by class."""
    by_class: dict[str, list[int]] = {label: [] for label in sorted({labels[i] for i in rows})}
    each = max(1, most // max(len(by_class), 1))
    for i in rows:
        if len(by_class[labels[i]]) < each:
            by_class[labels[i]].append(int(i))
    chosen = [i for part in by_class.values() for i in part][:most]
    return [Example(i, labels[i], labels[i], None if certainty is None else float(certainty[i])) for i in chosen]


def with_inputs(examples: Sequence[Example], inputs: Any) -> list[Example]:
    """The same examples with their picture or text.

    Args:
        examples: of one sheet.
        inputs: the training inputs by row: paths of images, images (Pillow or arrays), or texts; a list, a column of a
            data set, or a mapping of rows.

    Returns:
        What could be read; of a picture that could not, the reason stands in `text`.
    """
    from aifs_peft.data.images import damage

    out, broken = [], damage()
    for e in examples:
        value = inputs[e.row]
        if _is_text(value):
            text = str(value)
            out.append(_filled(e, text=text[:MOST_TEXT] + "…" * (len(text) > MOST_TEXT)))
            continue
        try:
            out.append(_filled(e, picture=_thumbnail(_opened(value))))
        except broken as error:
            out.append(_filled(e, text=f"no picture: {type(error).__name__}"))
    return out


def _is_text(value: Any) -> bool:
    """Whether an input is shown as it reads: a text, an identifier, a row of a table; not a picture or its path."""
    if isinstance(value, str):
        return not value.lower().endswith(_SUFFIXES)
    picture = isinstance(value, Path | Mapping) or hasattr(value, "getpixel")
    return not picture and np.ndim(value) not in (2, 3)


def _filled(example: Example, text: str | None = None, picture: Any = None) -> Example:
    return Example(example.row, example.label, example.inferred, example.confidence, text, picture)


def _opened(value: Any) -> Image.Image:
    """What the model sees of a path, a Pillow image, an array as `to_rgb` takes it, or a data set's dictionary."""
    import io

    from PIL import Image

    from aifs_peft.data.images import to_rgb

    if isinstance(value, Mapping):
        value = io.BytesIO(value["bytes"]) if value.get("bytes") is not None else value["path"]
    if isinstance(value, str | Path | io.BytesIO):
        with Image.open(value) as opened:
            opened.load()
            return to_rgb(opened)
    if isinstance(value, Image.Image):
        return to_rgb(value)
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] > 1 and array.dtype.kind in "iuf" and array.dtype != np.uint8:
        largest = 1 if array.dtype.kind == "f" and array.max(initial=0) <= 1 else 255
        array = np.clip(array, 0, largest)  # of pixels that a model was fed, some lie beyond
        array = array if largest == 1 else array.astype(np.uint8)
    return to_rgb(array)


def _thumbnail(image: Image.Image) -> Image.Image:
    """The whole picture within a square: enlarged or shrunk, never cut, small ones without blur."""
    from PIL import Image

    scale = CELL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    scaled = image.resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), (128, 128, 128))
    cell.paste(scaled, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def sheet(examples: Sequence[Example]) -> Image.Image:
    """The pictures of a sheet side by side, `COLUMNS` in a row, row by row."""
    from PIL import Image

    rows = -(-len(examples) // COLUMNS)
    out = Image.new("RGB", (COLUMNS * CELL, rows * CELL), (128, 128, 128))
    for place, example in enumerate(examples):
        if example.picture is not None:
            out.paste(example.picture, (place % COLUMNS * CELL, place // COLUMNS * CELL))
    return out


def cut(image: Image.Image, count: int) -> list[Image.Image]:
    """The first `count` pictures of what `sheet` made."""
    boxes = [(place % COLUMNS * CELL, place // COLUMNS * CELL) for place in range(count)]
    return [image.crop((x, y, x + CELL, y + CELL)) for x, y in boxes]

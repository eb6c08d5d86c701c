"""What the attribute's score reads in the examples of the contact sheets: written by the run, shown by the report.

The file holds maps and words. The pictures, as the model saw them, lie beside it in one sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft._plain import to_json
from aifs_peft._saved import read_json
from aifs_peft.report.contact import CELL, COLUMNS, Example, choose

if TYPE_CHECKING:
    from PIL import Image

    from aifs_peft.explain import Highlight

HIGHLIGHTS, PICTURES = "audit/highlights.json", "audit/highlights.png"
EACH = 6
"""Examples of a sheet that are highlighted."""
MOST_PIECES = 400


@dataclass(frozen=True)
class Shown:
    """One highlighted example.

    Attributes:
        row: its position in the training set.
        label: its class.
        inferred: class whose attribute value it carries.
        picture: the picture with its heat, `CELL` pixels on the longer side; None for a text.
        words: pieces of the text with their scores; empty for a picture.
    """

    row: int
    label: str
    inferred: str
    picture: Image.Image | None = None
    words: tuple[tuple[str, float], ...] = ()


def highlighted_rows(audit: Any) -> list[int]:
    """Rows to highlight: the first conflicting examples of the contact sheet, and as many aligned ones.

    Args:
        audit: an `Audit`.
    """
    return [example.row for example in _examples(audit)]


def _examples(audit: Any) -> list[Example]:
    if not audit.found:
        return []
    sheets = choose(audit)
    aligned = sheets.get("aligned", [])
    # Class by class on the sheet: every second or third one, so that each class is there.
    return [*sheets.get("conflicting", [])[:EACH], *aligned[:: max(1, -(-len(aligned) // EACH))][:EACH]]


def write_highlights(
    highlights: Sequence[Highlight], rows: Sequence[int], audit: Any, folder: str | Path
) -> list[Path]:
    """Write highlights into the folder of a run; none takes those of an earlier run away.

    Args:
        highlights: of the first of these rows, in order.
        rows: see `highlighted_rows`.
        audit: an `Audit`.
        folder: of the run.

    Returns:
        The files written.
    """
    from PIL import Image

    path = Path(folder)
    for name in (HIGHLIGHTS, PICTURES):
        (path / name).unlink(missing_ok=True)
    if not highlights:
        return []
    known = {example.row: example for example in _examples(audit)}
    records, sheet = [], Image.new("RGB", (COLUMNS * CELL, -(-len(highlights) // COLUMNS) * CELL), (128, 128, 128))
    for place, (row, highlight) in enumerate(zip(rows, highlights, strict=False)):
        record: dict[str, Any] = {"row": row, "label": known[row].label, "inferred": known[row].inferred}
        if highlight.picture is not None and highlight.patches is not None:
            size = _fitting(highlight.picture.shape)
            picture = Image.fromarray(highlight.picture).resize(size, Image.Resampling.BICUBIC)
            sheet.paste(picture, (place % COLUMNS * CELL, place // COLUMNS * CELL))
            record |= {"size": list(size), "patches": np.round(highlight.patches.astype(float), 5).tolist()}
        else:
            record["words"] = [[text, round(float(score), 5)] for text, score in highlight.words[:MOST_PIECES]]
        records.append(record)
    (path / HIGHLIGHTS).parent.mkdir(parents=True, exist_ok=True)
    (path / HIGHLIGHTS).write_text(to_json(records), encoding="utf-8")
    if not any("patches" in record for record in records):
        return [path / HIGHLIGHTS]
    sheet.save(path / PICTURES, optimize=True)
    return [path / HIGHLIGHTS, path / PICTURES]


def _fitting(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height within a cell."""
    scale = CELL / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def read_highlights(folder: str | Path) -> list[Shown]:
    """What `write_highlights` wrote, pictures with their heat; empty where the run has none.

    Args:
        folder: of the run.
    """
    path = Path(folder)
    if not (path / HIGHLIGHTS).is_file():
        return []
    records = read_json(path / HIGHLIGHTS)
    pictures = _pictures(path / PICTURES, records)
    return [
        Shown(
            int(record["row"]), str(record["label"]), str(record["inferred"]), picture,
            tuple((str(text), float(score)) for text, score in record.get("words") or ()),
        )
        for record, picture in zip(records, pictures, strict=True)
    ]  # fmt: skip


def _pictures(path: Path, records: Sequence[Mapping[str, Any]]) -> list[Image.Image | None]:
    from PIL import Image

    from aifs_peft.explain.render import overlay

    if not path.is_file():
        return [None] * len(records)
    with Image.open(path) as opened:
        sheet = opened.convert("RGB")
    out: list[Image.Image | None] = []
    for place, record in enumerate(records):
        if "patches" not in record:
            out.append(None)
            continue
        x, y = place % COLUMNS * CELL, place // COLUMNS * CELL
        width, height = record["size"]
        out.append(overlay(np.asarray(sheet.crop((x, y, x + width, y + height))), record["patches"], CELL))
    return out

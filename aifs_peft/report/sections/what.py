"""The section *What is it?*."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from aifs_peft.explain.render import levels
from aifs_peft.report.contact import Example
from aifs_peft.report.highlights import Shown
from aifs_peft.report.numbers import number, percent, value_of
from aifs_peft.report.plots import draw_associations, draw_projection, draw_words
from aifs_peft.report.plots.theme import short
from aifs_peft.report.record import conflicting_count, points
from aifs_peft.report.sections.run import Run, picture

MOST_COLUMNS = 10
MOST_WORDS = 10
MOST_ROWS = 12
"""Of the list of conflicting examples; the file beside the report holds all."""
MOST_CELLS = 12
MOST_TEXTS = 10
"""Of a sheet; they take more room than pictures."""
_SHEETS = {
    "conflicting": ("Go against the shortcut", "The most certain ones first: own class → class whose attribute value "
                    "they carry, and how certain that is."),
    "aligned": ("Go with the shortcut", "Some that carry their own class's attribute value."),
    "typical": ("Typical of each class", "Near the middle of their class."),
}  # fmt: skip
_MADE = (
    "What in these examples speaks for the attribute value that was read off them, by Integrated Gradients of the "
    "attribute's score in the encoder as it was before training. "
)
_OF_PICTURES = (
    "Counted from other pictures of the same class with another value; the strongest patch of each picture has the "
    "full colour, however weak it is. What is spread over a whole picture, as a background is, gives a spread map."
)
_OF_TEXTS = (
    "Counted from a text of neutral tokens; the strongest word of each text has the full colour, however weak it is. "
    "An attribute that lies in style, length or word order marks no single word."
)
_FIXED = ("row", "input", "label", "inferred", "confidence")


def what(run: Run) -> dict[str, Any] | None:
    """Projection, sheets, metadata, names, cells and the list of conflicting examples; None without an audit."""
    audit = run.audit
    if audit is None:
        return None
    figures = [f for f in (_projection(audit), _associations(audit), _words(audit)) if f]
    return {
        "found": bool(audit["found"]),
        "figures": figures,
        "shared": [f"{r['column']}: {r['shared']}" for r in audit.get("associations") or () if r.get("shared")][:3],
        "sheets": [sheet_view(kind, run.sheets[kind]) for kind in _SHEETS if run.sheets.get(kind)],
        "highlights": highlights_view(run.highlights),
        "groups": _groups(audit),
        "conflicting": conflicting_table(audit),
        "without_metadata": not audit.get("associations"),
    }


def _projection(audit: Any) -> dict[str, Any] | None:
    shown = points(audit)
    if not shown:
        return None
    found = bool(audit["found"])
    moved = sum(str(p["label"]) != str(p["inferred"]) for p in shown)
    return picture(
        "Latents along the class and along the attribute",
        f"{len(shown):,} examples, {moved:,} of them conflicting, which lie apart from their class along the attribute."
        if found else f"{len(shown):,} examples; no attribute was found.",
        3.4,
        lambda ax: draw_projection(ax, shown, found=found),
        "Each dot is a training example, placed by the encoder's latents." if found else
        "Each dot is a training example. The second axis is the strongest direction within the classes.",
        tall=True,
    )  # fmt: skip


def _associations(audit: Any) -> dict[str, Any] | None:
    rows = [row for row in audit.get("associations") or () if value_of(row.get("strength")) is not None]
    if not rows:
        return None
    shown = rows[:MOST_COLUMNS]
    beyond = [f"{short(row['column'], 60)} {number(row['strength'])}" for row in shown if row.get("significant")]
    more = f" {len(rows) - len(shown)} more columns are weaker." if len(rows) > len(shown) else ""
    return picture(
        "Columns of the metadata that go with the attribute",
        f"Beyond chance: {', '.join(beyond)}." if beyond else "No column goes beyond chance.",
        0.9 + 0.3 * len(shown),
        lambda ax: draw_associations(ax, shown),
        "Within each class. Orange: beyond chance after a correction for the number of columns." + more,
    )


def _words(audit: Any) -> dict[str, Any] | None:
    rows = (audit.get("names") or [])[:MOST_WORDS]
    if not rows:
        return None
    best = ", ".join(f"{short(row['word'], 60)} {number(row['score'], 1)}" for row in rows[:5])
    return picture(
        "Words that tell these examples from others of their class",
        f"Strongest words: {best}.",
        0.9 + 0.28 * len(rows),
        lambda ax: draw_words(ax, rows),
        "By the text side of the encoder. Orange: beyond what the best of as many random texts reaches.",
    )


def sheet_view(kind: str, examples: Sequence[Example]) -> dict[str, Any]:
    """A contact sheet as a template shows it: pictures as data, captions as text."""
    title, caption = _SHEETS[kind]
    cells = []
    texts = all(e.picture is None for e in examples)
    for e in examples[:MOST_TEXTS] if texts else examples:
        moved = e.label != e.inferred
        carries = f", carries the value of {e.inferred}" if moved else ""
        name = f"{e.label} → {e.inferred}" if moved else e.label
        sure = f" · {100 * e.confidence:.0f}\u00a0%" if e.confidence is not None and kind == "conflicting" else ""
        cells.append(
            {
                "image": _data_uri(e.picture) if e.picture is not None else None,
                "alt": f"Training example {e.row}, class {e.label}{carries}",
                "text": e.text, "name": name, "note": f"row {e.row}{sure}",
            }
        )  # fmt: skip
    pictures = any(cell["image"] for cell in cells)
    return {"kind": kind, "title": title, "caption": caption, "cells": cells, "pictures": pictures}


def highlights_view(shown: Sequence[Shown]) -> dict[str, Any] | None:
    """Highlighted examples as a template shows them: pictures as data, words with the strength of their mark."""
    if not shown:
        return None
    cells = []
    for e in shown:
        moved = e.label != e.inferred
        name = f"{e.label} \u2192 {e.inferred}" if moved else e.label
        strong = levels([score for _, score in e.words])
        cells.append(
            {
                "image": _data_uri(e.picture) if e.picture is not None else None,
                "alt": f"Training example {e.row}, class {e.label}; coloured: what speaks for {e.inferred}",
                "words": [(text, level) for (text, _), level in zip(e.words, strong, strict=True)],
                "name": name, "note": f"row {e.row}", "moved": moved,
            }
        )  # fmt: skip
    pictures = any(cell["image"] for cell in cells)
    return {"cells": cells, "pictures": pictures, "caption": _MADE + (_OF_PICTURES if pictures else _OF_TEXTS)}


def _data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _groups(audit: Any) -> dict[str, Any] | None:
    """Cells of label and inferred value, largest first; of many the conflicting ones alone."""
    rows = audit.get("groups") or []
    if not audit["found"] or not rows:
        return None
    many = len(rows) > MOST_CELLS
    out: list[dict[str, Any]] = [
        {"label": str(r["label"]), "inferred": str(r["inferred"]), "n": int(r["n"]), "share": percent(r.get("share")),
         "moved": str(r["label"]) != str(r["inferred"])}
        for r in rows
    ]  # fmt: skip
    shown = sorted((r for r in out if r["moved"] or not many), key=lambda row: row["n"], reverse=True)
    caption = "Training examples per label and inferred value; the marked ones conflict"
    if many:
        caption = f"The largest of {sum(r['moved'] for r in out):,} cells of conflicting training examples"
    return {"caption": caption, "rows": shown[:MOST_CELLS]}


def conflicting_table(audit: Any, most: int = MOST_ROWS) -> dict[str, Any] | None:
    """The first rows of the list of conflicting examples: header, rows as text, and how many there are."""
    rows = audit.get("conflicting") or []
    if not rows:
        return None
    known = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    # Columns of metadata that go with the attribute come first.
    strongest = [str(row["column"]) for row in audit.get("associations") or ()]
    others = sorted(
        (name for name in known if name not in _FIXED),
        key=lambda name: strongest.index(name) if name in strongest else len(strongest),
    )
    header = [name for name in _FIXED if name in known] + others[:4]
    table = [[_cell(name, row.get(name)) for name in header] for row in rows[:most]]
    return {"header": header, "rows": table, "total": conflicting_count(audit), "shown": len(table)}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "confidence":
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

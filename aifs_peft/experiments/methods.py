"""What the registered training methods say of themselves, as a table."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from aifs_peft.methods import get, names


def table() -> list[dict[str, Any]]:
    """One row per method, sorted by supervision and name.

    Returns:
        Dictionaries with `name`, `title`, `supervision` ("none", "hints" or "groups"), `needs` (a list of phrases),
        `paper`, `differs` (from the paper, in a few words), `latents` (whether `AIFSClassifier(recipe=name)` works),
        `cost` and `options` (names with defaults).

    Example:
        >>> next(row for row in table() if row["name"] == "erm")["latents"]
        True
    """
    rows = []
    for name in names():
        method = get(name)
        rows.append(
            {
                "name": name,
                "title": method.title,
                "supervision": method.supervision,
                "needs": list(method.needs),
                "paper": method.paper,
                "differs": method.differs,
                "latents": method.on_latents,
                "cost": method.cost,
                "options": {f.name: None if f.default is MISSING else f.default for f in fields(method.Options)},
            }
        )
    order = {"none": 0, "hints": 1, "groups": 2}
    return sorted(rows, key=lambda row: (order[row["supervision"]], row["name"]))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of `aifs methods` and of `docs/methods.md`."""
    columns = ("name", "method", "supervision", "needs", "on latents", "extra cost", "differs from the paper")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    supervision = {"none": "labels only", "hints": "hints", "groups": "**group labels (oracle)**"}
    for row in rows:
        cells = (
            f"`{row['name']}`",
            row["title"],
            supervision[row["supervision"]],
            "; ".join(row["needs"]) or "-",
            "yes" if row["latents"] else "no",
            row["cost"],
            row["differs"] or "-",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)

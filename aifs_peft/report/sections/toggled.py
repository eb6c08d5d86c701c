"""The section *What if?*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifs_peft.report.numbers import percent, value_of
from aifs_peft.report.plots import draw_toggled
from aifs_peft.report.plots.toggled import toggled_words
from aifs_peft.report.sections.run import Run, picture

MOST_ROWS = 12
MINUS = "\u2212"
_SIDES = (("plain", "plain training"), ("method", "this model"))


def what_if(run: Run) -> dict[str, Any] | None:
    """What the model predicts once the attribute's value is another one; None where the run has nothing to say."""
    told = run.what_if
    rows, examples = list(told.get("rows") or ()), list(told.get("examples") or ())
    given = [str(text) for text in told.get("sentences") or ()]
    if not rows and not examples and not given:
        return None
    sides = [side for side in _SIDES if rows and side[0] in rows[0]]
    return {
        "lead": (given or [_counted(examples)])[:1],
        "sentences": given[1:],
        "figure": _figure(rows, sides) if rows else None,
        "numbers": _numbers(rows, sides) if rows else None,
        "examples": _examples(examples) if examples else None,
        "more": len(examples) - min(len(examples), MOST_ROWS),
    }


def _counted(examples: Sequence[Mapping[str, Any]]) -> str:
    """Of a file that holds examples alone."""
    changed = sum(_changes(row) for row in examples)
    return (
        f"{changed:,} of {len(examples):,} predictions change when the attribute's value in the latents is changed "
        "and nothing else."
    )


def _changes(row: Mapping[str, Any], ending: str = "") -> bool:
    return str(row.get(f"predicted{ending}")) != str(row.get(f"predicted_toggled{ending}"))


def _figure(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return picture(
        "Predictions that change with the attribute",
        toggled_words(rows, sides),
        0.95 + 0.42 * len(rows),
        lambda ax: draw_toggled(ax, rows, sides),
        "The attribute's value in the latents is changed, and nothing else. A model that does not lean on it stays "
        "at 0 %.",
    )


def _numbers(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    table = []
    for row in rows:
        cells: list[Any] = [(str(row["cell"]), f"n = {row['n']:,}")]
        for key, _ in sides:
            side = row.get(key) or {}
            moved = value_of(side.get("moved"))
            points = "-" if moved is None else f"{100 * moved:+.1f}".replace("-", MINUS)
            cells.append((percent(side.get("changed")), f"{points} points"))
        table.append(cells)
    return {
        "caption": "Share of predictions that change; below it how far the probability of the true class moves",
        "header": ["test examples", *(name for _, name in sides)],
        "rows": table,
    }


def _examples(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    plain = "predicted_plain" in examples[0]
    endings = [*([("_plain", "plain training")] if plain else []), ("", "this model")]
    order = sorted(examples, key=lambda row: not any(_changes(row, ending) for ending, _ in endings))
    return {
        "caption": "Examples, those first whose prediction changes; in brackets the probability of the true class",
        "header": ["test row", "label", "attribute", *(name for _, name in endings)],
        "rows": [
            [f"{row['row']}", str(row["label"]), f"{row['inferred']} \u2192 {row['toggled_to']}",
             *(_step(row, ending) for ending, _ in endings)]
            for row in order[:MOST_ROWS]
        ],
    }  # fmt: skip


def _step(row: Mapping[str, Any], ending: str) -> str:
    before, after = (
        f"{row[f'predicted{state}{ending}']} ({percent(row.get(f'probability{state}{ending}'))})"
        for state in ("", "_toggled")
    )
    return f"{before} \u2192 {after}"

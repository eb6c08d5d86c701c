"""Mean and 95 % interval over seeds, for result files whose rows are named `.../SEED`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifs_peft.bench.statistics import mean_interval_of


def over_seeds(rows: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each number of each cell as mean, low and high; with one seed low and high are None.

    Args:
        rows: by name; what stands before the last `/` is the cell.
        names: of the numbers.
    """
    cells: dict[str, list[Mapping[str, float]]] = {}
    for key, row in rows.items():
        cells.setdefault(key.rsplit("/", 1)[0], []).append(row)
    return {cell: {"seeds": len(drawn), **{n: _mean(drawn, n) for n in names}} for cell, drawn in sorted(cells.items())}


def _mean(drawn: Sequence[Mapping[str, float]], name: str) -> list[float | None]:
    return [None if v is None else round(v, 4) for v in mean_interval_of([row[name] for row in drawn])]

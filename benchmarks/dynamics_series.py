"""Series of numbers, one for each epoch: when they have risen, when they stand still, tests over seeds, their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aifs_peft.bench.statistics import holm, paired

Series = dict[str, list[float | None]]
Pairs = Mapping[str, tuple[list[float], list[float]]]
# A mask has converged from the update on after which none moves more than this share of it.
STILL = 0.01


def half_time(values: list[float | None], share: float = 0.5) -> float:
    """Epochs until a series first has this share of its last value, between epochs on a straight line."""
    series = np.abs(np.asarray(values, dtype=float))
    goal = share * series[-1]
    after = int(np.argmax(series >= goal))
    if after == 0:
        return 0.0
    before = series[after - 1]
    return float(after - 1 + (goal - before) / (series[after] - before))


def converged(changes: list[float | None]) -> int | None:
    """The epoch from which on no update moves more than STILL of the mask; None where the last one does."""
    moving = [epoch for epoch, change in enumerate(changes) if change is None or change > STILL]
    first = (max(moving) + 1) if moving else 0
    return first if first < len(changes) else None


def tested(asked: Mapping[str, Pairs]) -> list[dict[str, Any]]:
    """A paired test over seeds of each question of each case, corrected for all of them together.

    Args:
        asked: pairs of numbers over seeds, by case and name of the question.
    """
    tests: list[dict[str, Any]] = []
    for case, pairs in asked.items():
        for name, (a, b) in pairs.items():
            mean, low, high, p = paired(a, b)
            tests.append({"case": case, "question": name, "first": float(np.mean(a)), "second": float(np.mean(b)),
                          "difference": mean, "low": low, "high": high, "p": p, "seeds": len(a)})  # fmt: skip
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["corrected"] = p
    return [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in t.items()} for t in tests]


def save(record: dict[str, Any], path: Path) -> None:
    """Write the record, a series in one line."""
    text = json.dumps(record, indent=1)
    lists = json.JSONDecoder()
    out, place = [], 0
    while (start := text.find("[", place)) >= 0:
        content, end = lists.raw_decode(text, start)
        plain = all(not isinstance(v, dict | list) for v in content)
        out.append(text[place:start] + (json.dumps(content) if plain else "["))
        place = end if plain else start + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([*out, text[place:]]) + "\n")

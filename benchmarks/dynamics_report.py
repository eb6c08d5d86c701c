"""Words, tables and tests of a result of training dynamics, for render_dynamics.py."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.metrics.intervals import mean_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LEVEL = 0.05
Record = dict[str, Any]


def result(name: str) -> dict[str, Any]:
    """A committed result file."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(values: NDArray[np.float64], digits: int = 2) -> str:
    """Mean and half of the 95 % interval over seeds."""
    found = mean_interval(values)
    return f"{found.mean:.{digits}f} ± {found.high - found.mean:.{digits}f}"


def cases(record: Record) -> list[str]:
    """Those that are complete, in the order of the file."""
    return list(dict.fromkeys(test["case"] for test in record["tests"]))


def pair_of(record: Record, case: str, question: str) -> dict[str, Any]:
    """One test of the file."""
    (found,) = [t for t in record["tests"] if (t["case"], t["question"]) == (case, question)]
    return dict(found)


def p_value(p: float) -> str:
    """A corrected p-value in words of the table."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def answer(record: Record, question: str, more: str, less: str) -> str:
    """In which cases a difference is above or below 0 beyond chance, in words.

    Args:
        record: content of the result file.
        question: name of the test.
        more: said of a difference above 0.
        less: said of one below.
    """
    tests = [pair_of(record, case, question) for case in cases(record)]
    above = [t["case"] for t in tests if t["corrected"] < LEVEL and t["difference"] > 0]
    below = [t["case"] for t in tests if t["corrected"] < LEVEL and t["difference"] < 0]
    rest = [t["case"] for t in tests if t["corrected"] >= LEVEL]
    everything = [t["case"] for t in tests]
    found = [(more, above), (less, below), ("no difference beyond chance", rest)]
    if len(everything) == 1:
        return next(words for words, names in found if names)
    return "; ".join(f"{words} on {listed(names, everything)}" for words, names in found if names)


def listed(names: Sequence[str], everything: Sequence[str] = ()) -> str:
    """Names in a sentence."""
    if len(names) > 1 and set(names) == set(everything):
        return "all of them"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def span(values: Sequence[float], digits: int = 1) -> str:
    """The smallest and the largest, or the one value.

    Args:
        values: at least one.
        digits: after the point.
    """
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def tests_table(record: Record, names: Mapping[str, str]) -> str:
    """The pairs behind the answers.

    Args:
        record: content of the result file.
        names: what is compared, by name of the question; one that begins with "log" compares by a ratio.
    """
    rows = []
    for name, words in names.items():
        for case in cases(record):
            t = pair_of(record, case, name)
            values = [t[key] for key in ("first", "second", "difference", "low", "high")]
            sign = "+"
            if name.startswith("log"):
                values, sign = [math.exp(v) for v in values], ""
            first, second, difference, low, high = values
            told = f"{difference:{sign}.2f} ({low:.2f} to {high:.2f})" + " times" * name.startswith("log")
            rows.append([words, case, f"{first:.2f}, {second:.2f}", told, p_value(t["corrected"])])
    return table(["", "data", "means", "difference, or ratio (95 %)", "p"], rows)

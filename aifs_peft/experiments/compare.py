"""Several methods over several seeds with one budget: the table of `make demo` and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aifs_peft.metrics import mean_interval

BASELINE = "erm"


@dataclass(frozen=True)
class Row:
    """One method's line: means over seeds with their Student-t intervals, and its time against ERM."""

    method: str
    average: float
    worst: float
    worst_low: float
    worst_high: float
    cost: float


def summarise(dataset: str, seeds: Sequence[int], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Collect run summaries (one list per method, in seed order) into the demo's `summary.json`.

    Example:
        >>> run = {"metrics": {"worst_group_accuracy": 0.5, "average_accuracy": 0.75}, "seconds": 2.0}
        >>> summarise("toy", [0], {"erm": [run]})["methods"]["erm"]["worst_group_accuracy"]
        {'mean': 0.5, 'per_seed': [0.5]}
    """

    def values(summaries: list[dict[str, Any]], name: str) -> dict[str, Any]:
        per_seed = [_number(summary["metrics"][name]) for summary in summaries]
        return {"mean": float(np.mean(per_seed)), "per_seed": per_seed}

    methods = {
        method: {
            "worst_group_accuracy": values(summaries, "worst_group_accuracy"),
            "average_accuracy": values(summaries, "average_accuracy"),
            "seconds": float(np.sum([summary["seconds"] for summary in summaries])),
        }
        for method, summaries in runs.items()
    }
    return {"dataset": dataset, "seeds": list(seeds), "methods": methods}


def _number(metric: Any) -> float:
    """A metric's value, whether it comes alone or with its interval."""
    return float(metric["value"] if isinstance(metric, dict) else metric)


def rows(summary: dict[str, Any], confidence: float = 0.95) -> list[Row]:
    """The table's rows, in the order the methods ran; cost is total seconds over ERM's (NaN without ERM)."""
    methods = summary["methods"]
    base = methods.get(BASELINE, {}).get("seconds", float("nan"))
    table = []
    for name, entry in methods.items():
        per_seed = entry["worst_group_accuracy"]["per_seed"]
        _, low, high = mean_interval(per_seed, confidence)  # NaN bounds for a single seed
        table.append(
            Row(
                name,
                entry["average_accuracy"]["mean"],
                entry["worst_group_accuracy"]["mean"],
                float(np.clip(low, 0, 1)),
                float(np.clip(high, 0, 1)),
                entry["seconds"] / base,
            )
        )
    return table


def markdown_table(summary: dict[str, Any]) -> str:
    """The comparison as a Markdown table; the README's table is made by this function."""
    seeds = len(summary["seeds"])
    lines = [
        f"| method | average accuracy | worst-group accuracy | 95 % interval ({seeds} seeds) | time / ERM |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows(summary):
        interval = "-" if np.isnan(row.worst_low) else f"{row.worst_low:.3f} to {row.worst_high:.3f}"
        lines.append(f"| `{row.method}` | {row.average:.3f} | {row.worst:.3f} | {interval} | {row.cost:.2f} |")
    return "\n".join(lines)

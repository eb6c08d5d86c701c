"""A result as plain text."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from aifs_peft.errors import InvalidInputError


def format_group_table(result: Mapping[str, Any]) -> str:
    """Aligned plain-text table: group, n and accuracy with its interval; the worst group is marked.

    Args:
        result: what `group_metrics` or `GroupMetricAccumulator.compute` returned.

    Returns:
        Lines joined by newlines, without one at the end: a header, a row per group, a rule, and the averages;
        empty, small and worst groups are marked.

    Raises:
        InvalidInputError: the result lacks `groups` or another key of `group_metrics`.

    Example:
        >>> from aifs_peft.metrics import group_metrics
        >>> y = [0] * 40 + [1] * 40
        >>> print(format_group_table(group_metrics(y, [0] * 76 + [1] * 4, y)))
        group         n  accuracy  95% interval
        0            40     1.000  [0.912, 1.000]
        1            40     0.100  [0.028, 0.237]  worst
        ------------------------------------------------
        average      80     0.550  [0.435, 0.662]
        worst group         0.100  [0.028, 0.257]
    """
    try:
        groups, level = result["groups"], result["confidence"]
        rows = [("group", "n", "accuracy", f"{100 * level:g}% interval", "")]
        for name, entry in groups.items():
            marks = ["empty"] * (entry["n"] == 0) + ["small"] * (entry["n"] > 0 and entry["small"])
            marks += ["worst"] * (name == result["worst_group"])
            rows.append(_row(name, entry["n"], entry["accuracy"], entry["accuracy_interval"], ", ".join(marks)))
        footer = [_row("average", result["n"], result["average_accuracy"], result["average_accuracy_interval"])]
        if not isnan(result["adjusted_average_accuracy"]):
            key = "adjusted_average_accuracy"
            footer.append(_row("adjusted average", "", result[key], result[f"{key}_interval"]))
        footer.append(_row("worst group", "", result["worst_group_accuracy"], result["worst_group_accuracy_interval"]))
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"not a result of group_metrics ({type(error).__name__}: {error}); pass the dictionary it returns"
        raise InvalidInputError(msg) from error
    widths = [max(len(row[column]) for row in rows + footer) for column in range(4)]
    lines = [_line(row, widths) for row in rows]
    lines.append("-" * max(map(len, lines)))
    lines += [_line(row, widths) for row in footer]
    return "\n".join(lines)


def _row(
    name: str, n: int | str, value: float, interval: list[float], marks: str = ""
) -> tuple[str, str, str, str, str]:
    low, high = interval
    bounds = "-" if isnan(low) else f"[{low:.3f}, {high:.3f}]"
    return name, f"{n:,}" if isinstance(n, int) else n, "-" if isnan(value) else f"{value:.3f}", bounds, marks


def _line(row: tuple[str, str, str, str, str], widths: list[int]) -> str:
    name, n, value, bounds, marks = row
    cells = (
        name.ljust(widths[0]),
        n.rjust(widths[1]),
        value.rjust(widths[2]),
        bounds.ljust(widths[3]),
        marks,
    )
    return "  ".join(cells).rstrip()

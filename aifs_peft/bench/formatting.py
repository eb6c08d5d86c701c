"""How numbers, names and tables are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aifs_peft.bench.statistics import LEVEL, Comparison

DASH = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table.

    Args:
        head: headings.
        rows: cells.
        texts: how many columns from the left are words; the others are numbers.

    Example:
        >>> print(table(["name", "n"], [["a", "1"]]))
        | name | n |
        |---|---:|
        | a | 1 |
    """
    rule = "|" + "---|" * texts + "---:|" * (len(head) - texts)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in rows)])


def percent(mean: float, high: float | None = None) -> str:
    """A share in percent, with half its interval.

    Args:
        mean: of seeds.
        high: upper end of its interval; None with one seed.

    Example:
        >>> percent(0.776, 0.7862), percent(0.5)
        ('77.6 ± 1.0', '50.0')
    """
    return f"{100 * mean:.1f}" + ("" if high is None else f" ± {100 * (high - mean):.1f}")


def points(mean: float, low: float | None = None, high: float | None = None) -> str:
    """A difference in points, with half its interval.

    Args:
        mean: of pairs.
        low: of its interval; None with one pair.
        high: of the same.

    Example:
        >>> points(0.123, 0.1, 0.146), points(-0.0004)
        ('+12.3 ± 2.3', '+0.0')
    """
    half = "" if low is None or high is None else f" ± {100 * (high - low) / 2:.1f}"
    return f"{_signed(100 * mean)}{half}"


def difference(comparison: Comparison) -> str:
    """The difference of a comparison, bold where it is there after the correction.

    Args:
        comparison: of `aifs_peft.bench.statistics.compare`.
    """
    text = points(comparison.difference, comparison.low, comparison.high)
    return f"**{text}**" if differs(comparison) else text


def differs(comparison: Comparison) -> bool:
    """Whether the two methods differ at 5 % after the correction for many comparisons.

    Args:
        comparison: of `aifs_peft.bench.statistics.compare`.
    """
    return comparison.corrected is not None and comparison.corrected < LEVEL


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    Args:
        names: at least one.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(value: float) -> str:
    """One digit after the point, and no minus before a zero."""
    text = f"{value:+.1f}"
    return "+0.0" if text == "-0.0" else text

"""What the examples that carry another class's attribute share: their association with columns of metadata.

The question is asked within each class, because a column may go with the label for reasons of its own: among examples
of one label, does the column differ between those that carry one inferred attribute value and those that carry another?
The strength is Cramer's V of a category, and the correlation ratio of the ranks of numbers (the square root of the
Kruskal-Wallis statistic over its largest value); squares are averaged over the classes, weighted by their sizes. The
null is that of permuting the inferred values within each class. Over many columns p-values are corrected by Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from aifs_peft.audit.columns import Column

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Permutations of every column. A column that hardly any of them reaches gets more, so that Holm's correction over many
# columns can still be met: the smallest p-value is 1 / (draws + 1).
DRAWS = 999
DRAWS_PER_COLUMN = 40
OPEN_EXCEEDANCES = 10
# More rows change the numbers little and cost time; a random sample of this many is taken.
MAX_ROWS = 20_000
LEVEL = 0.05
# Examples with another class's value that are described in words; of fewer a share says little.
MIN_DESCRIBED = 5
# Numbers held at once while permuting.
_CHUNK = 20_000_000
FIELDS = (
    "column", "kind", "strength", "null_high", "p_value", "p_adjusted", "significant",
    "conflicting", "conflicting_p_adjusted", "with_label", "shared", "note",
)  # fmt: skip


def associations(
    columns: Sequence[Column], y: IntArray, inferred: IntArray, value_names: Sequence[str], *, rng: np.random.Generator
) -> pd.DataFrame:
    """Association of every column with the inferred attribute value within classes, strongest first.

    Args:
        columns: see `read_columns`, of `n` examples.
        y: class of each example, `(n,)`.
        inferred: attribute value of each, `(n,)`; equal to `y` where aligned. Where all are aligned nothing can be
            compared, and only `with_label` is told.
        value_names: names of the attribute's values.
        rng: source of the permutations.

    Returns:
        One row per column: `column`, `kind` (`"categorical"`, `"numeric"`, `"skipped"`), `strength` in [0, 1] and
        what 95 % of the permutations stay below (`null_high`), `p_value`, `p_adjusted` (Holm), `significant`
        (`p_adjusted` below 0.05); the same for being conflicting at all (`conflicting`, `conflicting_p_adjusted`; no
        other question where there are two values); `with_label`, the association with the label; `shared`, in words;
        `note`. NaN where something is not defined.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(400) % 2; a = np.where(np.arange(400) < 40, 1 - y, y)
        >>> table = associations([Column("site", ("A", "B"), a)], y, a, ["cat", "dog"], rng=rng)
        >>> round(float(table.strength[0]), 6), bool(table.significant[0]), table.shared[0]
        (1.0, True, "A: 100 % (aligned: 0 %) where the inferred value is 'cat'")
    """
    testable = [column for column in columns if column.testable]
    rows = np.arange(len(y)) if len(y) <= MAX_ROWS else np.sort(rng.choice(len(y), MAX_ROWS, replace=False))
    strata = [rows[y[rows] == c] for c in np.unique(y)]
    conflicting = (inferred != y).astype(np.int64)
    found = _tested(testable, strata, inferred, rng)
    two_values = all(len(np.unique(inferred[part])) <= 2 for part in strata)
    flagged = found if two_values else _tested(testable, strata, conflicting, rng)
    table, place = [], {column.name: i for i, column in enumerate(testable)}
    for column in columns:
        row: dict[str, Any] = dict.fromkeys(FIELDS, np.nan)
        row |= {"column": column.name, "kind": column.kind, "significant": False, "shared": "", "note": column.note}
        if column.testable:
            i = place[column.name]
            row |= {name: float(values[i]) for name, values in found.items()}
            row |= {"conflicting": flagged["strength"][i], "conflicting_p_adjusted": flagged["p_adjusted"][i]}
            row["significant"] = bool(row["p_adjusted"] < LEVEL)
            row["with_label"] = label_association(column, y)
            row["shared"] = shared(column, y, inferred, value_names) if row["significant"] else ""
            if np.isnan(row["strength"]) and conflicting.any():
                row["note"] = "; ".join(filter(None, [column.note, "one value only within each class"]))
        table.append(row)
    frame = pd.DataFrame(table, columns=list(FIELDS)).astype({"significant": bool})
    order = ["significant", "strength", "with_label"]
    return frame.sort_values(order, ascending=False, kind="stable", na_position="last").reset_index(drop=True)


@dataclass(frozen=True)
class _Stratum:
    """Examples of one class: their groups, and the columns as vectors whose sums over groups give the statistic.

    A number is its centred rank, scaled to length one. A value of a category is its centred indicator over the root of
    its share. For both, the squared sums over a group, divided by the group's size and added up, are a statistic
    without group: the correlation ratio, and chi-square.
    """

    groups: IntArray
    sizes: Array
    vectors: list[Array]
    norms: Array

    def squared(self, sums: list[Array]) -> Array:
        """Squared strengths `(draws, columns)`, 0 where undefined, from sums over groups `(A, draws, width)` each."""
        each = [np.sum(part**2 / self.sizes[:, None, None], axis=(0, 2)) for part in sums]
        return np.stack(each, axis=1) / np.where(self.norms > 0, self.norms, np.inf)

    def observed(self) -> Array:
        """Squared strengths of the groups as they are, `(1, columns)`."""
        return self.squared([self._sums(self.groups[None], vectors) for vectors in self.vectors])

    def permuted(self, draws: int, rng: np.random.Generator) -> Array:
        """Squared strengths of permuted groups, `(draws, columns)`."""
        step = max(1, _CHUNK // max(len(self.groups) * len(self.sizes), 1))
        parts = []
        for start in range(0, draws, step):
            many = np.tile(self.groups, (min(step, draws - start), 1))
            shuffled = rng.permuted(many, axis=1)
            parts.append(self.squared([self._sums(shuffled, vectors) for vectors in self.vectors]))
        return np.concatenate(parts)

    def _sums(self, groups: IntArray, vectors: Array) -> Array:
        """Sums over each group, `(A, draws, width)`, of `vectors (n, width)` by `groups (draws, n)`."""
        return np.stack([(groups == a).astype(np.float32) @ vectors for a in range(len(self.sizes))])


def _stratum(columns: Sequence[Column], rows: IntArray, groups: IntArray) -> _Stratum:
    codes, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)[1:]
    n = len(rows)
    vectors: list[Array] = []
    norms: list[float] = []
    for column in columns:
        if column.codes is not None:
            counts = np.bincount(column.codes[rows], minlength=len(column.levels)).astype(np.float64)
            levels = np.flatnonzero(counts)
            indicator = (column.codes[rows][:, None] == levels) - counts[levels] / n
            vectors.append(indicator * np.sqrt(n / counts[levels]))
            norms.append(n * min(len(sizes) - 1, len(levels) - 1))
        else:
            assert column.numbers is not None  # noqa: S101 - a testable column has codes or numbers
            ranks = stats.rankdata(column.numbers[rows])
            ranks -= ranks.mean()
            length = float(np.linalg.norm(ranks))
            vectors.append((ranks / max(length, 1e-300))[:, None])
            norms.append(float(length > 0.0))
    return _Stratum(
        np.asarray(codes, dtype=np.int16), sizes.astype(np.float32), [v.astype(np.float32) for v in vectors],
        np.asarray(norms, dtype=np.float64),
    )  # fmt: skip


def _pooled(squares: Sequence[Array], strata: Sequence[_Stratum]) -> Array:
    """Root of the squares averaged over the strata in which a column is defined; NaN where it is in none."""
    weights = np.stack([len(s.groups) * (s.norms > 0) for s in strata]).astype(np.float64)
    total = weights.sum(axis=0)
    mean = sum(w * square for w, square in zip(weights, squares, strict=True)) / np.where(total > 0, total, np.nan)
    return np.asarray(np.sqrt(mean))


def _tested(
    columns: Sequence[Column], strata: Sequence[IntArray], groups: IntArray, rng: np.random.Generator
) -> dict[str, Array]:
    """Strength, upper end of what chance gives, p-value and Holm's p-value of each column, each `(columns,)`."""
    compared = [rows for rows in strata if len(np.unique(groups[rows])) > 1]
    m = len(columns)
    if not compared or not m:
        return dict.fromkeys(("strength", "null_high", "p_value", "p_adjusted"), np.full(m, np.nan))

    def null(of: Sequence[Column]) -> Array:
        parts = [_stratum(of, rows, groups) for rows in compared]
        return _pooled([part.permuted(DRAWS, rng) for part in parts], parts)

    parts = [_stratum(columns, rows, groups) for rows in compared]
    observed = _pooled([part.observed() for part in parts], parts)[0]
    # Sums in single precision: what equals the observed value up to rounding counts as reaching it.
    reached = observed * (1.0 - 1e-5)
    first = null(columns)
    exceed, draws = (first >= reached).sum(axis=0), np.full(m, DRAWS)
    most = max(DRAWS, DRAWS_PER_COLUMN * m)
    while True:
        still = np.flatnonzero((exceed < OPEN_EXCEEDANCES) & (draws < most) & np.isfinite(observed))
        if not len(still):
            break
        exceed[still] += (null([columns[i] for i in still.tolist()]) >= reached[still]).sum(axis=0)
        draws[still] += DRAWS
    p = np.where(np.isfinite(observed), (1.0 + exceed) / (1.0 + draws), np.nan)
    # One-sided, as the p-value: a column that is beyond chance by itself or by Holm is above this number, too.
    high = np.quantile(first, 1.0 - LEVEL, axis=0)
    return {"strength": observed, "null_high": high, "p_value": p, "p_adjusted": holm(p)}


def holm(p: Array) -> Array:
    """Holm's step-down correction of p-values `(m,)`; NaN is no test, and stays.

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(2).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * (len(order) - np.arange(len(order)))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return out


def label_association(column: Column, y: IntArray) -> float:
    """Cramer's V of a category with the label, or the correlation ratio of the ranks of numbers; in [0, 1].

    Args:
        column: testable.
        y: class of each example, `(n,)`.

    Example:
        >>> label_association(Column("site", ("A", "B"), np.array([0, 1, 0, 1])), np.array([0, 1, 0, 1]))
        1.0
    """
    if column.codes is not None:
        table = np.zeros((int(y.max()) + 1, len(column.levels)))
        np.add.at(table, (y, column.codes), 1)
        table = table[table.sum(axis=1) > 0]
        return float(stats.contingency.association(table.astype(np.int64), method="cramer"))
    ranks = stats.rankdata(column.numbers)
    ranks -= ranks.mean()
    counts = np.bincount(y)
    between = np.bincount(y, ranks)[counts > 0] ** 2 / counts[counts > 0]
    return float(np.sqrt(between.sum() / np.sum(ranks**2)))


def shared(column: Column, y: IntArray, inferred: IntArray, value_names: Sequence[str]) -> str:
    """What sets examples of one inferred value apart from aligned ones of the same classes, in words.

    Args:
        column: testable.
        y: class of each example, `(n,)`.
        inferred: attribute value of each, `(n,)`.
        value_names: names of the values.

    Returns:
        The value of a category with the largest difference in share, or the two medians of numbers whose ranks differ
        most; empty where too few conflict.
    """
    best, text = 0.0, ""
    for a in np.unique(inferred[inferred != y]):
        moved = (inferred == a) & (y != a)
        if np.count_nonzero(moved) < MIN_DESCRIBED:
            continue
        # Aligned examples, weighted so that each label counts as it does among the moved ones.
        labels = np.bincount(y[moved], minlength=int(y.max()) + 1).astype(np.float64)
        aligned = (inferred == y) & (labels[y] > 0)
        weight = (labels / np.maximum(np.bincount(y[aligned], minlength=len(labels)), 1))[y[aligned]]
        where = f"where the inferred value is {str(value_names[a])!r}"
        if column.codes is not None:
            here = np.bincount(column.codes[moved], minlength=len(column.levels)) / np.count_nonzero(moved)
            there = np.bincount(column.codes[aligned], weight, len(column.levels)) / max(weight.sum(), 1e-12)
            level = int(np.argmax(here - there))
            difference = float(here[level] - there[level])
            words = f"{column.levels[level]}: {here[level]:.0%} (aligned: {there[level]:.0%}) {where}"
        else:
            assert column.numbers is not None  # noqa: S101 - a testable column has codes or numbers
            scale = max(float(column.numbers.std()), 1e-300)
            medians = float(np.median(column.numbers[moved])), _median(column.numbers[aligned], weight)
            difference = abs(medians[0] - medians[1]) / scale
            words = f"median {medians[0]:.4g} (aligned: {medians[1]:.4g}) {where}"
        if difference > best:
            best, text = difference, words.replace("%", " %")
    return text


def _median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])]) if len(values) else float("nan")

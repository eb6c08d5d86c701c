"""Before and after: plain training and a method on the same held-out examples, cell by cell.

A cell is a combination of label and attribute value, where the data set says which value each example has; else of
label and inferred value. An example is *aligned* when its attribute value is one that goes with its label in the
training set, and *conflicting* when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aifs_peft.data import group_array
from aifs_peft.data.groups import find_spec
from aifs_peft.experiments.prepare import group_names, label_names
from aifs_peft.metrics.intervals import clopper_pearson, minimum_interval

if TYPE_CHECKING:
    from datasets import Dataset

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
CONFIDENCE = 0.95
# Cells with fewer test examples are named: their accuracy says little.
SMALL = 10
# An attribute whose tie to the label could be chance (chi-squared test on the training set) makes nothing conflicting.
LEVEL = 0.01
# "The test set has the shortcut in it": the aligned share lies this far on the way from independence to always.
SHARED = 0.2
BY_DESIGN = (
    "the average falls by design: this test set has the shortcut in it ({share:.0%} of its examples are aligned, "
    "{expected:.0%} would be if attribute and label were independent)"
)
REWARDED = (
    "this test set has the shortcut in it ({share:.0%} of its examples are aligned, {expected:.0%} would be if "
    "attribute and label were independent): its average rewards leaning on it"
)
TOO_FEW = "under {small} test examples, too few to say much: {cells}"
INFERRED = (
    "no attribute was given: the test examples were sorted by what was discovered in the training set, so aligned and "
    "conflicting are inferred here"
)


@dataclass(frozen=True)
class Cells:
    """Which cell each held-out example lies in.

    Args:
        source: "attribute" (label x a known attribute), "groups" (groups of the data set), "inferred" or "classes".
        names: of the cells.
        members: `(n, cells)` bool; groups may overlap.
        aligned: `(n,)` bool; None where nothing ties an attribute to the label.
        known: `(n,)` bool, for which examples `aligned` says something.
        expected: aligned share if attribute and label were independent in these examples; NaN without `aligned`.
        goes_with: the class that each attribute value goes with in the training set, by name; empty where unknown.
    """

    source: str
    names: tuple[str, ...]
    members: Bools
    aligned: Bools | None = None
    known: Bools | None = None
    expected: float = float("nan")
    goes_with: Mapping[str, str] = field(default_factory=dict)


def goes_with(values: Ints, labels: Ints, num_values: int, num_classes: int) -> Ints | None:
    """The class that each attribute value goes with: the one it makes likeliest, beside the class's own share.

    Args:
        values: attribute values of training examples, `(n,)`.
        labels: their labels, `(n,)`.
        num_values: number of attribute values.
        num_classes: number of classes.

    Returns:
        `(num_values,)` classes, -1 for a value that does not occur; None where the tie could be chance.

    Example:
        >>> values, labels = np.array([0] * 20 + [1] * 20), np.array([1] * 18 + [0] * 20 + [1] * 2)
        >>> goes_with(values, labels, 3, 2)
        array([ 1,  0, -1])
    """
    table = np.zeros((num_values, num_classes))
    np.add.at(table, (values, labels), 1.0)
    rows, columns = table.sum(1) > 0, table.sum(0) > 0
    if rows.sum() < 2 or columns.sum() < 2:
        return None
    if stats.chi2_contingency(table[rows][:, columns]).pvalue >= LEVEL:
        return None
    shares = table.sum(0) / table.sum()
    lift = np.divide(table, shares[None, :] * table.sum(1, keepdims=True), out=np.zeros_like(table), where=table > 0)
    return np.where(rows, lift.argmax(axis=1), -1).astype(np.int64)


def cells_of_groups(test: Dataset, train: Dataset | Mapping[str, str]) -> Cells | None:
    """The cells that a data set names itself.

    Args:
        test: held-out examples.
        train: training examples, which say what goes with what; or that itself, as `Cells.goes_with`.

    Returns:
        None where the set has no `group` column.
    """
    if "group" not in test.column_names:
        return None
    spec, classes = find_spec(test), label_names(test)
    groups, labels = group_array(test), np.asarray(test["label"][:], dtype=np.int64)
    if groups.ndim == 2:
        names = spec.names if spec is not None else tuple(group_names(test))
        return Cells("groups", tuple(names), groups.astype(bool))
    attributes = tuple(spec.attributes if spec is not None else group_names(test))
    # A group of -1 says that the attribute is missing.
    values = groups if spec is None else np.where(groups < 0, -1, spec.attribute_of(groups))
    if isinstance(train, Mapping):
        number = {name: i for i, name in enumerate(classes)}
        owner = np.array([number.get(train.get(name, ""), -1) for name in attributes]) if train else None
        nested = not train
    else:
        others, other_labels = group_array(train), np.asarray(train["label"][:], dtype=np.int64)
        other_values = others if spec is None else np.where(others < 0, -1, spec.attribute_of(others))
        given = other_values >= 0
        owner = goes_with(other_values[given], other_labels[given], len(attributes), len(classes))
        nested = all(len(np.unique(other_labels[others == group])) <= 1 for group in range(len(attributes)))
    if spec is None and nested:  # each group lies in one class: it is a cell, and what its attribute is stays unknown
        return Cells("groups", attributes, groups[:, None] == np.arange(len(attributes))[None, :])
    return _cells("groups" if spec is None else "attribute", labels, values, owner, classes, attributes)


def _cells(
    source: str, labels: Ints, values: Ints, owner: Ints | None, classes: Sequence[str], attributes: Sequence[str]
) -> Cells:
    """The cells of label and attribute value (-1: missing); `owner` is the class that each value goes with."""
    names = tuple(f"{label} x {value}" for label in classes for value in attributes)
    cell = np.where(values >= 0, labels * len(attributes) + values, -1)
    members = cell[:, None] == np.arange(len(names))[None, :]
    if owner is None:
        return Cells(source, names, members)
    known = (values >= 0) & (owner[values] >= 0)
    named = {value: classes[k] for value, k in zip(attributes, owner.tolist(), strict=True) if k >= 0}
    expected = _expected(labels, values, owner, known)
    return Cells(source, names, members, owner[values] == labels, known, expected, named)


def _expected(labels: Ints, values: Ints, owner: Ints, known: Bools) -> float:
    if not known.any():
        return float("nan")
    y, a = labels[known], owner[values][known]
    number = int(max(y.max(), a.max())) + 1
    return float((np.bincount(y, minlength=number) / len(y)) @ (np.bincount(a, minlength=number) / len(a)))


def cells_of_inferred(labels: Ints, values: Ints, classes: Sequence[str]) -> Cells:
    """The cells of label and inferred attribute value.

    Args:
        labels: `(n,)`.
        values: inferred, `(n,)`; value `k` below the number of classes is the one that goes with class `k`, and of
            several attributes the first of all go with it.
        classes: names of the classes.

    Returns:
        One cell per label for the aligned examples, and one for the conflicting ones.

    Example:
        >>> cells_of_inferred(np.array([0, 1]), np.array([0, 0]), ["cat", "dog"]).names[:2]
        ('cat, aligned', 'cat, conflicting')
    """
    aligned = values == labels
    names = tuple(f"{name}, {kind}" for name in classes for kind in ("aligned", "conflicting"))
    members = (labels * 2 + ~aligned)[:, None] == np.arange(len(names))[None, :]
    expected = _expected(labels, values, np.arange(int(max(values.max(), len(classes) - 1)) + 1), np.ones_like(aligned))
    return Cells("inferred", names, members, aligned, np.ones_like(aligned), expected)


def cells_of_classes(labels: Ints, classes: Sequence[str]) -> Cells:
    """Each class is a cell, where nothing else is known.

    Args:
        labels: `(n,)`.
        classes: names of the classes.
    """
    return Cells("classes", tuple(classes), labels[:, None] == np.arange(len(classes))[None, :])


def compare(labels: Ints, method: NDArray[Any], plain: NDArray[Any] | None, cells: Cells) -> dict[str, Any]:
    """Accuracies of plain training and of the method, cell by cell, with exact intervals.

    Args:
        labels: of the held-out examples, `(n,)`.
        method: logits of the method, `(n, classes)`.
        plain: logits of plain training on the same examples; None where there is none.
        cells: of the same examples.

    Returns:
        `summary["comparison"]`: `cells_from`, `rows`, `average`, `worst`, `sentences` and `warnings`, plain JSON.
    """
    hits = {
        "plain": None if plain is None else plain.argmax(axis=1) == labels,
        "method": method.argmax(axis=1) == labels,
    }
    kept = [(name, cells.members[:, i]) for i, name in enumerate(cells.names) if cells.members[:, i].any()]
    sides = []
    if cells.aligned is not None and cells.known is not None:
        parts = (("aligned", cells.aligned & cells.known), ("conflicting", ~cells.aligned & cells.known))
        sides = [(name, rows) for name, rows in parts if rows.any()]
    result: dict[str, Any] = {
        "cells_from": cells.source,
        "confidence": CONFIDENCE,
        "goes_with": dict(cells.goes_with),
        "rows": [_row(name, rows, hits) for name, rows in (*sides, *kept)],
        "average": _pair({name: None if hit is None else (hit.sum(), len(hit)) for name, hit in hits.items()}),
        "worst": {name: _worst(hit, kept) for name, hit in hits.items()},
    }
    result["sentences"] = _sentences(result, cells)
    small = [f"{row['cell']} ({row['n']})" for row in result["rows"] if row["n"] < SMALL]
    result["warnings"] = [TOO_FEW.format(small=SMALL, cells=", ".join(small))] if small else []
    return result


def _row(name: str, rows: Bools, hits: dict[str, Bools | None]) -> dict[str, Any]:
    counts = {side: None if hit is None else (hit[rows].sum(), rows.sum()) for side, hit in hits.items()}
    return {"cell": name, "n": int(rows.sum()), **_pair(counts)}


def _pair(counts: dict[str, tuple[Any, Any] | None]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side, count in counts.items():
        if count is None or not count[1]:
            out[side] = None
            continue
        low, high = clopper_pearson(*count, CONFIDENCE)
        out[side] = {"accuracy": float(count[0] / count[1]), "low": float(low), "high": float(high)}
    return out


def _worst(hit: Bools | None, kept: list[tuple[str, Bools]]) -> dict[str, Any] | None:
    """The worst cell of one side, and an interval of the smallest accuracy that is not fooled by its being smallest."""
    if hit is None:
        return None
    right, n = np.array([hit[rows].sum() for _, rows in kept]), np.array([rows.sum() for _, rows in kept])
    place = int(np.lexsort((n, right / n))[0])  # of several equally bad ones the smallest
    low, high = minimum_interval(right, n, CONFIDENCE)
    return {
        "cell": kept[place][0],
        "n": int(n[place]),
        "accuracy": float(right[place] / n[place]),
        "low": low,
        "high": high,
    }


def _sentences(result: dict[str, Any], cells: Cells) -> list[str]:
    rows = {row["cell"]: row for row in result["rows"][:2]} if cells.aligned is not None else {}
    told, conflicting = [], rows.get("conflicting")
    if conflicting is not None:
        told.append(f"conflicting examples: {_change(conflicting)} (n = {conflicting['n']:,})")
    else:
        worst = result["worst"]
        before = "" if worst["plain"] is None else f"{worst['plain']['accuracy']:.2f} -> "
        told.append(f"worst {_CELL[cells.source]}: {before}{worst['method']['accuracy']:.2f}")
    if cells.source == "inferred":
        told.append(INFERRED)
    shared = _shared(cells)
    if shared is not None and result["average"]["plain"] is not None and conflicting is not None:
        falls = result["average"]["method"]["accuracy"] < result["average"]["plain"]["accuracy"]
        gains = conflicting["method"]["accuracy"] > conflicting["plain"]["accuracy"]
        if falls and gains:
            told.append(BY_DESIGN.format(share=shared, expected=cells.expected))
        elif not falls:
            told.append(REWARDED.format(share=shared, expected=cells.expected))
    return told


_CELL = {"attribute": "cell", "groups": "group", "inferred": "cell", "classes": "class"}


def _change(row: dict[str, Any]) -> str:
    after = f"{row['method']['accuracy']:.2f}"
    return after if row["plain"] is None else f"{row['plain']['accuracy']:.2f} -> {after}"


def _shared(cells: Cells) -> float | None:
    """The aligned share of the examples, where it lies well above what independence gives; None where it does not."""
    if cells.aligned is None or cells.known is None or not cells.known.any():
        return None
    aligned, n = int((cells.aligned & cells.known).sum()), int(cells.known.sum())
    share = aligned / n
    far = share - cells.expected >= SHARED * (1.0 - cells.expected)
    sure = stats.binomtest(aligned, n, min(cells.expected, 1.0), alternative="greater").pvalue < LEVEL
    return share if far and sure else None

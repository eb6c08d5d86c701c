"""Tables of an audit: the conflicting examples, and the cells of label and inferred value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aifs_peft.audit.reading import input_text
from aifs_peft.discovery import Discovery

IntArray = NDArray[np.integer]

# Columns of the table of conflicting examples; metadata columns of these names get a prefix.
RESERVED = ("row", "input", "label", "inferred", "confidence")


def conflicting_table(
    discovery: Discovery,
    along: NDArray[np.floating],
    names: tuple[Sequence[Any], Sequence[Any]],
    inputs: Any,
    frame: pd.DataFrame,
) -> pd.DataFrame:
    """Conflicting examples, most certain first; where the posterior is one, those farthest out along the attribute.

    Args:
        discovery: what was found.
        along: coordinates along class and attribute, see `axes`, `(n, 2)`.
        names: label and inferred value of every example by name, `(n,)` each.
        inputs: one per example, or `None`.
        frame: metadata, one row per example.
    """
    rows = np.flatnonzero(discovery.conflicting_)
    confidence = discovery.responsibilities_[np.arange(len(along)), discovery.groups_].astype(np.float64)
    rows = rows[np.lexsort((rows, -np.abs(along[rows, 1]), -confidence[rows]))]
    table = pd.DataFrame(
        {
            "row": rows,
            "input": pd.Series(
                [None if inputs is None else input_text(inputs[i]) for i in rows.tolist()], dtype=object
            ),
            "label": [names[0][i] for i in rows.tolist()],
            "inferred": [names[1][i] for i in rows.tolist()],
            "confidence": confidence[rows],
        }
    )
    extra = frame.iloc[rows].reset_index(drop=True)
    taken = {*RESERVED, *extra.columns}
    extra.columns = [_free(name, taken) if name in RESERVED else name for name in extra.columns]
    return pd.concat([table, extra], axis=1)


def _free(name: str, taken: set[str]) -> str:
    """The name with as many prefixes as it takes to be no other column's."""
    while name in taken:
        name = f"metadata_{name}"
    return name


def groups_table(y: IntArray, inferred: IntArray, names: Sequence[Any], values: Sequence[Any]) -> pd.DataFrame:
    """Cells of label and inferred value that occur: `label`, `inferred`, `n`, `share` of the label, `conflicting`.

    Args:
        y: class of each example, `(n,)`.
        inferred: attribute value of each, `(n,)`.
        names: of the classes.
        values: names of the attribute's values.
    """
    counts = np.bincount(y, minlength=len(names))
    cells, sizes = np.unique(np.stack([y, inferred], axis=1), axis=0, return_counts=True)
    rows = [
        {"label": names[c], "inferred": values[a], "n": int(size), "share": size / counts[c], "conflicting": c != a}
        for (c, a), size in zip(cells.tolist(), sizes, strict=True)
    ]
    return pd.DataFrame(rows)

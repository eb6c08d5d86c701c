"""The audit of a run's training set, on the latents that the run has anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from aifs_peft.experiments.latents import INPUTS

if TYPE_CHECKING:
    from datasets import Dataset

    from aifs_peft.audit import Audit


def audit_rows(rows: Dataset, Z: Tensor, modality: str, names: list[str], seed: int) -> Audit:
    """Audit latents of labelled rows, against every other column that they have.

    Args:
        rows: with a `label` column.
        Z: their latents, `(n, dim)`.
        modality: the input column.
        names: of the classes.
        seed: of discovery and folds.

    Returns:
        The audit; its conflicting examples are named by file or text where the rows have one.
    """
    from aifs_peft.audit import audit

    plain, rest = rows.with_format(None), metadata_columns(rows)
    return audit(
        Z.numpy(),
        np.asarray(plain["label"][:]),
        metadata=plain.select_columns(rest) if rest else None,
        inputs=None if modality == "features" else plain[modality],
        class_names=dict(enumerate(names)),
        random_state=seed,
    )


def metadata_columns(rows: Dataset) -> list[str]:
    """The columns that a shortcut is compared with: all but inputs and labels, and groups made of label and attribute.

    Own data have their attribute twice, as `attribute` and under the user's name for it: the latter alone is compared.

    Args:
        rows: of a data set.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"label": [0, 1, 1], "attribute": [0, 0, 1], "group": [0, 2, 3], "age": [9, 9, 9]})
        >>> metadata_columns(rows), metadata_columns(rows.add_column("scanner", ["A", "A", "B"]))
        (['attribute', 'age'], ['age', 'scanner'])
    """
    skipped = {*INPUTS, "label", *(["group"] if "attribute" in rows.column_names else [])}
    names = [name for name in rows.column_names if name not in skipped]
    if "attribute" in names and any(_repeats_attribute(rows, name) for name in names if name != "attribute"):
        names.remove("attribute")
    return names


def _repeats_attribute(rows: Dataset, name: str) -> bool:
    """Whether a column tells the same examples apart as `attribute` does, wherever that is known (-1 is not)."""
    import pandas as pd
    from datasets import ClassLabel, Value

    if not isinstance(rows.features[name], ClassLabel | Value):
        return False
    plain = rows.with_format(None)
    attribute, column = pd.Series(plain["attribute"][:]), pd.Series(plain[name][:])
    known = attribute != -1
    return bool((pd.factorize(attribute[known])[0] == pd.factorize(column[known])[0]).all())


def inferred_values(found: Audit, Z: Tensor, labels: Tensor) -> Any:
    """Attribute values of held-out examples by what an audit found, `(n,)` int64.

    Args:
        found: an audit that found something.
        Z: latents of the examples by the same encoder, `(n, dim)`.
        labels: their labels, `(n,)`.
    """
    from aifs_peft.audit import infer_groups

    return infer_groups(found.discovery, Z.numpy(), labels.numpy())

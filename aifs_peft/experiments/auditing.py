"""The audit of a run's training set, on the latents that the run has anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

    Args:
        rows: of a data set.

    Example:
        >>> from datasets import Dataset
        >>> metadata_columns(Dataset.from_dict({"label": [0], "group": [1], "attribute": [1], "site": ["a"]}))
        ['attribute', 'site']
    """
    skipped = {*INPUTS, "label", *(["group"] if "attribute" in rows.column_names else [])}
    return [name for name in rows.column_names if name not in skipped]

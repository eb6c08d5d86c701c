"""The audit of a run's training set, on the latents that the run has anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from aifs_peft.experiments.latents import INPUTS

if TYPE_CHECKING:
    from datasets import Dataset

    from aifs_peft.audit import Audit


def audit_rows(
    rows: Dataset, Z: Tensor, modality: str, names: list[str], seed: int, unlabelled: Tensor | None = None
) -> Audit:
    """Audit latents of labelled rows, against every other column that they have.

    Args:
        rows: with a `label` column.
        Z: their latents, `(n, dim)`.
        modality: the input column.
        names: of the classes.
        seed: of discovery and folds.
        unlabelled: latents of examples without labels, `(m, dim)`.

    Returns:
        The audit; its conflicting examples are named by file or text where the rows have one (streamed ones do not).
    """
    from aifs_peft.audit import audit
    from aifs_peft.audit.columns import metadata_columns

    plain, rest = rows.with_format(None), metadata_columns(rows, (*INPUTS, "label"))
    return audit(
        Z.numpy(),
        np.asarray(plain["label"][:]),
        metadata=plain.select_columns(rest) if rest else None,
        inputs=None if modality == "features" or modality not in plain.column_names else plain[modality],
        unlabelled=None if unlabelled is None else unlabelled.numpy(),
        class_names=dict(enumerate(names)),
        random_state=seed,
    )

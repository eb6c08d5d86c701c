"""What the attribute's score reads in some training examples, for the report: patches of pictures, words of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aifs_peft.experiments.streamed import PreparedStream
from aifs_peft.explain import Highlight, choose_references, fit_reader, highlight_inputs
from aifs_peft.latent._support import evaluating
from aifs_peft.tuner import find_aifs_layer, initial_encoder

if TYPE_CHECKING:
    from aifs_peft.audit import Audit
    from aifs_peft.experiments.prepare import PreparedDataset
    from aifs_peft.experiments.run import FinetuneResult

MOST = 12
"""Examples that are highlighted."""


def reader_of_audit(audit: Audit, latents: Tensor, labels: Tensor) -> Tensor:
    """The reader of what an audit found, in the latents that it looked at.

    Args:
        audit: that found something.
        latents: of the training examples by the untuned encoder, `(n, d)`.
        labels: of the same, `(n,)`.

    Returns:
        `(A, d + 1)`, see `aifs_peft.explain.fit_reader`; its values count the classes that occur in training.
    """
    values, beta = torch.as_tensor(audit.discovery.groups_), torch.as_tensor(audit.discovery.displacements_)
    return fit_reader(latents, positions(audit, labels), values, beta)[1]


def positions(audit: Audit, labels: Tensor) -> Tensor:
    """Labels as the audit counts them: the classes that occur in training.

    Args:
        audit: of the training set.
        labels: as the head counts them, `(n,)`.
    """
    return torch.as_tensor(np.searchsorted(np.asarray(audit.discovery.classes_), labels.numpy()))


def highlight_run(result: FinetuneResult, rows: Sequence[int]) -> list[Highlight]:
    """Highlights of some training examples, by the encoder as it was before it was tuned, which the audit looked at.

    Args:
        result: of a run whose audit found something.
        rows: of the training set; the first 12 are taken.

    Returns:
        One highlight per row; empty for tables and a streamed training set, and where there is nothing to highlight.

    Raises:
        AIFSError: for a model whose inputs cannot be followed.
    """
    train, reader = result.prepared.get("train"), result.reader
    if isinstance(train, PreparedStream):
        return []  # its examples are not at hand
    if result.audit is None or reader is None or train is None or train.column not in ("image", "text") or not rows:
        return []
    chosen = list(rows)[:MOST]
    model, layer = result.model, find_aifs_layer(result.model)
    device = next(model.parameters()).device
    values = np.asarray(result.audit.discovery.groups_)
    tensors = {name: value.to(device) for name, value in _batch(train, chosen).items()}
    references = None
    if train.column == "image":
        others = choose_references(train.labels.numpy(), values, np.asarray(chosen))
        if others is not None:
            pixels = _batch(train, others.ravel().tolist())["pixel_values"].to(device)
            references = pixels.reshape(*others.shape, *pixels.shape[1:])
    with initial_encoder(model), evaluating(model):
        return list(
            highlight_inputs(
                model.get_base_model(), layer, tensors, torch.as_tensor(values[chosen], device=device), reader,
                result.processor, references=references,
            )
        )  # fmt: skip


def _batch(data: PreparedDataset, rows: Sequence[int]) -> dict[str, Tensor]:
    parts = [data.batch(row, row + 1) for row in rows]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

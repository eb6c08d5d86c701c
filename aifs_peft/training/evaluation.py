"""What an evaluation collects beside the predictions, for metrics that need labels and no group labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aifs_peft.explain.reading import attribute_scores
from aifs_peft.training.selection import selection_metrics
from aifs_peft.tuner import AIFSLayer


class LabelFreeMetrics:
    """Accuracy, and that of the worst class and the worst inferred group, over the batches of one evaluation.

    Args:
        layer: whose latent outputs are read.
        gather: rows of all processes without the copies that fill up the last batch.
        min_cell: cells with fewer examples do not count as the worst.
    """

    def __init__(self, layer: AIFSLayer, gather: Callable[[Any], Any], min_cell: int) -> None:
        self._layer, self._gather, self._min_cell = layer, gather, min_cell
        self._rows: list[tuple[Tensor, ...]] = []

    def add(self, labels: Tensor) -> None:
        """Take the latent output of the batch that was just evaluated.

        Args:
            labels: `(batch,)` int64.
        """
        output, state = self._layer.take_output(), self._layer.state
        labels = labels.to(output.logits.device)
        scores = attribute_scores(output.z.float(), state.reader) if len(state.reader) else output.z[:, :0]
        rows = self._gather((output.logits.argmax(1) == labels, labels, scores))
        self._rows.append(tuple(row.cpu() for row in rows))

    def compute(self) -> dict[str, float]:
        """The metrics by name; none where no batch had labels."""
        if not self._rows:
            return {}
        correct, labels, scores = (torch.cat(column) for column in zip(*self._rows, strict=True))
        return selection_metrics(correct, labels, scores if scores.shape[1] else None, self._min_cell)

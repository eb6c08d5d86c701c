"""Scorers for model selection without group labels: accuracy of the worst inferred cell on held-out data.

Plain accuracy on folds that share the training set's bias prefers the model that leans on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft.audit.held_out import infer_groups, label_indices
from aifs_peft.audit.reading import to_array
from aifs_peft.discovery import Discovery
from aifs_peft.errors import InvalidConfigError, InvalidInputError

# Cells with fewer held-out examples say too little and do not vote.
MIN_CELL = 10


@dataclass(frozen=True)
class InferredGroupScorer:
    """A scorer `scorer(estimator, Z, y)` for `GridSearchCV` and `cross_val_score`.

    Args:
        discovery: whose groups count, for every estimator alike; `None` takes those of the fitted estimator itself.
        min_cell: cells of label and inferred value with fewer examples do not vote; where none has as many, the
            largest do.
    """

    discovery: Discovery | None = None
    min_cell: int = MIN_CELL

    def __call__(self, estimator: Any, Z: ArrayLike, y: ArrayLike) -> float:
        """Accuracy of the worst cell of label and inferred attribute value; of the worst class where nothing was found.

        Args:
            estimator: fitted, with `predict`.
            Z: held-out latents, `(n, d)`; of a given discovery in its space, else as the estimator takes them.
            y: labels, `(n,)`.

        Raises:
            InvalidConfigError: If there is no discovery, neither given nor in the estimator.
            InvalidInputError: If the latents do not fit it.
        """
        labels, predicted = to_array(y), to_array(estimator.predict(Z))
        discovery, latents = (self.discovery, Z) if self.discovery is not None else _own(estimator, Z)
        groups = infer_groups(discovery, latents, labels)
        cells = label_indices(labels, discovery.classes_) * discovery.responsibilities_.shape[1] + groups
        return worst_cell(predicted == labels, cells, self.min_cell)


def make_worst_inferred_group_scorer(discovery: Discovery, *, min_cell: int = MIN_CELL) -> InferredGroupScorer:
    """A scorer that judges every estimator by the same inferred groups, for any classifier on latents.

    Args:
        discovery: `discover(Z, y)` of the data to select on.
        min_cell: cells with fewer held-out examples do not vote.

    Returns:
        A scorer `scorer(estimator, Z, y)`.

    Raises:
        InvalidInputError: If this is no `Discovery`, or `min_cell` is below 1.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> scorer = make_worst_inferred_group_scorer(discover(Z, y, random_state=0))
        >>> plain = LogisticRegression().fit(Z, y)
        >>> bool(scorer(plain, Z, y) < plain.score(Z, y) - 0.2)
        True
    """
    if not isinstance(discovery, Discovery):
        raise InvalidInputError(
            f"a {type(discovery).__name__} was given; needed is a Discovery, what discover(Z, y) returns. To judge "
            "each estimator by its own, pass scoring=worst_inferred_group_scorer."
        )
    if min_cell < 1:
        raise InvalidInputError(f"min_cell={min_cell} was given; needed is at least 1 ({MIN_CELL} by default)")
    return InferredGroupScorer(discovery, min_cell)


def worst_cell(hits: NDArray[np.bool_], cells: NDArray[np.integer], min_cell: int) -> float:
    """Smallest accuracy over the cells with at least `min_cell` examples, over the largest cells where none has.

    Args:
        hits: whether each prediction is right, `(n,)`.
        cells: of each example, `(n,)` integers.
        min_cell: at least 1.

    Example:
        >>> worst_cell(np.array([True, False, True, False]), np.array([0, 0, 0, 1]), 2)
        0.6666666666666666
    """
    code = np.unique(cells, return_inverse=True)[1]
    sizes = np.bincount(code)
    shares = np.bincount(code, hits.astype(np.float64)) / sizes
    large = sizes >= min_cell
    return float(shares[large if large.any() else sizes == sizes.max()].min())


def _own(estimator: Any, latents: Any) -> tuple[Discovery, Any]:
    """The estimator's own discovery, and the latents as it saw them: after the earlier steps of a pipeline."""
    if hasattr(estimator, "steps"):
        if len(estimator.steps) > 1:
            latents = estimator[:-1].transform(latents)
        estimator = estimator.steps[-1][1]
    discovery = getattr(estimator, "discovery_", None)
    if discovery is None:
        raise InvalidConfigError(
            f"{type(estimator).__name__} has found no groups of its own (no discovery_): fit AIFSClassifier with "
            "recipe='discovery', or pass scoring=make_worst_inferred_group_scorer(discover(Z, y))."
        )
    return discovery, latents


worst_inferred_group_scorer = InferredGroupScorer()

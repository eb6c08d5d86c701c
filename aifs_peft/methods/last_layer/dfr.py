"""Deep feature reweighting (DFR): plain training, then the last layer again on group-balanced validation data.

Paper: Kirichenko, Izmailov and Wilson 2023, Last Layer Re-Training is Sufficient for Robustness to Spurious
Correlations (ICLR).

Formula, after plain training: standardise the validation latents. On one half of them, for every C, fit a logistic
regression with an l1 penalty on a random subset in which all groups have as many examples, and take the C with the best
worst group on the other half. With that C fit one regression on each of 20 group-balanced subsets of the whole
validation set, and put the mean of the solutions into the head.

Supervision: the true group of every validation example, to fit and to tune: an oracle. Metrics on that validation set
are those of a training set afterwards. Training itself sees labels only.

Differs from the paper: latents are standardised by validation statistics; one split and one subset tune C. Of equal
values the first counts; more than two classes are fitted one against the rest, as liblinear does.

Cannot: repair an encoder whose latents do not hold the class signal; use a head that is not linear; profit from a
validation set that lacks a group. Fitted on groups of the training set it is much weaker (published for Waterbirds:
73.8 against 92.5), since the encoder has fitted those examples.

Extra cost: one pass of the encoder over the validation set and some 30 logistic regressions (times the number of
classes when there are more than two) after training; nothing per step.

Defaults: the l1 penalty, liblinear, the values of C, half to tune and all to refit, and 20 subsets are those of the
official code (10 to 20 in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.last_linear import require_linear, set_linear
from aifs_peft.methods.common.true_groups import GROUP, read_groups
from aifs_peft.methods.context import EpochContext, Setup
from aifs_peft.methods.registry import register

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DFROptions:
    """Numbers of DFR.

    Args:
        penalties: values of C (the inverse strength of the l1 penalty) to choose from, each above 0.
        subsets: group-balanced subsets whose solutions are averaged, at least 1.

    Example:
        >>> DFROptions(subsets=10).penalties[0]
        1.0
    """

    penalties: Sequence[float] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
    subsets: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.penalties, list | tuple) or not self.penalties:
            raise InvalidConfigError(f"penalties must be a list of numbers, at least one; got {self.penalties!r}")
        for value in self.penalties:
            check_number("penalties", value, 0.0, above=True)
        check_count("subsets", self.subsets, 1)


@register
class DFROracle(Method):
    """ERM and, after it, a last layer fitted on group-balanced validation latents.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("dfr-oracle").needs
        ('validation set with group labels (column `group`)', 'linear head')
    """

    name: ClassVar[str] = "dfr-oracle"
    title: ClassVar[str] = "DFR (oracle)"
    paper: ClassVar[str] = "Kirichenko et al. 2023, Last Layer Re-Training is Sufficient for Robustness (ICLR)"
    differs: ClassVar[str] = "latents are standardised by validation statistics; one split and one subset tune C"
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "groups"
    needs: ClassVar[tuple[str, ...]] = ("validation set with group labels (column `group`)", "linear head")
    cost: ClassVar[str] = "one encoder pass over the validation set and about 30 logistic regressions, once"
    Options: ClassVar[type[Any]] = DFROptions

    def validation_columns(self) -> tuple[str, ...]:
        """See `Method.validation_columns`."""
        return (GROUP,)

    def check(self, setup: Setup) -> None:
        """See `Method.check`: a linear head and a validation set to fit it on."""
        super().check(setup)
        require_linear(setup.head, self.name)
        if not setup.has_validation:
            raise InvalidConfigError(
                f"method {self.name!r} fits the last layer on a validation set with the column {GROUP!r}; pass "
                "AIFSTrainer(eval_dataset=...), or fit_on_latents(validation=(Z, y, {'group': ...}))"
            )

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: refuse groups that cannot be halved, before training rather than after."""
        groups = context.validation_columns[GROUP]
        read_groups(context.validation_columns, len(groups), "validation", smallest=2)

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Refit the head on the validation latents of the model that was kept."""
        assert context.encode_validation is not None  # noqa: S101 - `check` saw the validation set
        latents, columns = context.encode_validation()
        groups = read_groups(columns, len(latents.labels), "validation", smallest=2)
        missing = sorted(set(range(context.num_labels)) - set(latents.labels.tolist()))
        if missing:
            raise InvalidInputError(
                f"the validation set has no example of class {missing}, so method {self.name!r} cannot fit its row of "
                "the last layer; add examples, or build the head without that class"
            )
        has_bias = require_linear(context.head, self.name)[1] is not None
        fit = _Refit(context.num_labels, has_bias, self.options, context.seed)
        weight, bias, numbers = context.on_main(lambda: fit(latents.z, latents.labels, groups))
        set_linear(context.head, weight, bias, self.name)
        return numbers


def balanced_subset(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Random positions with as many examples of every group as the smallest one has.

    Args:
        groups: `(n,)`.
        rng: source of the choice.

    Returns:
        `(G * smallest,)` positions, sorted by group.

    Example:
        >>> import numpy as np
        >>> groups = np.array([0, 0, 0, 4, 4])
        >>> sorted(groups[balanced_subset(groups, np.random.default_rng(0))].tolist())
        [0, 0, 4, 4]
    """
    present, sizes = np.unique(groups, return_counts=True)
    smallest = int(sizes.min())
    return np.concatenate([rng.choice(np.flatnonzero(groups == g), smallest, replace=False) for g in present])


class _Refit:
    """The fits on validation latents: one C chosen on halves, then the mean over subsets of the whole."""

    def __init__(self, num_labels: int, has_bias: bool, options: DFROptions, seed: int) -> None:
        self.num_labels, self.has_bias, self.options, self.seed = num_labels, has_bias, options, seed

    def __call__(self, z: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Weight `(K, d)`, bias `(K,)` and what was found, for latents as they are given."""
        Z, y, g = z.double().numpy(), labels.numpy(), groups.numpy()
        rng = np.random.default_rng(self.seed)
        # Without a bias the head cannot take a shift of the latents back.
        centre = Z.mean(axis=0) if self.has_bias else np.zeros(Z.shape[1])
        deviation = Z.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
        X = (Z - centre) / scale
        strength, worst = self._tuned(X, y, g, rng)
        solutions = []
        for _ in range(self.options.subsets):
            rows = balanced_subset(g, rng)
            solutions.append(self._fit(X[rows], y[rows], strength))
        weight = np.mean([w for w, _ in solutions], axis=0) / scale
        bias = np.mean([b for _, b in solutions], axis=0) - weight @ centre
        return torch.as_tensor(weight), torch.as_tensor(bias), {"dfr_C": strength, "dfr_tuning_worst_group": worst}

    def _tuned(
        self, X: Array, y: NDArray[np.int64], g: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[float, float]:
        """The C whose fit on one half has the best worst group on the other, and that accuracy."""
        fitted = np.zeros(len(g), dtype=bool)
        for group in np.unique(g):
            members = rng.permutation(np.flatnonzero(g == group))
            fitted[members[: len(members) // 2]] = True
        half = np.flatnonzero(fitted)
        rows = half[balanced_subset(g[half], rng)]
        held = np.flatnonzero(~fitted)
        best, best_worst = float(self.options.penalties[0]), -1.0
        for strength in self.options.penalties:
            weight, bias = self._fit(X[rows], y[rows], strength)
            correct = (X[held] @ weight.T + bias).argmax(axis=1) == y[held]
            worst = min(float(correct[g[held] == group].mean()) for group in np.unique(g))
            if worst > best_worst:
                best, best_worst = float(strength), worst
        return best, best_worst

    def _fit(self, X: Array, y: NDArray[np.int64], strength: float) -> tuple[Array, Array]:
        """Logistic regression with an l1 penalty as rows of logits, `(K, d)` and `(K,)`."""
        if self.num_labels == 2:
            w, b = self._binary(X, y == 1, strength)
            # Half to each class: the softmax of the two logits is the fitted probability.
            return np.stack([-w, w]) / 2, np.array([-b, b]) / 2
        rows = [self._binary(X, y == k, strength) for k in range(self.num_labels)]
        return np.stack([w for w, _ in rows]), np.array([b for _, b in rows])

    def _binary(self, X: Array, target: NDArray[np.bool_], strength: float) -> tuple[Array, float]:
        from sklearn.linear_model import LogisticRegression

        if target.all() or not target.any():
            raise InvalidInputError(
                "a group-balanced subset of the validation set holds one class only; give each combination of class "
                f"and attribute its own number in the column {GROUP!r}"
            )
        # scikit-learn 1.8 renamed the choice of the penalty.
        l1 = {"l1_ratio": 1.0} if LogisticRegression().penalty == "deprecated" else {"penalty": "l1"}
        model = LogisticRegression(
            C=strength, solver="liblinear", fit_intercept=self.has_bias, max_iter=1000, random_state=self.seed, **l1
        )
        model.fit(X, target)
        return model.coef_[0], float(model.intercept_[0]) if self.has_bias else 0.0

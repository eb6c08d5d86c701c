"""`AIFSClassifier`: shortcut-free linear classification on latents, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from aifs_peft._checks import check_choice, to_numpy
from aifs_peft.discovery import Discovery
from aifs_peft.discovery.assemble import rests_on_hint
from aifs_peft.discovery.discover import collect_hints, discover_reduced
from aifs_peft.discovery.linear_heads.choice import HeadChoice, choose_head, hinted_head
from aifs_peft.discovery.linear_heads.families import fit_head
from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.linear_heads.plain import fit_plain
from aifs_peft.discovery.mixture.joint import marginals
from aifs_peft.discovery.principal_components import Reduction, principal_components
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.latent.heads import linear_parameters
from aifs_peft.methods import MethodSettings, get, names
from aifs_peft.training.latent_trainer import LatentFit, LatentSchedule, fit_on_latents

# Share of the rows that a method which refits the last layer on validation data gets as such.
_HELD_OUT = 0.2
_CHUNK_ROWS = 8192


class AIFSClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier on precomputed latents that finds a shortcut in them and turns away from it.

    No group labels are needed and nothing is to be tuned. `fit` looks for a spurious attribute (`discover`). Where
    there is one, the head is chosen among additive heads, balanced logistic regression and balanced logistic
    regression with counterfactual examples, by worst *inferred*-group accuracy on held-out folds. Where there is none,
    or there are too few examples to tell, it is logistic regression with evenly weighted classes.

    Args:
        recipe: `"discovery"`; `"erm"` (plain logistic regression on principal components, L2 by held-out accuracy; with
            a `schedule` plain gradient training, as the other methods have it);
            `"paper"` (the published formulas); or a training method by name (`aifs methods` lists those that work on
            latents), trained by gradient on the same principal components.
        recipe_options: The method's own numbers, for a training method.
        schedule: Its optimisation, a `LatentSchedule`; `None` takes the defaults.
        class_weight: What classes weigh where no shortcut was found (heads against a shortcut always weigh them
            evenly). `"balanced"`: evenly, with the penalty chosen by the worst class on held-out folds; where classes
            are unequal this raises the worst class and lowers average accuracy. `None`: as often as they occur, which
            is `recipe="erm"`. A mapping of labels to weights, also for `recipe="erm"`, which `"balanced"` leaves
            plain.
        random_state: Seed of folds, samples, initial weights and batches.

    Attributes:
        classes_: Distinct labels, sorted, shape `(K,)`.
        coef_: Weights on the latents, shape `(K, d)`; absent for a method whose head is not linear.
        intercept_: Shape `(K,)`; absent likewise.
        fit_: For a training method, its `LatentFit` (head, state, history), else `None`.
        discovery_: The `Discovery`; `None` for other recipes.
        head_choice_: How the head was chosen, a `HeadChoice`; `None` where no shortcut was found, and for others.
        n_features_in_: Width `d` of the latents.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 3 * y
        >>> clf = AIFSClassifier(random_state=0).fit(Z, y)
        >>> clf.discovery_.found, bool(np.mean(clf.predict(Z)[a != y] == y[a != y]) > 0.8)
        (True, True)
    """

    def __init__(
        self,
        recipe: str = "discovery",
        *,
        recipe_options: dict[str, Any] | None = None,
        schedule: LatentSchedule | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = "balanced",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.recipe = recipe
        self.recipe_options = recipe_options
        self.schedule = schedule
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(
        self,
        Z: ArrayLike,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        metadata: Any = None,
        attributes: Any = None,
        unlabelled: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> AIFSClassifier:
        """Fit on latents `Z (n, d)` (NumPy or torch, any float type) and labels `y (n,)` (integers or strings).

        Args:
            Z: Latents.
            y: Labels.
            groups: Attribute value of each example, integers or strings, `(n,)`. For `recipe="discovery"` a hint: -1
                (or `None` among strings) where unknown. For an oracle method the true value of every example.
            metadata: Hint for discovery: `DataFrame` or mapping of names to `(n,)` values, each column a candidate.
            attributes: Hint for discovery: mapping of names to directions in the latent space, see `discover`.
            unlabelled: Hint for discovery: latents without labels, `(m, d)`, in which a shortcut goes with the label
                less often, for example from where the model will be used; see `discover`.
            columns: What else a training method reads, by name, each `(n, ...)` integers (`environment`,
                `attributes`).

        Raises:
            InvalidInputError: For NaN or infinite values, wrong shapes, one class, or latents that are all equal.
            InvalidConfigError: For an unknown recipe, or one that misses what it needs.
        """
        self._check_recipe()
        latents, labels = self._validate(to_numpy(Z), to_numpy(y))
        self.classes_, index = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidInputError(
                f"All {len(index)} labels are {self.classes_[0]!r}: one class was given, at least two are needed."
            )
        seed = check_random_state(self.random_state).randint(2**31)
        reduction = principal_components(latents, rng=np.random.default_rng(seed))
        X = reduction.transform(latents)
        self.discovery_: Discovery | None = None
        self.head_choice_: HeadChoice | None = None
        self.fit_: LatentFit | None = None
        if not self._closed():
            self._fit_method(X, index, reduction, seed, self._columns(index, groups, columns))
            return self
        if self.recipe == "discovery":
            hints = collect_hints(
                reduction, len(index), groups=groups, metadata=metadata, attributes=attributes, unlabelled=unlabelled
            )
            self.discovery_ = discover_reduced(
                X, reduction, index, self.classes_, rng=np.random.default_rng(seed), hints=hints
            )
        rng = np.random.default_rng(seed)
        if self.discovery_ is not None and self.discovery_.found:
            R = self.discovery_.responsibilities_
            if rests_on_hint(self.discovery_):
                beta = reduction.project(self.discovery_.displacements_)
                head, self.head_choice_ = hinted_head(X, index, R, beta)
            else:
                R = marginals(R, len(self.classes_))
                self.head_choice_ = choose_head(X, index, R, rng=rng, rough=self.discovery_.rough_)
                head = fit_head(X, index, R, self.head_choice_.setting, rng=rng)
        else:
            head = self._fit_plain(X, index, labels, rng)
        self._set_coefficients(head, reduction)
        return self

    def _fit_plain(
        self, X: NDArray[Any], index: NDArray[np.int64], labels: NDArray[Any], rng: np.random.Generator
    ) -> LinearHead:
        """Logistic regression without an attribute, and what the discovery's message says of it."""
        balanced = self.recipe == "discovery" and self.class_weight == "balanced"
        given = isinstance(self.class_weight, Mapping)
        weights = compute_sample_weight(self.class_weight, labels) if balanced or given else None
        head, _ = fit_plain(X, index, len(self.classes_), rng=rng, weights=weights, by_worst_class=balanced)
        if self.discovery_ is not None:
            kind = "with evenly weighted classes" if balanced else "with the given class weights" if given else "plain"
            told = f"{self.discovery_.message_} The head is logistic regression, {kind}."
            self.discovery_ = replace(self.discovery_, message_=told)
        return head

    def _method(self) -> str:
        """The training method behind the recipe."""
        return "aifs-paper" if self.recipe == "paper" else self.recipe

    def _closed(self) -> bool:
        """Whether the recipe has a closed form or a convex fit of its own, and is no gradient training."""
        return self.recipe == "discovery" or (self.recipe == "erm" and self.schedule is None)

    def _check_recipe(self) -> None:
        if not isinstance(self.class_weight, Mapping):
            check_choice("class_weight", self.class_weight, ["balanced", None])
        if self._closed():
            if self.recipe_options or self.schedule is not None:
                raise InvalidConfigError(
                    f"recipe={self.recipe!r} chooses its numbers itself and takes no recipe_options or schedule"
                )
            return
        check_choice("recipe", self.recipe, ["discovery", "paper", *names()])

    def _columns(
        self, index: NDArray[np.int64], groups: ArrayLike | None, columns: Mapping[str, ArrayLike] | None
    ) -> dict[str, torch.Tensor]:
        """What the method reads beside labels: the cells (label, attribute) under `group`, the rest as given."""
        given = {name: np.asarray(to_numpy(values)) for name, values in (columns or {}).items()}
        if groups is not None:
            attribute = np.unique(np.asarray(to_numpy(groups)), return_inverse=True)[1]
            if attribute.shape != index.shape:
                raise InvalidInputError(f"groups of shape {attribute.shape} were given for {len(index)} examples.")
            given["group"] = index * (int(attribute.max()) + 1) + attribute
        for name, values in given.items():
            if len(values) != len(index) or values.dtype.kind not in "iub":
                raise InvalidInputError(
                    f"column {name!r} must hold integers for {len(index)} examples; got dtype {values.dtype}, shape "
                    f"{values.shape}."
                )
        return {name: torch.as_tensor(values.astype(np.int64)) for name, values in given.items()}

    def _fit_method(
        self,
        X: NDArray[Any],
        index: NDArray[np.int64],
        reduction: Reduction,
        seed: int,
        columns: dict[str, torch.Tensor],
    ) -> None:
        """Train a head on the reduced latents with one of the training methods."""
        method = self._method()
        settings = MethodSettings.for_method(method, seed=seed, method_options=dict(self.recipe_options or {}))
        # Principal coordinates with one common scale: the latents rotated, as a frozen encoder's head would see them.
        # Whitened ones would hide from a method which directions vary most.
        self._scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))
        Z, y = torch.as_tensor(np.ascontiguousarray(X * self._scale, dtype=np.float32)), torch.as_tensor(index)
        held = np.zeros(len(y), dtype=bool)
        wanted = get(method)(settings).validation_columns()
        if wanted:
            held = _stratified_share(index, _HELD_OUT, np.random.default_rng(seed))
        train, rest = torch.as_tensor(~held), torch.as_tensor(held)
        validation = (Z[rest], y[rest], {n: v[rest] for n, v in columns.items() if n in wanted}) if wanted else None
        self.fit_ = fit_on_latents(
            method, Z[train], y[train], num_labels=len(self.classes_), settings=settings, schedule=self.schedule,
            columns={name: values[train] for name, values in columns.items()}, validation=validation,
        )  # fmt: skip
        self._reduction = reduction
        linear = linear_parameters(self.fit_.head)
        if linear is not None:
            weight, bias = (part.detach().double().numpy() for part in linear if part is not None)
            self._set_coefficients(LinearHead(weight * self._scale, bias), reduction)

    def _validate(self, Z: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        # scikit-learn's checks say what is wrong in the words its ecosystem knows; the type is ours.
        try:
            latents, labels = validate_data(self, Z, y, dtype=[np.float64, np.float32, np.float16])
            check_classification_targets(labels)
        except ValueError as error:
            raise InvalidInputError(f"{error} Needed are finite latents Z (n, d) and one class label each.") from error
        return latents, labels

    def _set_coefficients(self, head: LinearHead, reduction: Reduction) -> None:
        """Compose head and reduction into weights on the latents, so that prediction is one product."""
        projection = reduction.components / reduction.scale[:, None]
        self.coef_ = head.weight @ projection
        self.intercept_ = head.bias - self.coef_ @ reduction.mean

    def decision_function(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Logits, shape `(n, K)`; for two classes, as scikit-learn wants it, their difference, shape `(n,)`."""
        logits = self._logits(Z)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _logits(self, Z: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        try:
            latents = validate_data(self, to_numpy(Z), reset=False, dtype=[np.float64, np.float32, np.float16])
        except ValueError as error:
            raise InvalidInputError(f"{error} Needed are finite latents Z (n, {self.n_features_in_}).") from error
        out = np.empty((len(latents), len(self.classes_)))
        if not hasattr(self, "coef_"):
            assert self.fit_ is not None  # noqa: S101 - a fitted classifier has one of the two
            for start in range(0, len(latents), _CHUNK_ROWS):
                rows = slice(start, start + _CHUNK_ROWS)
                X = self._reduction.transform(latents[rows]) * self._scale
                out[rows] = self.fit_.head(torch.as_tensor(X, dtype=torch.float32)).double().numpy()
            return out
        for start in range(0, len(latents), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            # In float64, and as a sum over rows of fixed order: one example's logits do not depend on its batch.
            out[rows] = np.einsum("nd,kd->nk", latents[rows].astype(np.float64), self.coef_) + self.intercept_
        return out

    def predict_proba(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape `(n, K)`, columns in the order of `classes_`."""
        return np.asarray(softmax(self._logits(Z), axis=1))

    def predict(self, Z: ArrayLike) -> NDArray[Any]:
        """Most probable class of each latent, shape `(n,)`."""
        logits = self._logits(Z)
        return np.asarray(self.classes_[logits.argmax(axis=1)])


def _stratified_share(y: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random share of each class, `(n,)` bool."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        chosen[rows[: max(1, round(share * len(rows)))]] = True
    return chosen

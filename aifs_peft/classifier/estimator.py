"""`AIFSClassifier`: shortcut-free linear classification on latents, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from aifs_peft._checks import check_choice
from aifs_peft.classifier.closed import ClosedFit, Examples, Latents, fit_discovery, fit_erm
from aifs_peft.classifier.inputs import (
    GROUP,
    HINT,
    check_class_weight,
    check_examples,
    check_latents,
    check_weighted_classes,
    check_weights,
    chosen_rows,
    method_columns,
    readable_columns,
    refuse_unread,
)
from aifs_peft.discovery import Discovery, LatentSource
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.discover import collect_hints
from aifs_peft.discovery.linear_heads.choice import HeadChoice
from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.held import reduce_source
from aifs_peft.errors import InvalidConfigError, InvalidInputError

# Training methods need torch, which takes a second to import: only where one is asked for.
if TYPE_CHECKING:
    import torch

    from aifs_peft.classifier.trained import TrainedHead
    from aifs_peft.methods import Method
    from aifs_peft.training.latent_trainer import LatentFit, LatentSchedule

# Arguments of `fit` that only discovery reads.
HINTS = ("groups", "metadata", "attributes", "unlabelled")


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
            plain; training methods refuse one. Of training methods only `"aifs"` reads this.
        random_state: Seed of folds, samples, initial weights and batches.

    Attributes:
        classes_: Distinct labels, sorted, shape `(K,)`.
        coef_: Weights on the latents, shape `(K, d)`; absent for a method whose head is not linear.
        intercept_: Shape `(K,)`; absent likewise.
        fit_: For a training method, its `LatentFit` (head, state, history), else `None`.
        discovery_: The `Discovery`; `None` for other recipes.
        head_choice_: How the head was chosen, a `HeadChoice`; `None` where no shortcut was found, and for others.
        n_features_in_: Width `d` of the latents.
        feature_names_in_: Names of their columns, where they came as a `DataFrame`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 3 * y
        >>> clf = AIFSClassifier(random_state=0).fit(Z, y)
        >>> clf.discovery_.found, bool(np.mean(clf.predict(Z)[a != y] == y[a != y]) > 0.8)
        (True, True)
    """

    # For metadata routing: latents are data, not metadata, whatever their name.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"Z": UNUSED}
    __metadata_request__predict: ClassVar[dict[str, str]] = {"Z": UNUSED}
    __metadata_request__predict_proba: ClassVar[dict[str, str]] = {"Z": UNUSED}
    __metadata_request__predict_log_proba: ClassVar[dict[str, str]] = {"Z": UNUSED}
    __metadata_request__decision_function: ClassVar[dict[str, str]] = {"Z": UNUSED}

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
        Z: ArrayLike | LatentSource,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        metadata: Any = None,
        attributes: Any = None,
        unlabelled: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> AIFSClassifier:
        """Fit on latents `Z (n, d)` (NumPy, torch or a `DataFrame`, any float type) and labels `y (n,)`.

        Memory maps, columns of a `datasets.Dataset` and other `LatentSource`s are read in blocks of rows, as in
        `discover`; of more than 200,000 rows the head is fitted to that many, every cell of class and inferred value as
        full as can be, each example weighed by how many it stands for.

        Every call begins from nothing, whatever was fitted before; after a call that failed nothing is fitted.

        Args:
            Z: Latents.
            y: Labels, integers or strings.
            sample_weight: Of each example, for `recipe="discovery"` and `"erm"`; only their ratios count. They weigh
                in the head and in what chooses it. The search for the attribute looks at all examples alike, but
                those of weight 0 are left out altogether (`discovery_` holds the others, in their order). Cells,
                which heads against a shortcut weigh evenly, are weighed by the sum of these weights.
            groups: Attribute value of each example, integers or strings, `(n,)`. For `recipe="discovery"` and `"aifs"`
                a hint: -1 (or `None` among strings) where unknown. For an oracle method the true value of every
                example.
            metadata: Hint for discovery: `DataFrame` or mapping of names to `(n,)` values, each column a candidate.
            attributes: Hint for discovery: mapping of names to directions in the latent space, see `discover`.
            unlabelled: Hint for discovery: latents without labels, `(m, d)`, in which a shortcut goes with the label
                less often, for example from where the model will be used; see `discover`.
            columns: What else a training method reads, by name, each `(n, ...)` integers (`environment`,
                `attributes`).

        Raises:
            InvalidInputError: For NaN or infinite values, wrong shapes, one class, sparse data, or latents that are
                all equal.
            InvalidConfigError: For an unknown recipe, one that misses what it needs, or an argument that the recipe
                would not read.
        """
        self._forget()
        given = {"sample_weight": sample_weight, "groups": groups, "metadata": metadata, "attributes": attributes,
                 "unlabelled": unlabelled, "columns": columns}  # fmt: skip
        method = self._checked_recipe(given)
        source, labels = check_examples(self, Z, y)
        groups, metadata = source.gather(groups), source.gather(metadata)
        weights = check_weights(source.gather(sample_weight), source)
        if weights is not None and not weights.all():
            rows = np.flatnonzero(weights)
            groups = chosen_rows("groups", groups, rows, len(labels))
            metadata = chosen_rows("metadata", metadata, rows, len(labels))
            source, labels, weights = source.selected(rows), labels[rows], weights[rows]
        classes, index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InvalidInputError(
                f"All {len(index)} labels are {classes.tolist()[0]!r}: one class was given, at least two are needed."
            )
        check_weighted_classes(self.class_weight, classes)
        seed = check_random_state(self.random_state).randint(2**31)
        reduction = reduce_source(source, rng=np.random.default_rng(seed), config=DEFAULT_CONFIG.reduction)
        latents = Latents(source, index, classes, reduction, weights)
        if method is not None:
            count = source.processes.count
            if count > 1:
                raise InvalidConfigError(
                    f"recipe={self.recipe!r} trains on one process, and these ShardedLatents lie on {count} of them; "
                    'give it all latents, or use recipe="discovery" or "erm".'
                )
            self._fit_method(method, latents.examples(), method_columns(method, index, groups, columns), seed)
        else:
            hints = {name: given[name] for name in HINTS} | {"groups": groups, "metadata": metadata}
            self._fit_closed(latents, hints, seed)
        self.classes_ = classes
        return self

    def _forget(self) -> None:
        """Take away what an earlier `fit` left; scikit-learn's names for it end with an underscore."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)
        self._trained: TrainedHead | None = None

    def _fit_closed(self, latents: Latents, given: dict[str, Any], seed: int) -> None:
        if self.recipe == "discovery":
            hints = collect_hints(latents.reduction, len(latents.index), **given)
            found = fit_discovery(latents, self.class_weight, seed=seed, hints=hints)
        else:
            weights = self.class_weight if isinstance(self.class_weight, Mapping) else None
            found = ClosedFit(fit_erm(latents, weights, seed=seed))
        self.fit_: LatentFit | None = None
        self.discovery_: Discovery | None = found.discovery
        self.head_choice_: HeadChoice | None = found.choice
        self._set_coefficients(found.head, latents.reduction)

    def _fit_method(self, method: Method, examples: Examples, columns: dict[str, torch.Tensor], seed: int) -> None:
        from aifs_peft.classifier.trained import train_head
        from aifs_peft.methods import MethodSettings, get

        settings = MethodSettings.for_method(method.name, seed=seed, method_options=self._method_options(method.name))
        self._trained = train_head(
            get(method.name)(settings), examples.X[:], examples.index, len(examples.classes), examples.reduction,
            schedule=self.schedule, columns=columns,
        )  # fmt: skip
        self.fit_, self.discovery_, self.head_choice_ = self._trained.fit, None, None
        linear = self._trained.linear()
        if linear is not None:
            self._set_coefficients(linear, examples.reduction)

    def _closed(self) -> bool:
        """Whether the recipe has a closed form or a convex fit of its own, and is no gradient training."""
        return self.recipe == "discovery" or (self.recipe == "erm" and self.schedule is None)

    def _checked_recipe(self, given: dict[str, Any]) -> Method | None:
        """The training method behind the recipe, None for a closed one; what it would not read is refused."""
        check_class_weight(self.class_weight)
        if self._closed():
            if self.recipe_options or self.schedule is not None:
                raise InvalidConfigError(
                    f"recipe={self.recipe!r} chooses its numbers itself and takes no recipe_options or schedule"
                )
            read = ("sample_weight", *(HINTS if self.recipe == "discovery" else ()))
            refuse_unread(self.recipe, given, read, 'recipe="discovery" takes hints; leave them out, or use it.')
            return None
        from aifs_peft.methods import MethodSettings, get, names

        check_choice("recipe", self.recipe, ["discovery", "paper", *names()])
        name = "aifs-paper" if self.recipe == "paper" else self.recipe
        method = get(name)(MethodSettings.for_method(name, method_options=self._method_options(name)))
        known = readable_columns(method)
        read = ("columns", *(("groups",) if {GROUP, HINT} & set(known) else ()))
        weights = {"class_weight": self.class_weight if isinstance(self.class_weight, Mapping) else None}
        reads = f"it reads {', '.join(known) or 'nothing'} beside latents and labels"
        remedy = f'{reads}. recipe="discovery" and "erm" without a schedule take weights, "discovery" hints.'
        refuse_unread(self.recipe, {**given, **weights}, read, remedy)
        return method

    def _method_options(self, name: str) -> dict[str, Any]:
        """The method's own numbers; "aifs" reads the classifier's `class_weight`, unless they have their own."""
        evened = {"class_weight": self.class_weight} if name == "aifs" and self.class_weight is None else {}
        return {**evened, **(self.recipe_options or {})}

    def __sklearn_is_fitted__(self) -> bool:
        """The last thing that `fit` sets."""
        return hasattr(self, "classes_")

    def _set_coefficients(self, head: LinearHead, reduction: Reduction) -> None:
        """Compose head and reduction into weights on the latents, so that prediction is one product."""
        projection = reduction.components / reduction.scale[:, None]
        self.coef_ = head.weight @ projection
        self.intercept_ = head.bias - self.coef_ @ reduction.mean

    def decision_function(self, Z: ArrayLike | LatentSource) -> NDArray[np.float64]:
        """Logits, shape `(n, K)`; for two classes, as scikit-learn wants it, their difference, shape `(n,)`."""
        logits = self._logits(Z)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, Z: ArrayLike | LatentSource) -> NDArray[np.float64]:
        """Class probabilities, shape `(n, K)`, columns in the order of `classes_`."""
        return np.asarray(softmax(self._logits(Z), axis=1))

    def predict_log_proba(self, Z: ArrayLike | LatentSource) -> NDArray[np.float64]:
        """Logarithms of the class probabilities, shape `(n, K)`; finite also where a probability is rounded to 0."""
        return np.asarray(log_softmax(self._logits(Z), axis=1))

    def predict(self, Z: ArrayLike | LatentSource) -> NDArray[Any]:
        """Most probable class of each latent, shape `(n,)`."""
        logits = self._logits(Z)
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _logits(self, Z: ArrayLike | LatentSource) -> NDArray[np.float64]:
        check_is_fitted(self)
        source = check_latents(self, Z, fitted=True)
        out = np.empty((len(source), len(self.classes_)))
        for rows, block in source.blocks():
            if hasattr(self, "coef_"):
                # In float64, and as a sum of fixed order: one example's logits do not depend on its batch.
                out[rows] = np.einsum("nd,kd->nk", block.astype(np.float64), self.coef_) + self.intercept_
            else:
                assert self._trained is not None  # noqa: S101 - a fitted classifier has one of the two
                out[rows] = self._trained.logits(block)
        return out

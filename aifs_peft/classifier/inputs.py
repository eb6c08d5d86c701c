"""What `AIFSClassifier.fit` and `predict` are given: checked, and refused where the recipe would not read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from aifs_peft._checks import check_choice, check_names, check_number, to_numpy
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.hints.known import known_values
from aifs_peft.discovery.inputs import encode_labels
from aifs_peft.discovery.streaming.columns import as_values, is_column
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import LatentSource, check_finite
from aifs_peft.errors import InvalidConfigError, InvalidInputError

if TYPE_CHECKING:
    import torch

    from aifs_peft.methods import Method

FLOATS = [np.float64, np.float32, np.float16]
GROUP, HINT = "group", "hint_groups"


def check_latents(estimator: BaseEstimator, Z: Any, *, fitted: bool) -> LatentSource:
    """Latents `(n, d)` of finite floats, by scikit-learn's checks where they are an array or a table.

    Args:
        estimator: whose width and feature names they must have, or which learns them.
        Z: array, tensor, `DataFrame`, or what is read in blocks, see `discover`.
        fitted: whether the estimator knows its width already.

    Raises:
        InvalidInputError: saying what is wrong, in the words that scikit-learn's ecosystem knows.
    """
    _refuse_sparse(Z)
    width = str(getattr(estimator, "n_features_in_", "d")) if fitted else "d"
    if _in_blocks(Z):
        return _checked_source(estimator, as_source(Z), fitted=fitted)
    try:
        return as_source(np.asarray(validate_data(estimator, to_numpy(Z), reset=not fitted, dtype=FLOATS)))
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"{error} Needed are finite latents Z (n, {width}).") from error


def check_examples(estimator: BaseEstimator, Z: Any, y: Any) -> tuple[LatentSource, NDArray[Any]]:
    """Latents `(n, d)` and labels `(n,)`, of all processes.

    Args:
        estimator: which learns the width and the feature names.
        Z: array, tensor, `DataFrame`, or what is read in blocks, see `discover`.
        y: labels.

    Raises:
        InvalidInputError: if one of them cannot be worked with.
    """
    _refuse_sparse(Z)
    y = as_values(y)
    _refuse_missing(y)
    if _in_blocks(Z):
        source = _checked_source(estimator, as_source(Z), fitted=False)
        labels = np.asarray(to_numpy(source.gather(y)))
        encode_labels(labels, len(source))
        try:
            check_classification_targets(labels)
        except ValueError as error:
            raise InvalidInputError(f"{error} Needed is one class label for each of the latents.") from error
        return source, labels
    try:
        latents, labels = validate_data(estimator, to_numpy(Z), to_numpy(y), dtype=FLOATS)
        check_classification_targets(labels)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"{error} Needed are finite latents Z (n, d) and one class label each.") from error
    source = as_source(latents)
    check_finite(source)
    return source, labels


def _in_blocks(Z: Any) -> bool:
    """Whether latents are to be read in blocks: scikit-learn's checks would load them, or copy arrays of their size."""
    if isinstance(Z, (LatentSource, np.memmap)) or is_column(Z):
        return True
    array = hasattr(Z, "shape") and hasattr(Z, "dtype") and hasattr(Z, "__getitem__") and not hasattr(Z, "columns")
    large = array and len(Z.shape) == 2 and Z.shape[0] > DEFAULT_CONFIG.inputs.held_rows
    foreign = array and not isinstance(Z, np.ndarray) and not hasattr(Z, "__array__") and not hasattr(Z, "detach")
    return large or foreign


def _checked_source(estimator: BaseEstimator, source: LatentSource, *, fitted: bool) -> LatentSource:
    """A source of finite latents that has the estimator's width, or gives it."""
    if not fitted:
        estimator.n_features_in_ = source.shape[1]
    elif source.shape[1] != estimator.n_features_in_:
        raise InvalidInputError(
            f"Z has {source.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input: give latents of the encoder that it was fitted on."
        )
    check_finite(source)
    return source


def _refuse_sparse(Z: Any) -> None:
    if issparse(Z):
        raise InvalidInputError(
            f"Sparse data was given, a {type(Z).__name__} of shape {Z.shape}: latents are dense. Pass Z.toarray(), or "
            "reduce sparse features first, as in make_pipeline(TruncatedSVD(256), AIFSClassifier())."
        )


def _refuse_missing(y: Any) -> None:
    """Among objects scikit-learn calls a None an unknown type of label."""
    values = np.asarray(to_numpy(y)) if y is not None else np.empty(0)
    missing = 0 if values.dtype != object else sum(value is None or value != value for value in values.ravel())
    if missing:
        raise InvalidInputError(
            f"y is missing (None or NaN) for {missing} of {len(values)} examples; leave them out: every example needs "
            "a label."
        )


def check_weights(sample_weight: ArrayLike | None, latents: LatentSource) -> NDArray[np.float64] | None:
    """Weights of the examples `(n,)`, not negative and not all zero; None where none are given.

    Args:
        sample_weight: one number per example, or one for all.
        latents: of the examples.

    Raises:
        InvalidInputError: for other shapes and numbers.
    """
    if sample_weight is None:
        return None
    try:
        weights = _check_sample_weight(
            to_numpy(sample_weight), latents, dtype=np.float64, ensure_non_negative=True, ensure_same_device=False
        )
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"{error} Needed is one finite sample_weight of at least 0 per example.") from error
    return np.asarray(weights, dtype=np.float64)


def check_class_weight(class_weight: Any) -> None:
    """Refuse what is no weight of classes.

    Args:
        class_weight: "balanced", None, or a mapping of labels to finite numbers of at least 0.

    Raises:
        InvalidConfigError: naming it.
    """
    if not isinstance(class_weight, Mapping):
        check_choice("class_weight", class_weight, ["balanced", None])
        return
    for label, weight in class_weight.items():
        check_number(f"class_weight[{label!r}]", weight, low=0.0)


def check_weighted_classes(class_weight: Any, classes: NDArray[Any]) -> None:
    """Refuse a mapping with a label that is none of the classes while one of these has no weight: it is misspelt.

    As in scikit-learn, a class without an entry weighs 1, and an entry without a class does nothing.

    Args:
        class_weight: of the estimator.
        classes: labels that occur, `(K,)`.

    Raises:
        InvalidConfigError: naming both.
    """
    if not isinstance(class_weight, Mapping):
        return
    known = classes.tolist()
    strange = [label for label in class_weight if label not in known]
    lacking = [label for label in known if label not in class_weight]
    if strange and lacking:
        raise InvalidConfigError(
            f"class_weight has weights for {strange[0]!r}, which is no label, and none for {lacking[0]!r}; the labels "
            f"are {known[:5]}."
        )


def chosen_rows(name: str, values: Any, rows: NDArray[np.int64], n: int) -> Any:
    """Some rows of what goes beside the examples.

    Args:
        name: of the argument.
        values: array, list, tensor or `DataFrame` of `n` rows, or a mapping of names to such; None stays None.
        rows: positions.
        n: number of examples.

    Raises:
        InvalidInputError: if there are not `n` rows.
    """
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {key: chosen_rows(f"{name}[{key!r}]", column, rows, n) for key, column in values.items()}
    if len(values) != n:
        raise InvalidInputError(f"{name} has {len(values)} rows and was given for {n} examples; needed is one each.")
    return _safe_indexing(to_numpy(values), rows)


def refuse_unread(recipe: str, given: Mapping[str, Any], read: Collection[str], remedy: str) -> None:
    """Refuse an argument that the recipe would not look at.

    Args:
        recipe: as the user names it.
        given: every optional argument by name, None where it was not given.
        read: those that the recipe reads.
        remedy: what to do, ends the message.

    Raises:
        InvalidConfigError: naming the arguments.
    """
    unread = [name for name, value in given.items() if value is not None and name not in read]
    if unread:
        raise InvalidConfigError(f"recipe={recipe!r} does not read {', '.join(unread)}; {remedy}")


def method_columns(
    method: Method, index: NDArray[np.int64], groups: ArrayLike | None, columns: Mapping[str, ArrayLike] | None
) -> dict[str, torch.Tensor]:
    """What a training method reads beside labels.

    Args:
        method: whose columns they are.
        index: labels as `0..K-1`, `(n,)`.
        groups: attribute value of each example: the cells (label, attribute) of an oracle's column `group`, or the
            known values of the column `hint_groups`.
        columns: as given, by name.

    Raises:
        InvalidInputError: for columns that do not hold one integer per example, or true groups of which some are
            missing.
        InvalidConfigError: for a column that the method does not read.
    """
    import torch

    known = readable_columns(method)
    check_names(columns or {}, known, f"method {method.name!r} reads no column")
    given = {name: np.asarray(to_numpy(values)) for name, values in (columns or {}).items()}
    if groups is not None:
        name = GROUP if GROUP in known else HINT
        given[name] = _attribute(method, index, groups, oracle=name == GROUP)
    for name, values in given.items():
        if len(values) != len(index) or values.dtype.kind not in "iub":
            raise InvalidInputError(
                f"column {name!r} must hold integers for {len(index)} examples; got dtype {values.dtype}, shape "
                f"{values.shape}."
            )
    return {name: torch.as_tensor(values.astype(np.int64)) for name, values in given.items()}


def readable_columns(method: Method) -> list[str]:
    """Names of all columns that a method may read, of training or validation examples.

    Args:
        method: any.
    """
    return sorted({*method.columns(), *method.optional_columns(), *method.validation_columns()})


def _attribute(method: Method, index: NDArray[np.int64], groups: ArrayLike, *, oracle: bool) -> NDArray[np.int64]:
    values = np.asarray(known_values(groups, len(index)), dtype=np.int64)
    if not oracle:
        return values
    missing = int((values < 0).sum())
    if missing:
        raise InvalidInputError(
            f"groups is missing (-1, None, NaN or empty) for {missing} of {len(index)} examples, and method "
            f"{method.name!r} reads the true group of every one. Leave these examples out, or use recipe='discovery', "
            "which takes groups that are known of a few."
        )
    codes = np.unique(values, return_inverse=True)[1]
    return np.asarray(index * (int(codes.max()) + 1) + codes, dtype=np.int64)

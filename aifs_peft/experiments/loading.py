"""The data set of a run, by the names in its `FinetuneSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aifs_peft import data
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments.spec import FinetuneSpec

if TYPE_CHECKING:
    from datasets import DatasetDict

NOT_OWN = (
    "these options are for your own data: {names}; {dataset!r} is a known data set: leave them out, or give "
    "dataset_options."
)
NO_SPLIT = (
    "The data set {name!r} has the splits {given}; needed here: {needed}. Training needs 'train', "
    "'validation' (drawn like train, for model selection) and 'test'."
)


def load_data(spec: FinetuneSpec, needed: Sequence[str] = ("train", "validation", "test")) -> DatasetDict:
    """The data set by name; a local file or folder or a Hub name with a slash is read as the user's own data.

    Args:
        spec: which data.
        needed: the splits that there must be.

    Raises:
        InvalidInputError: an unknown data set, missing splits, or data that cannot be read.
        DataNotFoundError: a file is missing.
    """
    splits = data.load(spec.dataset, spec.data_dir, **data_options(spec))
    if not set(needed) <= set(splits):
        raise InvalidInputError(NO_SPLIT.format(name=spec.dataset, given=sorted(splits), needed=list(needed)))
    return splits


def is_own_data(dataset: str) -> bool:
    """Whether a data set's name stands for a table, a folder or a Hub name, and not for one of `data.names()`.

    Args:
        dataset: `FinetuneSpec.dataset`.

    Example:
        >>> is_own_data("waterbirds"), is_own_data("scans.csv")
        (False, True)
    """
    return dataset not in data.names() and data.is_own(dataset)


def data_options(spec: FinetuneSpec) -> dict[str, Any]:
    """What the loader of a data set is told.

    Args:
        spec: which data.
    """
    return {**own_options(spec), **spec.dataset_options}


def own_options(spec: FinetuneSpec) -> dict[str, Any]:
    """What `load_own` is told of own data; a known data set has columns of its own.

    Args:
        spec: which data.

    Raises:
        InvalidConfigError: columns were named for a known data set.
    """
    given = {name: getattr(spec, name) for name in ("image", "text", "label", "attribute", "test_share")}
    given["features"] = spec.features[0] if spec.features is not None and len(spec.features) == 1 else spec.features
    given = {name: value for name, value in given.items() if value is not None}
    if is_own_data(spec.dataset):
        return {**given, "split": spec.split}
    if spec.unlabelled is not None:  # the columns of which these are
        given = {name: value for name, value in given.items() if name not in ("image", "text")}
    if given and spec.dataset in data.names():
        raise InvalidConfigError(NOT_OWN.format(names=", ".join(given), dataset=spec.dataset))
    return {}

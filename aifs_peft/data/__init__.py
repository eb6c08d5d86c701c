"""Data sets with groups: local files or the Hub in, `datasets.DatasetDict` out.

`load(name)` gives train, validation and test with the columns a model reads, `label`, `group` (class x
attribute, for evaluation only) and metadata; `load_own` and `from_table` read the user's own data. Nothing is read or
imported before it is asked for.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft._checks import check_count, check_names, did_you_mean
from aifs_peft.data.groups import GroupSpec, group_array, spec_of
from aifs_peft.data.sources import DataCard
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDatasetDict

    from aifs_peft.data.own import from_table, is_own, load_own

__all__ = [
    "DataCard", "GroupSpec", "describe", "from_table", "group_array", "group_spec", "is_own", "load", "load_own",
    "names",
]  # fmt: skip

_OWN = ("from_table", "is_own", "load_own")

# name: (module, loader, card)
_REGISTRY: dict[str, tuple[str, str, str]] = {
    "celeba": ("celeba", "load_celeba", "CARD"),
    "civilcomments": ("civilcomments", "load_civilcomments", "CARD"),
    "civilcomments_coarse": ("civilcomments", "load_civilcomments_coarse", "COARSE_CARD"),
    "civilcomments_hub": ("civilcomments", "load_civilcomments_hub", "HUB_CARD"),
    "colored_mnist": ("colored_mnist", "load_colored_mnist", "CARD"),
    "compas": ("compas", "load_compas", "CARD"),
    "digits_on_scenes": ("digits_on_scenes", "load_digits_on_scenes", "CARD"),
    "dominoes": ("dominoes", "load_dominoes", "CARD"),
    "dominoes_latents": ("dominoes", "load_dominoes_latents", "LATENTS_CARD"),
    "jigsaw_templates": ("jigsaw_templates", "load_jigsaw_templates", "CARD"),
    "spurious_scenes": ("spurious_scenes", "load_spurious_scenes", "CARD"),
    "waterbirds": ("waterbirds", "load_waterbirds", "CARD"),
}


def __getattr__(name: str) -> Any:
    # Own data are read with pandas and pyarrow, which the other names do not need.
    if name in _OWN:
        return getattr(importlib.import_module("aifs_peft.data.own"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def names() -> tuple[str, ...]:
    """The names that `load` knows, sorted.

    Example:
        >>> "colored_mnist" in names()
        True
    """
    return tuple(sorted(_REGISTRY))


def load(
    name: str, data_dir: str | Path | None = None, *, streaming: bool = False, **options: Any
) -> DatasetDict | IterableDatasetDict:
    """Load a data set with its groups.

    Args:
        name: one of `names()`; or own data, as for `load_own`: the path of a table or folder, or OWNER/NAME of the Hub.
        data_dir: folder of local files in the official layout (`describe(name).layout`); None for the Hub,
            for a generated set, or for what is embedded in the package.
        streaming: give `IterableDataset`s: the same examples in the same order, decoded as they are read. Scenes of
            `spurious_scenes` are drawn only then; of the other sets the table is read first, its pictures as files
            on disk (CelebA, Waterbirds) or as PNG in memory. Methods that look at all examples need a map-style set.
        **options: options of that set (`describe(name).options`), or of `load_own`.

    Returns:
        `datasets.DatasetDict` (`IterableDatasetDict` when streaming) with `train`, `validation` and `test`; columns:
        the inputs (`image`, `text` or `features`), `label` (ClassLabel), `group` (ClassLabel, or a boolean list where
        groups overlap), metadata. Images are decoded when they are read.

    Raises:
        InvalidInputError: an unknown name or option, or an option out of range.
        DataNotFoundError: a file is missing (also a `FileNotFoundError`); says where to get it.

    Example:
        >>> load("coloured_mnist")
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidInputError: no data set 'coloured_mnist' (did you mean 'colored_mnist'?); known: ...
    """
    own = name not in _REGISTRY and __getattr__("is_own")(name)
    loader = __getattr__("load_own") if own else _entry(name, "loader")
    known = _options(loader)
    check_names(options, known, f"{name} has no option", error=InvalidInputError)
    if "seed" in options:
        check_count("seed", options["seed"], low=0, error=InvalidInputError)
    if streaming and "streaming" in inspect.signature(loader).parameters:
        return loader(data_dir, streaming=True, **options)
    result: DatasetDict = loader(name, data_dir=data_dir, **options) if own else loader(data_dir, **options)
    if not streaming:
        return result
    from aifs_peft.data.tables import stream

    return stream(result)


def describe(name: str) -> DataCard:
    """What a data set is, where its files come from, how to lay them out, and which options it has.

    Raises:
        InvalidInputError: an unknown name.

    Example:
        >>> describe("colored_mnist").inputs
        ('image',)
    """
    card: DataCard = _entry(name, "card")
    return replace(card, name=name, options=_options(_entry(name, "loader")))


def group_spec(
    dataset: Dataset | DatasetDict | IterableDatasetDict | str, data_dir: str | Path | None = None, **options: Any
) -> GroupSpec:
    """What the numbers in the `group` column mean.

    Args:
        dataset: a loaded data set or one of its splits; or a name, which is then loaded with
            `data_dir` and `options`.
        data_dir: for a name only, as in `load`.
        **options: for a name only, as in `load`.

    Returns:
        The definition of the groups.

    Raises:
        InvalidInputError: the set carries no definition.
    """
    return spec_of(load(dataset, data_dir, **options) if isinstance(dataset, str) else dataset)


def _entry(name: str, part: str) -> Any:
    if name not in _REGISTRY:
        raise InvalidInputError(f"no data set {name!r}{did_you_mean(name, _REGISTRY)}; known: {', '.join(names())}")
    module, loader, card = _REGISTRY[name]
    return getattr(importlib.import_module(f"aifs_peft.data.{module}"), loader if part == "loader" else card)


def _options(loader: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(loader).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("source", "data_dir", "streaming")}

"""Examples without labels beside a run: read as the training set is, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aifs_peft import data
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import Method, get, names

if TYPE_CHECKING:
    from datasets import Dataset

    from aifs_peft.experiments.spec import FinetuneSpec

UNLABELLED = "unlabelled"
NO_USE = (
    "unlabelled={given!r} was given, and method {method!r} has no use for unlabelled examples; leave it out, or train "
    "with a method that reads them: {readers}"
)
NOT_OWN = (
    "unlabelled={given!r} {why}; needed are your own data, as a table, a folder, an .npz or a Hub name (OWNER/NAME)"
)
OTHER_KIND = (
    "unlabelled={given!r} holds {kinds}, and the training set is read by {modality}; give examples of the same kind"
)
OTHER_WIDTH = (
    "unlabelled={given!r} has features of width {width}, and the training set {needed}; give the same columns, from "
    "the same encoder"
)
TOO_FEW = (
    "unlabelled={given!r} holds {n} examples; at least {least} are needed to see how they differ from the training "
    "set, better some hundred"
)
# Options of own data that say how a table is read, and so how both are.
_SHARED_OPTIONS = ("features", "missing", "root", "revision")
# What the method logs: the share of the attributes found that would not have been found without them.
RESTS_ON = "rests_on_unlabelled"


def check_method(spec: FinetuneSpec, method: Method) -> None:
    """Refuse examples without labels that nothing would look at, before anything is loaded.

    Args:
        spec: of the run.
        method: of the run.

    Raises:
        InvalidConfigError: naming the methods that read them.
    """
    if spec.unlabelled is not None and not method.reads_unlabelled:
        readers = ", ".join(name for name in names() if get(name).reads_unlabelled)
        raise InvalidConfigError(NO_USE.format(given=spec.unlabelled, method=method.name, readers=readers))


def load_unlabelled(spec: FinetuneSpec, train: Dataset, modality: str) -> Dataset | None:
    """The examples without labels, of the kind of the training set; None where the run has none.

    Args:
        spec: of the run.
        train: training split.
        modality: which of its input columns is read.

    Raises:
        InvalidInputError: data of another kind or width, too few of them, or a known data set.
        DataNotFoundError: a file is missing.
    """
    if spec.unlabelled is None:
        return None
    if not data.is_own(spec.unlabelled):
        why = "is a known data set" if spec.unlabelled in data.names() else "is neither a file nor a folder"
        raise InvalidInputError(NOT_OWN.format(given=spec.unlabelled, why=why))
    from aifs_peft.data.own import load_unlabelled as load_rows

    options: dict[str, Any] = {}
    if spec.dataset not in data.names():  # the options of a known data set are its own
        options = {name: spec.dataset_options[name] for name in _SHARED_OPTIONS if name in spec.dataset_options}
        options["beside"] = [name for name in (spec.label, spec.attribute, spec.dataset_options.get("group")) if name]
    rows = load_rows(spec.unlabelled, image=spec.image, text=spec.text, **options)
    if modality not in rows.column_names:
        kinds = " and ".join(rows.column_names)
        raise InvalidInputError(OTHER_KIND.format(given=spec.unlabelled, kinds=kinds, modality=modality))
    if modality == "features":
        width, needed = len(rows[0]["features"]), len(train[0]["features"])
        if width != needed:
            raise InvalidInputError(OTHER_WIDTH.format(given=spec.unlabelled, width=width, needed=needed))
    least = DEFAULT_CONFIG.unlabelled.min_rows
    if len(rows) < least:
        raise InvalidInputError(TOO_FEW.format(given=spec.unlabelled, n=len(rows), least=least))
    return rows.select_columns([modality])


def describe_unlabelled(name: str | None, n: int, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the examples without labels in a training, for `summary.json`.

    Args:
        name: of the data; None where it is not known.
        n: how many examples there were.
        history: the trainer's log.

    Returns:
        `data`, `n`, `used` and `rests_on` (the share of the attributes found that rests on them); the last two are None
        where the method did not look for a shortcut.

    Example:
        >>> describe_unlabelled("new.csv", 400, [{"rests_on_unlabelled": 1.0}])
        {'data': 'new.csv', 'n': 400, 'used': True, 'rests_on': 1.0}
    """
    told = [float(entry[RESTS_ON]) for entry in history if RESTS_ON in entry]
    share = told[-1] if told else None
    return {"data": name, "n": n, "used": None if share is None else share > 0, "rests_on": share}

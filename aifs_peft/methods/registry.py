"""The open registry of training methods."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from aifs_peft._checks import did_you_mean
from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.base import Method
from aifs_peft.methods.settings import MethodSettings

ENTRY_POINT_GROUP = "aifs_peft.methods"

# Built-in method -> the module that registers it, imported when first asked for.
_BUILT_IN = {
    "afr": "aifs_peft.methods.last_layer.afr",
    "ags": "aifs_peft.methods.regularisers.ags",
    "aifs": "aifs_peft.methods.aifs.discovery",
    "aifs-paper": "aifs_peft.methods.aifs.paper",
    "dfr-oracle": "aifs_peft.methods.last_layer.dfr",
    "elrep": "aifs_peft.methods.regularisers.elrep",
    "erm": "aifs_peft.methods.reweighting.erm",
    "erm-balanced": "aifs_peft.methods.reweighting.erm_balanced",
    "gdro-oracle": "aifs_peft.methods.reweighting.group_dro",
    "irm": "aifs_peft.methods.regularisers.irm",
    "jtt": "aifs_peft.methods.reweighting.jtt",
    "leia": "aifs_peft.methods.last_layer.leia",
    "lff": "aifs_peft.methods.reweighting.lff",
    "neurontune": "aifs_peft.methods.last_layer.neurontune",
    "ravl": "aifs_peft.methods.attributes.ravl",
    "reweight-oracle": "aifs_peft.methods.reweighting.reweight_oracle",
    "rsc": "aifs_peft.methods.regularisers.rsc",
    "shortcutprobe": "aifs_peft.methods.last_layer.shortcutprobe",
    "spectral-decoupling": "aifs_peft.methods.regularisers.spectral_decoupling",
    "spume": "aifs_peft.methods.attributes.spume",
    "ule": "aifs_peft.methods.regularisers.ule",
    "ule-saliency": "aifs_peft.methods.regularisers.ule_saliency",
    "xrm-gdro": "aifs_peft.methods.reweighting.xrm",
}
_REGISTRY: dict[str, type[Method]] = {}

T = TypeVar("T", bound=type[Method])


def register(cls: T) -> T:
    """Class decorator that makes a method known under its `name`.

    Args:
        cls: subclass of `Method` with a `name` of its own.

    Returns:
        The class itself.

    Raises:
        InvalidConfigError: if the class has no name, or another class has taken it.

    Example:
        >>> from aifs_peft.methods import Method, get, register
        >>> @register
        ... class Plain(Method):
        ...     name = "doctest-plain"
        >>> get("doctest-plain") is Plain
        True
    """
    if not cls.name:
        raise InvalidConfigError(f"{cls.__name__} has no name; set the class attribute `name` to register it")
    known = _REGISTRY.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InvalidConfigError(
            f"the method name {cls.name!r} belongs to {known.__module__}.{known.__qualname__} already; "
            f"give {cls.__qualname__} another name"
        )
    _REGISTRY[cls.name] = cls
    return cls


def names() -> list[str]:
    """Every known method, sorted: built in, registered, and offered by installed packages.

    Example:
        >>> {"aifs", "aifs-paper", "erm"} <= set(names())
        True
    """
    offered = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted({*_BUILT_IN, *_REGISTRY, *offered})


def get(name: str) -> type[Method]:
    """The class of the method called `name`.

    Args:
        name: one of `names()`.

    Returns:
        A subclass of `Method`; make one with `get(name)(settings)`.

    Raises:
        InvalidConfigError: for an unknown name (the message names the closest one), or an entry point that does not
            give a method of its own name.

    Example:
        >>> get("erm").supervision
        'none'
    """
    if name not in _REGISTRY and name in _BUILT_IN:
        import_module(_BUILT_IN[name])
    if name not in _REGISTRY:
        _load_entry_point(name)
    if name in _REGISTRY:
        return _REGISTRY[name]
    raise InvalidConfigError(f"unknown method {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}")


def make(name: str, **settings: Any) -> Method:
    """The method called `name`, with its default numbers and these instead of some of them.

    Args:
        name: one of `names()`.
        **settings: fields of `MethodSettings`; the method's own numbers go into `method_options`.

    Returns:
        The method, for a training loop.

    Raises:
        InvalidConfigError: as `get` and `MethodSettings.for_method` do.

    Example:
        >>> make("jtt", method_options={"lambda_up": 6.0}).options.lambda_up
        6.0
    """
    return get(name)(MethodSettings.for_method(name, **settings))


def _load_entry_point(name: str) -> None:
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        cls = point.load()
        if not (isinstance(cls, type) and issubclass(cls, Method) and cls.name == name):
            raise InvalidConfigError(
                f"the entry point {point.value!r} must be a subclass of aifs_peft.methods.Method with "
                f"name = {name!r}, got {cls!r}; fix the package that offers it"
            )
        register(cls)

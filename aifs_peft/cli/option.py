"""One command-line option: its type, default, bounds and help; the same checks for a value from a YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from aifs_peft.cli.mistakes import UsageError
from aifs_peft.experiments.spec import bounds_in_words, closest, within

MANY = ("list", "ints")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: field of the dataclass it fills, in underscores.
        kind: "str", "int", "float", "bool", "json" (an object), "list" (one or more words), "ints" (one or more whole
            numbers), "share" (a number or one of the `words`) or "checkpoint" (a path, or true).
        default: what holds when it is left out.
        help: one sentence, in lower case, without a full stop.
        group: heading that help lists it under.
        rules: `choices`, or the bounds of `aifs_peft.experiments.spec.within`.
        optional: whether a YAML file may say null.
        aliases: further names, with dashes.
    """

    name: str
    kind: str
    default: Any = None
    help: str = ""
    group: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option as it is typed: `--learning-rate`."""
        return "--" + self.name.strip("_").replace("_", "-")

    def convert(self, text: str) -> Any:
        """The value of one word of the command line.

        Raises:
            ValueError: saying what is needed instead.
        """
        return _CONVERT[self.kind](self, text)

    def read(self, value: Any) -> Any:
        """The value of an entry of a YAML file, checked as on the command line.

        Raises:
            ValueError: saying what is needed instead.
        """
        if value is None:
            if self.optional:
                return None
            raise ValueError(f"needs {self.needs()}; got nothing (null)")
        if self.kind == "json" and isinstance(value, dict):
            return value
        if self.kind in MANY:
            return [self.convert(_word(self, entry)) for entry in (value if isinstance(value, list) else [value])]
        return self.convert(_word(self, value))

    def needs(self) -> str:
        """What a value must be, in words."""
        if "choices" in self.rules:
            return "one of " + ", ".join(self.rules["choices"])
        words = _NEEDS[self.kind]
        return f"{words} {bounds_in_words(self.rules)}" if "low" in self.rules else words


def _word(option: Option, value: Any) -> str:
    """A scalar of a YAML file as it would be typed."""
    if isinstance(value, list | dict) or (isinstance(value, bool) and option.kind in ("str", "list")):
        raise ValueError(f"needs {option.needs()}; got {value!r}")
    return str(value)


def _text(option: Option, text: str) -> str:
    choices = option.rules.get("choices")
    if choices is not None and text not in choices:
        raise ValueError(f"needs {option.needs()}; got {text!r}{closest(text, choices)}")
    return text


def _number(option: Option, text: str) -> Any:
    try:
        value = int(text) if option.kind in ("int", "ints") else float(text)
    except ValueError:
        value = None
    if value is None or not within(value, option.rules):
        raise ValueError(f"needs {option.needs()}; got {text!r}")
    return value


def _share(option: Option, text: str) -> Any:
    if text in option.rules["words"]:
        return text
    try:
        return _number(option, text)
    except ValueError as error:
        raise ValueError(f"{error}{closest(text, option.rules['words'])}") from None


def _truth(option: Option, text: str) -> bool:
    if text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    raise ValueError(f"needs {option.needs()}; got {text!r}")


def _object(option: Option, text: str) -> Any:
    if option.rules.get("or_file") and not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"needs {option.needs()}; got {text!r}, which is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"needs {option.needs()}; got {text!r}")  # noqa: TRY004 - of a text, not of an argument
    return value


def _checkpoint(_option: Option, text: str) -> Any:
    if text.lower() in (*_TRUE[:2], *_FALSE[:2]):
        return True if text.lower() in _TRUE else None
    return text


_CONVERT = {
    "str": _text,
    "int": _number,
    "float": _number,
    "bool": _truth,
    "json": _object,
    "list": _text,
    "ints": _number,
    "share": _share,
    "checkpoint": _checkpoint,
}
_NEEDS = {
    "str": "a word",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "json": "a JSON object such as '{\"name\": 0.9}'",
    "list": "one or more words",
    "ints": "whole numbers",
    "share": "a number",
    "checkpoint": "a folder, or true for the newest checkpoint",
}
# Objects that transformers also reads from a JSON file.
_FROM_FILE = ("accelerator_config", "fsdp_config", "deepspeed")
_KINDS = {str: "str", int: "int", float: "float", bool: "bool", dict: "json", list: "list"}


def options_of(cls: type, skip: tuple[str, ...] = ()) -> list[Option]:
    """The options that fill a dataclass whose annotations are plain: `int`, `str | None`, `dict[str, Any]`, ...

    Args:
        cls: the dataclass; its fields' metadata give help, group, choices and bounds.
        skip: fields that are no options.

    Returns:
        In the order of the fields. Fields of types that cannot be typed on a command line are left out.

    Example:
        >>> @dataclass
        ... class Spec:
        ...     rank: int | None = None
        >>> options_of(Spec)[0].flag, options_of(Spec)[0].kind
        ('--rank', 'int')
    """
    import typing

    hints = typing.get_type_hints(cls)
    found = []
    for entry in fields(cls):
        if not entry.init or entry.name in skip:
            continue
        kind, rules, optional = kind_of(entry.name, hints[entry.name])
        if not kind:
            continue
        given = {key: value for key, value in entry.metadata.items() if key not in ("help", "group")}
        default = entry.default
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        text = str(entry.metadata.get("help") or "")
        found.append(Option(entry.name, kind, default, text, entry.metadata.get("group", ""), rules | given, optional))
    return found


def kind_of(name: str, hint: Any) -> tuple[str, dict[str, Any], bool]:
    """Kind, choices and whether None is allowed, of an annotation; an empty kind where it cannot be typed.

    Args:
        name: of the field.
        hint: its annotation, resolved.

    Example:
        >>> kind_of("rank", int | None), kind_of("names", list[str])[0]
        (('int', {}, True), 'list')
    """
    import enum
    import types
    import typing

    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    parts = typing.get_args(hint) if union else (hint,)
    optional = type(None) in parts
    if name == "resume_from_checkpoint":
        return "checkpoint", {}, True
    plain = [typing.get_origin(part) or part for part in parts if part is not type(None)]
    for part in plain:
        if isinstance(part, type) and issubclass(part, enum.Enum):
            return "str", {"choices": tuple(member.value for member in part)}, optional
    if float in plain and str in plain:
        return "share", {}, optional
    of_words = any(typing.get_origin(part) is list and typing.get_args(part) == (str,) for part in parts)
    known = [part for part in plain if part in _KINDS and (part is not list or of_words)]
    for preferred in (dict, list, str, float, int, bool):
        if preferred in known:
            return _KINDS[preferred], {"or_file": True} if name in _FROM_FILE else {}, optional
    return "", {}, optional


def mistake(option: Option, error: ValueError, where: str = "") -> UsageError:
    """The one line that tells what is wrong with an option's value."""
    return UsageError(f"{where}{option.flag} {error}")

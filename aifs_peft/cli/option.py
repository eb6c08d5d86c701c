"""One command-line option: its type, default, bounds and help; the same checks for a value from a YAML file."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from aifs_peft._checks import check_choice, check_count, check_number, did_you_mean, parse_json_object
from aifs_peft.cli.mistakes import UsageError

# Kinds that take several words.
MANY = ("list", "ints", "numbers")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_KINDS = {str: "str", int: "int", float: "float", bool: "bool", dict: "json", list: "list"}
# Objects that transformers also reads from a JSON file.
_FROM_FILE = ("accelerator_config", "fsdp_config", "deepspeed")


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: field of the dataclass it fills, in underscores.
        kind: "str", "int", "float", "bool", "json" (an object), "list" (one or more words), "ints" (one or more whole
            numbers), "numbers" (one or more, or one of the `words`), "share" (a number or one of the `words`) or
            "checkpoint" (a path, or true).
        default: what holds when it is left out.
        help: one sentence, in lower case, without a full stop.
        group: heading that help lists it under; without one it is not listed.
        rules: `choices`; or `low`, `high`, `above` and `below` of `check_number`, and `words` beside numbers.
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

    def convert(self, text: str, name: str | None = None) -> Any:
        """The value of one word of the command line.

        Args:
            text: the word.
            name: what a message calls the option; None for its flag.

        Raises:
            UsageError: saying what is needed instead.
        """
        name = name or self.flag
        if self.kind in ("int", "ints", "float", "numbers"):
            return self._number(text, name)
        if self.kind == "share":
            return text if text in self.rules["words"] else self._share(text, name)
        if self.kind == "bool":
            return self._truth(text, name)
        if self.kind == "json":
            return self._object(text, name)
        if self.kind == "checkpoint" and text.lower() in ("true", "false"):
            return True if text.lower() == "true" else None
        if "choices" in self.rules:
            check_choice(name, text, self.rules["choices"], error=UsageError)
        return text

    def convert_all(self, words: list[str], name: str | None = None) -> Any:
        """The value of an option that takes several words.

        Args:
            words: as typed.
            name: what a message calls the option; None for its flag.

        Raises:
            UsageError: saying what is needed instead.
        """
        if self.kind == "numbers" and len(words) == 1:
            hint = did_you_mean(words[0], self.rules["words"])
            if words[0] in self.rules["words"]:
                return words[0]
            if hint:
                known = ", ".join(self.rules["words"])
                raise UsageError(f"{name or self.flag} must be numbers, or {known}; got {words[0]!r}{hint}")
        return [self.convert(word, name) for word in words]

    def read(self, value: Any, name: str) -> Any:
        """The value of an entry of a YAML file, checked as on the command line.

        Args:
            value: what the file says.
            name: what a message calls it.

        Raises:
            UsageError: saying what is needed instead.
        """
        if value is None:
            if self.optional:
                return None
            raise UsageError(f"{name} must not be empty (null)")
        if self.kind == "json" and isinstance(value, dict):
            return value
        entries = value if self.kind in MANY and isinstance(value, list) else [value]
        for entry in entries:
            # A truth value is no word, though it can be written as one.
            if isinstance(entry, list | dict) or (isinstance(entry, bool) and self.kind in ("str", "list")):
                raise UsageError(f"{name} must be {_NEEDED[self.kind]}; got {value!r}")
        words = [str(entry) for entry in entries]
        return self.convert_all(words, name) if self.kind in MANY else self.convert(words[0], name)

    def _number(self, text: str, name: str) -> Any:
        whole = self.kind in ("int", "ints")
        value: Any
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = text
        if whole:
            return check_count(name, value, self.rules.get("low", -(2**63)), self.rules.get("high"), error=UsageError)
        rules = {key: rule for key, rule in self.rules.items() if key != "words"}
        return check_number(name, value, error=UsageError, **rules)

    def _share(self, text: str, name: str) -> Any:
        rules = {key: value for key, value in self.rules.items() if key != "words"}
        try:
            return check_number(name, float(text), error=UsageError, **rules)
        except ValueError:  # also what float() raises
            hint = did_you_mean(text, self.rules["words"])
            words = " or ".join(map(repr, self.rules["words"]))
            raise UsageError(f"{name} must be a number between 0 and 1, or {words}; got {text!r}{hint}") from None

    def _truth(self, text: str, name: str) -> bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise UsageError(f"{name} must be {_NEEDED['bool']}; got {text!r}")
        return text.lower() in _TRUE

    def _object(self, text: str, name: str) -> Any:
        if self.rules.get("or_file") and not text.lstrip().startswith("{"):
            return text
        return parse_json_object(name, text)


_NEEDED = {
    "str": "a word",
    "int": "a whole number",
    "ints": "whole numbers",
    "float": "a number",
    "numbers": "one or more numbers",
    "bool": "true or false",
    "json": "a JSON object such as '{\"eta\": 0.1}'",
    "list": "one or more words",
    "share": "a number or a word",
    "checkpoint": "a folder, or true for the newest checkpoint",
}


def options_of(cls: type, skip: tuple[str, ...] = ()) -> list[Option]:
    """The options that fill a dataclass whose annotations are plain: `int`, `str | None`, `dict[str, Any]`, ...

    Args:
        cls: the dataclass; its fields' metadata give help, group and rules.
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
    assert is_dataclass(cls)  # noqa: S101 - for the type checker
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
    if any(typing.get_origin(part) is list and typing.get_args(part) == (float,) for part in parts):
        return "numbers", {"words": ()}, optional
    of_words = any(typing.get_origin(part) is list and typing.get_args(part) == (str,) for part in parts)
    known = [part for part in plain if part in _KINDS and (part is not list or of_words)]
    for preferred in (dict, list, str, float, int, bool):
        if preferred in known:
            return _KINDS[preferred], {"or_file": True} if name in _FROM_FILE else {}, optional
    return "", {}, optional

"""Parsing with `argparse`: options in groups with defaults, and every mistake as one line with the closest name."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from aifs_peft._checks import did_you_mean
from aifs_peft.cli.mistakes import UsageError
from aifs_peft.cli.option import MANY, Option

# What every command can be told about its output.
OUTPUT = (
    Option("quiet", "bool", False, "no progress on stderr", "Output"),
    Option("json", "bool", False, "the result as JSON on stdout", "Output"),
)


class Parser(argparse.ArgumentParser):
    """A parser of `Option`s. Names are never abbreviated; dashes and underscores are the same.

    Args:
        command: name of the command.
        description: what it does.
        options: that it takes; those without a group are not listed by help.
        positional: further arguments, as `(name, help, nargs)`.
        defaults: of the command, where they differ from the options'.
        epilog: last lines of the help.
    """

    def __init__(
        self,
        command: str,
        description: str,
        options: Iterable[Option],
        *,
        positional: Sequence[tuple[str, str, str | None]] = (),
        defaults: dict[str, Any] | None = None,
        epilog: str | None = None,
    ) -> None:
        shown = " ".join(name.upper() + (" ..." if nargs in ("+", "*") else "") for name, _, nargs in positional)
        super().__init__(
            prog=f"aifs {command}",
            usage=f"aifs {command} {shown + ' ' if shown else ''}[options]",
            description=description,
            epilog=epilog,
            formatter_class=_formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.options = {option.name: option for option in options}
        for name, text, nargs in positional:
            self.add_argument(name, help=text, nargs=nargs, metavar=name.upper())
        headings: dict[str, Any] = {}
        for option in self.options.values():
            if option.group not in headings:
                headings[option.group] = self.add_argument_group(option.group) if option.group else self
            _add(headings[option.group], option, {option.name: option.default, **(defaults or {})}[option.name])
        (headings.get("Output") or self).add_argument("-h", "--help", action="help", help="show this text and exit")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting: the text is one line."""
        raise UsageError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def known(self, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """What was given of the known options and arguments, by name, and what else was typed.

        Raises:
            UsageError: a value that its option does not take.
        """
        namespace, rest = self.parse_known_args([_dashed(word) for word in argv])
        values = vars(namespace)
        for name, option in self.options.items():
            if name in values and values[name] not in (True, False):  # those are written by the parser itself
                word = values[name]
                values[name] = option.convert_all(word) if option.kind in MANY else option.convert(word)
        return values, rest

    def given(self, argv: Sequence[str]) -> dict[str, Any]:
        """What was given, by name.

        Raises:
            UsageError: an unknown option, with the closest known one; or a value that its option does not take.
        """
        values, rest = self.known(argv)
        if rest:
            self.refuse(rest)
        return values

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Say which of the words left over is no option, and which one comes closest.

        Raises:
            UsageError: always.
        """
        unknown = [word.split("=")[0] for word in rest if word.startswith("-")]
        if not unknown:
            self.error(f"unexpected argument {rest[0]!r}")
        flags = [flag for o in self.options.values() for flag in (o.flag, *(f"--{name}" for name in o.aliases))]
        self.error(f"unknown option {unknown[0]}{did_you_mean(unknown[0], flags)}")

    def values(self, argv: Sequence[str]) -> argparse.Namespace:
        """What was given, and the defaults of the rest.

        Raises:
            UsageError: as `given`.
        """
        defaults = {option.name: option.default for option in self.options.values()}
        return argparse.Namespace(**{**defaults, **self.given(argv)})


def _add(heading: Any, option: Option, default: Any) -> None:
    text = (option.help or "").replace("%", "%%") + _default_text(option, default)
    settings: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": text}
    if not option.group:
        settings["help"] = argparse.SUPPRESS

    settings["metavar"] = _metavar(option)
    if option.kind == "bool":
        heading.add_argument(option.flag, nargs="?", const=True, **settings)
        off = {"dest": option.name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        heading.add_argument("--no-" + option.flag[2:], action="store_const", const=False, **off)
    elif option.kind in MANY:
        heading.add_argument(option.flag, nargs="+", **settings)
    else:
        heading.add_argument(option.flag, *(f"--{name}" for name in option.aliases), **settings)


def _metavar(option: Option) -> str:
    if "choices" in option.rules and sum(map(len, option.rules["choices"])) < 60:
        return "{" + ",".join(option.rules["choices"]) + "}"
    named = {"int": "N", "float": "X", "bool": "true|false", "json": "JSON", "share": "X", "ints": "N", "numbers": "X"}
    return named.get(option.kind, "PATH" if option.name.endswith(("dir", "config", "checkpoint")) else "WORD")


def _default_text(option: Option, default: Any) -> str:
    if default in (None, "", {}, []) or (option.kind == "bool" and default is False):
        return ""
    shown = str(default).lower() if option.kind == "bool" else default
    if isinstance(default, list | tuple):
        shown = " ".join(map(str, default))
    return f" (default: {shown})".replace("%", "%%")


def _dashed(word: str) -> str:
    """`--learning_rate=x_y` as `--learning-rate=x_y`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name.strip("-_").replace("_", "-") + equals + value


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=32, width=min(shutil.get_terminal_size().columns, 110))

"""Markdown from data: every value is escaped unless it was marked as Markdown already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# An underscore within a word is no emphasis; these characters begin a heading, a list or a quotation.
_SPECIAL = re.compile(r"([\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|^[#>+=-](?=.)|(?<=^\d)[.)])")


class Markdown(str):
    """Text that is Markdown already: made by this package, or escaped."""

    __slots__ = ()


def escape(value: Any) -> Markdown:
    r"""Text from data as one line of Markdown that renders as the same text: no markup, no table, no link.

    Example:
        >>> print(escape("<b>|x|</b>"), escape("[a](b)"))
        &lt;b&gt;&#124;x&#124;&lt;/b&gt; \[a\](b)
    """
    if isinstance(value, Markdown):
        return value
    text = html.escape(" ".join(str(value).split()), quote=False).replace("|", "&#124;")
    return Markdown(_SPECIAL.sub(r"\\\1", text))


def code(value: Any) -> Markdown:
    """Text from data as it may stand between backticks.

    Example:
        >>> code("a`b")
        "a'b"
    """
    return Markdown(" ".join(str(value).split()).replace("`", "'"))


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table whose first column is text and whose others are numbers, set to the right.

    Example:
        >>> print(table(["group", "n"], [["a|b", 3]]))
        | group | n |
        |---|---:|
        | a&#124;b | 3 |
    """
    lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in (header, *rows)]
    lines.insert(1, "|---|" + "---:|" * (len(header) - 1))
    return Markdown("\n".join(lines))


def bullets(items: Iterable[Any]) -> Markdown:
    """One list item per value; a pair is a name, set in bold, with its text.

    Example:
        >>> print(bullets(["a", ("Data", "b")]))
        - a
        - **Data.** b
    """
    lines = [f"**{escape(i[0])}.** {escape(i[1])}" if isinstance(i, tuple) else escape(i) for i in items]
    return Markdown("\n".join(f"- {line}" for line in lines))


def environment() -> Environment:
    """The templates of this folder for Markdown: what a template prints is escaped."""
    return Environment(  # noqa: S701 - the escape of Markdown is `finalize`'s  # nosec B701
        loader=PackageLoader("aifs_peft.report"),
        finalize=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )

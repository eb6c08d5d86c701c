"""README and docs as tests see them: their blocks of code, in order, and how one page is run."""

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from aifs_peft import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\n", flags=re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r"\n?<!-- output -->\n```text\n(.*?)```\n<!-- /output -->\n", flags=re.DOTALL)
Shorter = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page.

    Attributes:
        language: "" where none is named.
        text: between the fences.
        line: of its first line.
        output: what the page says that it prints, between `<!-- output -->` marks; None where it says nothing.
        output_span: where that stands in the page.
    """

    language: str
    text: str
    line: int
    output: str | None = None
    output_span: tuple[int, int] = (0, 0)


@dataclass
class PageRun:
    """What is left when every block of a page has run: its names, and what each block printed."""

    names: dict[str, Any] = field(default_factory=dict)
    outputs: list[tuple[Block, str]] = field(default_factory=list)

    @property
    def printed(self) -> str:
        return "".join(text for _, text in self.outputs)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in their order."""
    text, found, start = text_of(page), [], 0
    while match := _FENCE.search(text, start):
        start = match.end()
        told = _OUTPUT.match(text, start)
        line = text[: match.start()].count("\n") + 2
        if told:
            found.append(Block(match[1], match[2], line, told[1], told.span(1)))
            start = told.end()
        else:
            found.append(Block(match[1], match[2], line))
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[list[str]]:
    """The words of every command of a shell block, without comments; a line that ends in a backslash goes on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def aifs_arguments(words: list[str]) -> list[str] | None:
    """What follows `aifs` in a command, or `finetune` and what follows the script that stands for it; else None."""
    if words[0] == "aifs":
        return words[1:]
    if "scripts/finetune.py" in words:
        return ["finetune", *words[words.index("scripts/finetune.py") + 1 :]]
    return None


def run_page(page: str, *, shell: bool, shorter: Shorter = ()) -> PageRun:
    """Run the Python of a page in one namespace, from the working folder, and with `shell` its `aifs` commands between.

    A block of doctest lines must print what it says. Whatever raises, warns or ends with a status other than 0 fails
    the test at the line of the page. `shorter` are texts to put in the place of others, such as fewer epochs.
    """
    run, where, unused = PageRun({"__name__": "__main__"}), str(ROOT / page), {old for old, _ in shorter}
    for block in blocks(page, "python", *(["bash"] if shell else [])):
        text, out = block.text, io.StringIO()
        for old, new in shorter:
            unused -= {old} if old in text else set()
            text = text.replace(old, new)
        with contextlib.redirect_stdout(out):
            if block.language == "bash":
                for words in commands(replace(block, text=text)):
                    _run_command(words, f"{page}:{block.line}")
            elif text.startswith(">>>"):
                _run_doctest(block, run.names, where)
            else:
                code = "\n" * (block.line - 1) + text  # so that a traceback names the line of the page
                exec(compile(code, where, "exec"), run.names)
        run.outputs.append((block, out.getvalue().replace(f"{Path.cwd()}/", "")))
    assert not unused, f"{page} has no {sorted(unused)} to make shorter"
    return run


def without_numbers(text: str) -> str:
    """A text whose words count: any number is the same, any white space, and any folder of a path."""
    return " ".join(re.sub(r"\d+(?:[.,:]\d+)*", "0", re.sub(r"\S*/", "", text)).split())


def _run_command(words: list[str], where: str) -> None:
    arguments = aifs_arguments(words)
    if arguments is None:
        pytest.fail(f"{where}: only aifs commands can be run, not {words[0]!r}")
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = cli.main(arguments)
    assert status == 0, f"{where}: {shlex.join(words)} ended with {status}: {errors.getvalue()}"


def _run_doctest(block: Block, names: dict[str, Any], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, names, where, where, block.line - 1)
    told = io.StringIO()
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=told.write, clear_globs=False)
    names.update(test.globs)
    assert not failed, told.getvalue()

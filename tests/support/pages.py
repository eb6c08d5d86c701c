"""README and docs as tests see them: their blocks of code, in order, and how one page is run."""

import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aifs_peft import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page: its language ("" where none is named), its text, its line."""

    language: str
    text: str
    line: int


@dataclass
class PageRun:
    """What is left when every block of a page has run: its names, and all that was printed."""

    names: dict[str, Any] = field(default_factory=dict)
    printed: str = ""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in their order."""
    text = text_of(page)
    found = [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in _FENCE.finditer(text)]
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


def run_page(page: str, *, shell: bool) -> PageRun:
    """Run the Python of a page in one namespace, from the working folder, and with `shell` its `aifs` commands between.

    A block of doctest lines must print what it says. Whatever raises, warns or ends with a status other than 0 fails
    the test at the line of the page.
    """
    run, out = PageRun({"__name__": "__main__"}), io.StringIO()
    where = str(ROOT / page)
    for block in blocks(page, "python", *(["bash"] if shell else [])):
        with contextlib.redirect_stdout(out):
            if block.language == "bash":
                for words in commands(block):
                    _run_command(words, f"{page}:{block.line}")
            elif block.text.startswith(">>>"):
                _run_doctest(block, run.names, where)
            else:
                code = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
                exec(compile(code, where, "exec"), run.names)
    run.printed = out.getvalue()
    return run


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

"""Every message that docs/troubleshooting.md quotes still stands in the package's source, word for word."""

import ast
import re
from pathlib import Path

import pytest
from pages import ROOT, text_of

from aifs_peft.training.termination import TERMINATED

VARIES = "\0"
SECTIONS = text_of("docs/troubleshooting.md").partition("## Messages of other libraries")[0]
QUOTED = re.findall(r"^\*\*`(.+)`\*\*$", SECTIONS, flags=re.MULTILINE)


class _Texts(ast.NodeVisitor):
    """Collects every string of a module, with a mark in the place of what is filled in."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append(re.sub(r"\{\w*(?:![rs])?(?::[^{}]*)?\}", VARIES, node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [part.value if isinstance(part, ast.Constant) else VARIES for part in node.values]
        self.found.append("".join(str(part) for part in parts))
        self.generic_visit(node)


def texts_of_the_package() -> list[str]:
    found = []
    for path in (ROOT / "aifs_peft").rglob("*.py"):
        reader = _Texts()
        reader.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += reader.found
    return found


def pieces(message: str) -> list[str]:
    """The parts of a quoted message that do not vary."""
    return [piece.strip() for piece in message.split("...") if piece.strip(" ,;:.()[]\"'")]


TEXTS = texts_of_the_package()


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message: str) -> None:
    fixed = ".*".join(map(re.escape, pieces(message)))
    assert any(re.search(fixed, text, flags=re.DOTALL) for text in TEXTS), pieces(message)


def test_the_page_quotes_and_explains() -> None:
    assert len(QUOTED) >= 30
    assert len(set(QUOTED)) == len(QUOTED)
    for entry in re.split(r"^\*\*`.+`\*\*$", SECTIONS, flags=re.MULTILINE)[1:]:
        assert len(entry.split()) >= 4, "a message without a word on what to do"


def test_a_changed_message_would_be_noticed() -> None:
    assert not any("a message that nobody raises" in text for text in TEXTS)


def test_exit_statuses_are_those_of_the_code() -> None:
    from aifs_peft.cli import mistakes

    page = text_of("docs/commands.md")
    told = [int(status) for status in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)]
    assert told == [0, mistakes.FAILED, mistakes.MISTAKE, mistakes.INTERRUPTED, TERMINATED]


def test_every_command_has_a_row() -> None:
    from aifs_peft.cli import COMMANDS

    page = text_of("docs/commands.md")
    assert set(re.findall(r"^\| `aifs (\w+)", page, flags=re.MULTILINE)) == set(COMMANDS)
    assert Path(ROOT / "scripts" / "finetune.py").is_file()

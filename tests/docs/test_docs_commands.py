"""Every command in README and docs exists, and takes every option that it is given there."""

import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, Block, aifs_arguments, blocks, commands, text_of

from aifs_peft import cli
from aifs_peft.cli import options
from aifs_peft.cli.mistakes import UsageError
from aifs_peft.cli.parser import Parser

SHELL = [(page, block) for page in PAGES for block in blocks(page, "bash")]
LAUNCHERS = {"torchrun", "accelerate"}


class UnderstoodError(Exception):
    """Raised by the parser in place of going on with the command."""


def understand(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real parser of a command read its words, and stop there."""
    name, *words = arguments
    assert name in cli.COMMANDS, name
    if name == "finetune":
        options.parse(words)
        return
    if not words:
        return
    read = Parser.given

    def given(self: Parser, argv: Sequence[str]) -> dict[str, Any]:
        read(self, argv)
        raise UnderstoodError

    monkeypatch.setattr(Parser, "given", given)
    with pytest.raises(UnderstoodError):
        import_module(f"aifs_peft.cli.{name}").main(words)


@pytest.mark.parametrize(("page", "block"), SHELL, ids=[f"{page}:{block.line}" for page, block in SHELL])
def test_commands_are_understood(page: str, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")  # configurations that pages name
    for config in blocks(page, "yaml"):
        (tmp_path / "run.yaml").write_text(config.text)
    for words in commands(block):
        arguments = aifs_arguments(words)
        with monkeypatch.context() as patch:
            if arguments is not None:
                assert words[0] == "aifs" or words[0] in LAUNCHERS or words[0] == "python", words
                understand(arguments, patch)
            elif words[0] == "make":
                assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
            elif words[:2] == ["python", "-m"]:
                import_module(words[2])
            elif words[:2] == ["pip", "install"]:
                extras = re.findall(r"\[([\w,]+)\]", shlex.join(words))
                for extra in ",".join(extras).split(",") if extras else []:
                    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE), (
                        extra
                    )
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), words
            else:
                pytest.fail(f"{page}:{block.line}: nothing here knows {words[0]!r}; add a check of it")


def test_a_wrong_option_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--datset"):
        understand(["finetune", "--datset", "x"], monkeypatch)
    assert cli.main(["audit", "x", "--imagee", "y"]) == 2


def test_commands_stand_in_blocks_that_are_checked() -> None:
    """A fence without a language, or another one, would hide a command from the test above."""
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("bash", "python", "yaml"):
                assert not re.search(r"^\$? ?(aifs|accelerate|make|pip) ", block.text, flags=re.MULTILINE), page


def test_inline_commands_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in sentences and tables: `aifs NAME`, with all that is typed behind it."""
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        for text in re.findall(r"`(aifs [a-z][^`]*)`", text_of(page)):
            arguments = shlex.split(text)[1:]
            with monkeypatch.context() as patch:
                if len(arguments) > 1 and "--help" not in arguments and "--help-all" not in arguments:
                    understand(arguments, patch)
                assert arguments[0] in cli.COMMANDS, (page, text)

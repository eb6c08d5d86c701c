"""`aifs card RUN`: the model card of a run, from its summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json

_DESCRIPTION = "Print the model card of a run, made from its summary.json; or write it into a file."
_OPTIONS = (
    Option("output", "str", None, "file to write, such as RUN/README.md; left out: stdout", "Output"),
    *OUTPUT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Print the card, or write it."""
    positional = [("run", "folder that `aifs finetune` wrote", None)]
    given = Parser("card", _DESCRIPTION, _OPTIONS, positional=positional).values(argv)
    from aifs_peft._saved import expecting_our_form
    from aifs_peft.experiments.saved import read_summary
    from aifs_peft.report import render_card

    summary = read_summary(given.run)
    with expecting_our_form(given.run):
        card = str(render_card(summary))
    if given.output is not None:
        Path(given.output).write_text(card, encoding="utf-8")
        Progress(quiet=given.quiet)(f"saved: {given.output}")
    if given.json:
        print_json({"card": card})
    elif given.output is None:
        print(card)
    return 0

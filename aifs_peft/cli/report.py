"""`aifs report RUN`: the HTML report of a run."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import print_json

_OPTIONS = (
    Option("output", "str", None, "file to write; left out: report.html in the run's folder", "Output"),
    *OUTPUT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Write the report and print its path."""
    positional = [("run", "folder that `aifs finetune` or `aifs audit` wrote", None)]
    given = Parser("report", "Write one static HTML file about a run.", _OPTIONS, positional=positional).values(argv)
    from aifs_peft.report import write_report

    path = write_report(given.run, given.output)
    if given.json:
        print_json({"report": str(path)})
    else:
        print(path)
    return 0

"""`aifs reproduce RESULT.json`: one run of the benchmark again, and whether it agrees."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.cli.bench import CACHE
from aifs_peft.cli.mistakes import FAILED, command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import print_json, quiet_libraries

_OPTIONS = (Option("cache", "str", CACHE, "folder that keeps latents", "Runs"), *OUTPUT)
_DESCRIPTION = (
    "Do one run of the benchmark again, with the setting that was chosen then, and compare: on the same data "
    "worst-group and average accuracy must lie in the intervals of the result. Exit status 1 where they do not."
)


@command
def main(argv: Sequence[str]) -> int:
    """Run again and compare."""
    positional = [("result", "file that `aifs bench` wrote", None)]
    given = Parser("reproduce", _DESCRIPTION, _OPTIONS, positional=positional).values(argv)
    quiet_libraries()
    from aifs_peft.bench import reproduce

    done = reproduce(given.result, given.cache)
    if given.json:
        numbers = [
            {"name": n.name, "recorded": n.recorded, "interval": list(n.interval), "now": n.now, "agrees": n.agrees}
            for n in done.numbers
        ]
        print_json({"agrees": done.agrees, "same_data": done.same_data, "numbers": numbers})
    else:
        print(done.describe())
    return 0 if done.agrees else FAILED

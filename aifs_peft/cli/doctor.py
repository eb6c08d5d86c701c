"""`aifs doctor`: is the environment sound, and is a local copy of a data set complete?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from aifs_peft.cli.data_options import data_options
from aifs_peft.cli.mistakes import FAILED, command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import print_json

_GROUP = "Data set"
_OWN = ("image", "text", "features", "label", "attribute", "split", "test_share")
_OPTIONS = (
    Option("dataset", "str", None, "a known data set, or your own data; without it the environment is checked", _GROUP),
    Option("data_dir", "str", None, "folder of the local copy of a known data set", _GROUP),
    Option("dataset_options", "json", {}, "options of the data set", _GROUP, aliases=("option",)),
    *(option for option in data_options() if option.name in _OWN),
    *OUTPUT,
)
_DESCRIPTION = "Check the environment; or with --dataset, whether a data set is complete and what its groups hold."


@command
def main(argv: Sequence[str]) -> int:
    """Print the findings; status 1 when something must be mended."""
    given = Parser("doctor", _DESCRIPTION, _OPTIONS).values(argv)
    if given.dataset is None:
        from aifs_peft.environment import check_environment

        checks = check_environment()
        if given.json:
            print_json([asdict(check) for check in checks])
        else:
            print("\n".join(map(str, checks)))
        return FAILED if any(check.ok is False for check in checks) else 0
    from aifs_peft.data.doctor import check_data_set  # needs datasets, which a broken environment may lack
    from aifs_peft.experiments.loading import own_options
    from aifs_peft.experiments.spec import FinetuneSpec

    spec = FinetuneSpec(dataset=given.dataset, **{name: getattr(given, name) for name in _OWN})
    report = check_data_set(given.dataset, given.data_dir, **{**own_options(spec), **given.dataset_options})
    if given.json:
        card = asdict(report.card)
        print_json({"ok": report.ok, "card": card, "problems": report.problems, "notes": report.notes})
    else:
        print(report)
    return 0 if report.ok else FAILED

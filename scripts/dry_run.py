"""What a training at full size would take: `python scripts/dry_run.py --config benchmarks/full_size/NAME.yaml`.

The options are those of `aifs finetune`. The architecture is built with random weights, so nothing is downloaded; two
steps are taken; time and memory are extrapolated; the data folder is checked. Exit status 1 where it is not complete.
"""

import sys

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.options import parse
from aifs_peft.cli.screen import quiet_libraries


@command
def main(argv: list[str]) -> int:
    """Print the forecast."""
    spec, args, _ = parse(argv)
    quiet_libraries()
    from aifs_peft.bench.full_size import dry_run

    forecast = dry_run(spec, args)
    print(forecast.describe())
    return 0 if forecast.complete else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every ablation of the benchmark: `python scripts/ablate.py [options of aifs bench]`.

The published recipe and AIFS with one part changed at a time, parts of discovery and of its head removed in turn, the
strength of the intervention, and what group labels of validation examples buy. Each is a file of
`benchmarks/experiments/`, and this is `aifs bench --experiment FILE` on all of them; with `--dry-run` it says what is
missing, with `--tables DIR` it renders.
"""

import sys
from pathlib import Path

from aifs_peft.cli import main

EXPERIMENTS = ("ablate_recipe", "ablate_gradient", "ablate_discovery", "strength", "group_labels")
FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "experiments"

if __name__ == "__main__":
    for name in EXPERIMENTS:
        status = main(["bench", "--experiment", str(FOLDER / f"{name}.json"), *sys.argv[1:]])
        if status:
            sys.exit(status)

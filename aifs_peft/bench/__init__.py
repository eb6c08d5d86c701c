"""The benchmark: experiments as files, one JSON per run, tables and figures from those alone.

`experiment` reads a file, `sets` and `draws` give data as latents, `space` says what is tuned, `frozen` and `tuned` fit
once, `choosing` chooses without group labels, `running` does what is missing, `reproducing` does one run again. What
they write is read by `results` and compared by `statistics`; `parts` says what there is to say (`overview`, `claims`,
`ablation`, `strength`, `group_labels`, `tables`), `figures` draws, `rendering` writes files. None of them fits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aifs_peft.bench.experiment import Experiment, read_experiment
    from aifs_peft.bench.reproducing import Reproduction, reproduce
    from aifs_peft.bench.results import read_results
    from aifs_peft.bench.running import plan, run_experiment

# Public name -> the module it lives in; imported when first asked for.
_LAZY = {
    "Experiment": "aifs_peft.bench.experiment",
    "Reproduction": "aifs_peft.bench.reproducing",
    "plan": "aifs_peft.bench.running",
    "read_experiment": "aifs_peft.bench.experiment",
    "read_results": "aifs_peft.bench.results",
    "reproduce": "aifs_peft.bench.reproducing",
    "run_experiment": "aifs_peft.bench.running",
}
__all__ = ["Experiment", "Reproduction", "plan", "read_experiment", "read_results", "reproduce", "run_experiment"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

"""Protocol, runner and tables: from names of a model and a data set to numbers with their provenance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: its sub-module has the same name, and would stand in its place once something imported it.
from aifs_peft.experiments.provenance import provenance

if TYPE_CHECKING:
    from aifs_peft.experiments.compare import markdown_table, rows, summarise
    from aifs_peft.experiments.latents import encode
    from aifs_peft.experiments.prepare import PreparedDataset, make_encoder
    from aifs_peft.experiments.run import FinetuneResult, run_finetune
    from aifs_peft.experiments.spec import FinetuneSpec

# Public name -> the module it lives in; imported when first asked for: `aifs --help` needs the options alone.
_LAZY = {
    "FinetuneResult": "aifs_peft.experiments.run",
    "FinetuneSpec": "aifs_peft.experiments.spec",
    "PreparedDataset": "aifs_peft.experiments.prepare",
    "encode": "aifs_peft.experiments.latents",
    "make_encoder": "aifs_peft.experiments.prepare",
    "markdown_table": "aifs_peft.experiments.compare",
    "rows": "aifs_peft.experiments.compare",
    "run_finetune": "aifs_peft.experiments.run",
    "summarise": "aifs_peft.experiments.compare",
}
__all__ = [
    "FinetuneResult",
    "FinetuneSpec",
    "PreparedDataset",
    "encode",
    "make_encoder",
    "markdown_table",
    "provenance",
    "rows",
    "run_finetune",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

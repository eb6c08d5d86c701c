"""Protocol, runner and tables: from names of a model and a data set to numbers with their provenance."""

from aifs_peft.experiments.compare import markdown_table, rows, summarise
from aifs_peft.experiments.finetune import FinetuneResult, FinetuneSpec, run_finetune
from aifs_peft.experiments.prepare import PreparedDataset, make_encoder
from aifs_peft.experiments.provenance import provenance

__all__ = [
    "FinetuneResult",
    "FinetuneSpec",
    "PreparedDataset",
    "make_encoder",
    "markdown_table",
    "provenance",
    "rows",
    "run_finetune",
    "summarise",
]

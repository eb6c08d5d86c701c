"""Protocol, runner and tables: from names of a model and a data set to numbers with their provenance."""

from aifs_peft.experiments.compare import markdown_table, rows, summarise
from aifs_peft.experiments.finetune import FinetuneResult, FinetuneSpec, run_finetune
from aifs_peft.experiments.prepare import PreparedDataset, make_encoder
from aifs_peft.experiments.provenance import provenance
from aifs_peft.models.loading import load_model, load_processor, resolve_model

__all__ = [
    "FinetuneResult",
    "FinetuneSpec",
    "PreparedDataset",
    "load_model",
    "load_processor",
    "make_encoder",
    "markdown_table",
    "provenance",
    "resolve_model",
    "rows",
    "run_finetune",
    "summarise",
]

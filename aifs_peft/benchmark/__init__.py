"""Protocol, runner and tables: from names of a model and a data set to numbers with their provenance."""

from aifs_peft.benchmark.compare import markdown_table, rows, summarise
from aifs_peft.benchmark.finetune import FinetuneResult, FinetuneSpec, run_finetune
from aifs_peft.benchmark.models import load_model, load_processor, resolve_model
from aifs_peft.benchmark.prepare import PreparedDataset, make_encoder
from aifs_peft.benchmark.provenance import provenance

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

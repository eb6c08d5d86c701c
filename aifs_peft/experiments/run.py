"""One fine-tuning run from names to numbers: build, train, evaluate, describe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.experiments.build import build_trainer
from aifs_peft.experiments.describe import describe_run
from aifs_peft.experiments.evaluation import evaluate_groups
from aifs_peft.experiments.provenance import provenance

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback

    from aifs_peft.experiments.spec import FinetuneSpec
    from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments


@dataclass
class FinetuneResult:
    """A trained model with its numbers.

    Args:
        model: the trained PEFT model.
        trainer: its trainer.
        processor: image processor or tokenizer of the base model; `None` for tables.
        summary: plain data for `summary.json`; metrics, groups, settings and provenance.
    """

    model: PeftModel
    trainer: AIFSTrainer
    processor: Any
    summary: dict[str, Any]


def run_finetune(
    spec: FinetuneSpec, args: AIFSTrainingArguments, callbacks: list[TrainerCallback] | None = None
) -> FinetuneResult:
    """Fine-tune and evaluate once; group labels are read for the metrics on the test split alone, and by oracles.

    Args:
        spec: what to fine-tune on what.
        args: how to train.
        callbacks: what the run shows; None leaves transformers' own printing.

    Raises:
        AIFSError: as `build_trainer`, and what training raises.
    """
    run = build_trainer(spec, args, callbacks)
    started = time.perf_counter()
    run.trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    seconds = time.perf_counter() - started
    logits = np.asarray(run.trainer.predict(run.prepared["test"]).predictions, dtype=np.float64)
    summary = {
        **describe_run(run, spec, args),
        "metrics": evaluate_groups(run.splits["test"], logits, spec.n_boot, args.seed, run.splits["train"]),
        "seconds": seconds,
        "provenance": provenance(),
    }
    return FinetuneResult(run.trainer.adapted, run.trainer, run.processor, summary)

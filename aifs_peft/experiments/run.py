"""One fine-tuning run from names to numbers: build, train, compare with plain training, describe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft._plain import plain as to_plain
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments.auditing import audit_rows
from aifs_peft.experiments.baseline import (
    ERM,
    FROZEN,
    NONE,
    NOTES,
    UNTUNED,
    Plain,
    drop_checkpoints,
    nothing_plain,
    plain_arguments,
    starting_head,
    train_plain_head,
)
from aifs_peft.experiments.build import Assembled, build_trainer
from aifs_peft.experiments.comparison import compare
from aifs_peft.experiments.describe import describe_run
from aifs_peft.experiments.evaluation import evaluate_groups
from aifs_peft.experiments.held_out import cells_of_test, latent_model, toggled_test, values_of_test
from aifs_peft.experiments.highlighting import reader_of_audit
from aifs_peft.experiments.latents import latents_of
from aifs_peft.experiments.prepare import label_names
from aifs_peft.experiments.provenance import provenance
from aifs_peft.experiments.streamed import Prepared
from aifs_peft.experiments.toggling import LatentModel, toggled_or_reason
from aifs_peft.training.frozen import LatentDataset, on_latents
from aifs_peft.training.labels import without_labels

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback

    from aifs_peft.audit import Audit
    from aifs_peft.experiments.spec import FinetuneSpec
    from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments

T = TypeVar("T")
SPLITS = ("train", "validation", "test")


def _silent(_text: str) -> None:
    """Tell nobody."""


@dataclass
class FinetuneResult:
    """A trained model with its numbers.

    Args:
        model: the trained PEFT model.
        trainer: its trainer.
        processor: image processor or tokenizer of the base model; `None` for tables.
        summary: plain data for `summary.json`; metrics, comparison with plain training, settings and provenance.
        metrics: as `aifs_peft.metrics.group_metrics` gives them, with NaN where the summary has null.
        plain: the plain counterpart.
        logits: of the test split, `(n, classes)`.
        audit: of the training set before training; None where `spec.audit` is off.
        what_if: test predictions with the found attribute toggled, for `what_if.json`; empty where `spec.audit` is off.
        prepared: the splits as the model takes them.
        reader: of the attribute that the audit found, in latents of the untuned encoder; None where it found none.
    """

    model: PeftModel
    trainer: AIFSTrainer
    processor: Any
    summary: dict[str, Any]
    metrics: dict[str, Any]
    plain: Plain
    logits: NDArray[np.float64]
    audit: Audit | None = None
    what_if: dict[str, Any] = field(default_factory=dict)
    prepared: dict[str, Prepared] = field(default_factory=dict)
    reader: Tensor | None = None


def run_finetune(
    spec: FinetuneSpec,
    args: AIFSTrainingArguments,
    callbacks: list[TrainerCallback] | None = None,
    *,
    plain: Plain | None = None,
    say: Callable[[str], None] = _silent,
) -> FinetuneResult:
    """Fine-tune, evaluate, and compare with plain training on the same test split.

    Group labels are read for the numbers on the test split, and in training by oracles alone.

    Args:
        spec: what to fine-tune on what.
        args: how to train.
        callbacks: what the run shows; None leaves transformers' own printing.
        plain: a plain counterpart that is there already, in place of the one that `spec.baseline` names.
        say: told in one line what is being done.

    Returns:
        Model, numbers and summary.

    Raises:
        AIFSError: as `build_trainer`, and what training raises.
    """
    run = build_trainer(spec, args, callbacks)
    run.trainer.fit_blocks()
    kind = NONE if plain is not None else plain_kind(run, spec)
    start = starting_head(run.trainer.layer) if kind in (FROZEN, UNTUNED) else None
    kept, seconds = _timed(lambda: encode_splits(run, say) if run.encode_once else {})
    # Of an encoder that is tuned: its latents before that, and no part of what the run costs.
    before = kept or encode_splits(run, say, _wanted(kind, spec))
    pool = encode_unlabelled(run, say) if run.encode_once or spec.audit else None
    logits, more = _timed(lambda: train(run, args, kept, say, pool))
    if start is not None:
        say("plain training of a head on the same latents, for comparison")
        labels = {name: part.labels for name, part in run.prepared.items()}
        plain = Plain(kind, NOTES[kind], *train_plain_head(start, before, labels, args))
    elif kind == ERM:
        plain = Plain(ERM, NOTES[ERM], *_train_plainly(replace(spec, unlabelled=None), args, say))
    beside = plain or nothing_plain(run.trainer.method.name)
    audit = _audit(run, before["train"], pool, args.seed, say) if spec.audit else None
    metrics = evaluate_groups(run.splits["test"], logits, spec.n_boot, args.seed, run.splits["train"])
    reader = None
    if audit is not None and audit.found:
        reader = reader_of_audit(audit, before["train"], run.prepared["train"].labels)
    wanted = spec.audit or "group" not in run.splits["test"].column_names
    values = values_of_test(run, before, audit, reader) if wanted else None
    summary = {
        **describe_run(run, spec, args),
        "metrics": metrics,
        "baseline": {"kind": beside.kind, "note": beside.note},
        "comparison": compare(run.prepared["test"].labels.numpy(), logits, beside.logits, cells_of_test(run, values)),
        "audit": None if audit is None else audit.to_dict(),
        "seconds": seconds + more,
        "provenance": provenance(),
    }
    toggled = toggled_or_reason(lambda: toggled_test(run, before, beside, audit, values), say) if spec.audit else {}
    trainer, beside = run.trainer, replace(beside, model=None)  # it may be a whole second model
    return FinetuneResult(
        trainer.adapted, trainer, run.processor, to_plain(summary), metrics, beside, logits, audit, toggled,
        run.prepared, reader,
    )  # fmt: skip


def plain_kind(run: Assembled, spec: FinetuneSpec) -> str:
    """Which plain training a run is compared with, see `aifs_peft.experiments.baseline`.

    Args:
        run: built.
        spec: of the run.
    """
    if run.trainer.method.name == "erm" or spec.baseline == "none":
        return NONE
    if spec.baseline == "erm":
        return ERM
    return FROZEN if spec.adapter == "none" else UNTUNED


def _wanted(kind: str, spec: FinetuneSpec) -> tuple[str, ...]:
    """The splits whose latents before tuning are read: by the plain head, or by the audit."""
    if kind == UNTUNED:
        return SPLITS
    return ("train",) if spec.audit else ()


def encode_splits(run: Assembled, say: Callable[[str], None], splits: Sequence[str] = SPLITS) -> dict[str, Tensor]:
    """Latents of splits by the model as it is.

    Args:
        run: built.
        say: told what is being done.
        splits: which.
    """
    if not splits:
        return {}
    parts = {name: run.prepared[name] for name in splits}
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    state = "frozen, so once for all epochs" if run.encode_once else "as it is before training"
    say(f"encoding {sizes} examples (encoder {state})")
    return {name: _untuned(run, part) for name, part in parts.items()}


def _untuned(run: Assembled, part: Prepared) -> Tensor:
    """Latents of one split before training, from the cache's folder where they are there."""
    return latents_of(run.trainer.adapted, part, accelerator=run.trainer.accelerator, cache_dir=run.latent_cache)


def encode_unlabelled(run: Assembled, say: Callable[[str], None]) -> Tensor | None:
    """Latents of the examples without labels by the model as it is; None without any.

    Args:
        run: built.
        say: told what is being done.
    """
    if run.unlabelled is None:
        return None
    say(f"encoding {len(run.unlabelled):,} unlabelled examples with the same encoder")
    return _untuned(run, run.unlabelled)


def train(
    run: Assembled,
    args: AIFSTrainingArguments,
    latents: Mapping[str, Tensor],
    say: Callable[[str], None],
    pool: Tensor | None = None,
) -> NDArray[np.float64]:
    """Train, and predict the test split.

    Args:
        run: built.
        args: how to train.
        latents: of every split, which the adapter is then trained on; empty for training with the encoder.
        say: told what is being done.
        pool: latents of the examples without labels, read where `latents` are.

    Returns:
        Logits of the test split, `(n, classes)`.
    """
    trainer = run.trainer
    say(f"training {trainer.method.name} on {len(run.prepared['train']):,} examples")
    if not latents:
        return _fit_and_predict(trainer, args, run.prepared["test"])
    sets = {name: LatentDataset(latents[name], part.labels, part.columns) for name, part in run.prepared.items()}
    unlabelled = None if pool is None else without_labels(LatentDataset(pool, torch.full((len(pool),), -1), {}))
    with on_latents(trainer, sets["train"], sets["validation"], unlabelled):
        return _fit_and_predict(trainer, args, sets["test"])


def _fit_and_predict(trainer: AIFSTrainer, args: AIFSTrainingArguments, test: Any) -> NDArray[np.float64]:
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return np.asarray(trainer.predict(test).predictions, dtype=np.float64)


def _train_plainly(
    spec: FinetuneSpec, args: AIFSTrainingArguments, say: Callable[[str], None]
) -> tuple[NDArray[np.float64], LatentModel]:
    """Plain training of the whole: encoder, adapter and head."""
    plain_args = plain_arguments(args)
    run = build_trainer(spec, plain_args, [])
    kept = encode_splits(run, say) if run.encode_once else {}
    logits = train(run, plain_args, kept, say)
    drop_checkpoints(run.trainer)
    return logits, latent_model(run.trainer, run.prepared, kept)


def plain_of(result: FinetuneResult) -> Plain:
    """A run of plain training (ERM) as what other methods on the same data are compared with.

    Args:
        result: of the run.
    """
    return Plain(ERM, NOTES[ERM], result.logits, latent_model(result.trainer, result.prepared))


def _audit(run: Assembled, Z: Tensor, pool: Tensor | None, seed: int, say: Callable[[str], None]) -> Audit | None:
    """The audit of the training set; None, and told why, for latents that cannot be audited: the run is done anyway."""
    rows = run.splits["train"]
    say(f"looking for a shortcut in the {len(Z):,} training examples as they are before training")
    try:
        return audit_rows(rows, Z, run.modality, label_names(rows), seed, pool)
    except InvalidInputError as error:
        say(f"no audit: {error}")
        return None


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started

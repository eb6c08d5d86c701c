"""What a run was: the part of its summary that is known without evaluating it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from aifs_peft._checks import parse_json_object
from aifs_peft.experiments.evaluation import group_counts, group_definition
from aifs_peft.experiments.fused import describe_fused
from aifs_peft.experiments.prepare import label_names
from aifs_peft.experiments.unlabelled import describe_unlabelled
from aifs_peft.models import commit_of
from aifs_peft.training.selection import SELECTION_METRICS

if TYPE_CHECKING:
    from aifs_peft.experiments.build import Assembled
    from aifs_peft.experiments.spec import FinetuneSpec
    from aifs_peft.methods import Method
    from aifs_peft.training import AIFSTrainingArguments

GROUP = "group"
# Options of `discover` that tell it about the attribute.
HINTS = ("groups", "metadata", "attributes")
# What identifies a training run; the rest of TrainingArguments is where files go and how they are logged.
_SETTINGS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "weight_decay", "lr_scheduler_type", "warmup_steps", "optim", "bf16", "mask_update_every", "alpha", "beta",
    "lambda_", "balance_groups", "early_stopping_patience",
)  # fmt: skip


def describe_run(run: Assembled, spec: FinetuneSpec, args: AIFSTrainingArguments) -> dict[str, Any]:
    """What was trained on what, what the method was told, and what the adapter learnt.

    Args:
        run: after training.
        spec: of the run.
        args: of the run.

    Returns:
        The beginning of `summary.json`.
    """
    method = run.trainer.method
    history = run.trainer.state.log_history
    columns = run.splits["train"].column_names
    hints = parse_json_object("discovery_options", args.discovery_options)
    pool = None if run.unlabelled is None else len(run.unlabelled)
    adapted, fused = run.trainer.adapted, run.fused
    return {
        "model": run.name,
        "model_revision": {"asked": spec.revision, "commit": commit_of(adapted.get_base_model())},
        "dataset": spec.dataset,
        "modality": run.modality,
        "task": "tabular-classification" if run.modality == "features" else f"{run.modality}-classification",
        "fused": None if fused is None else describe_fused(fused, adapted, run.trainer.layer.state.basis),
        "label_names": label_names(run.splits["train"]),
        "method": method.name,
        "title": method.title,
        "supervision": supervision(method, columns, hints),
        "needs": [*needs(method, columns, hints), *([] if pool is None else [f"{pool:,} unlabelled examples"])],
        "unlabelled": None if pool is None else describe_unlabelled(spec.unlabelled, pool, history),
        "options": asdict(method.options),
        "seed": args.seed,
        "selection": selection(method, args, found=shortcut_found(history)),
        "found": shortcut_found(history),
        "conflicting": conflicting(run) if shortcut_found(history) else None,
        "group_definition": group_definition(run.splits),
        "groups": group_counts(run.splits),
        "spec": asdict(spec),
        "adapter": run.config.to_dict(),
        "training": _training_settings(args),
        "state": describe_state(run.trainer.layer.state),
        "history": history,
    }


def supervision(method: Method, columns: Collection[str], discovery: Mapping[str, Any] | None = None) -> str:
    """What a method was told in this run: "none" (labels only), "hints" or "groups".

    A method that reads a column where there is one was told hints by a training set that has it, and discovery by
    options that describe the attribute.

    Args:
        method: of the run.
        columns: of the training set.
        discovery: options of `discover`.

    Example:
        >>> from aifs_peft.methods import make
        >>> aifs = make("aifs")
        >>> supervision(aifs, ["image", "label"]), supervision(aifs, ["image", "label", "hint_groups"])
        ('none', 'hints')
    """
    told = method.supervision
    return "hints" if told == "none" and _hints(method, columns, discovery) else told


def _hints(method: Method, columns: Collection[str], discovery: Mapping[str, Any] | None) -> list[str]:
    """What the method was told beside labels that its class does not say, in short phrases."""
    read = [f"column `{name}`" for name in method.optional_columns() if name in columns]
    given = [name for name in HINTS if (discovery or {}).get(name) is not None]
    return [*read, *(f"{name} for discovery" for name in given)]


def needs(method: Method, columns: Collection[str], discovery: Mapping[str, Any] | None = None) -> list[str]:
    """What a method read beside inputs and labels in this run, in short phrases.

    Args:
        method: of the run.
        columns: of the training set.
        discovery: options of `discover`.
    """
    return [*method.needs, *_hints(method, columns, discovery)]


def conflicting(run: Assembled) -> dict[str, int] | None:
    """How many training examples go against what the method found, by its inferred attribute values.

    Args:
        run: after training.
    """
    groups, labels = run.trainer.layer.state.groups.cpu(), run.prepared["train"].labels
    if len(groups) != len(labels):
        return None
    return {"n": int((groups != labels).sum()), "of": len(labels)}


def selection(method: Method, args: AIFSTrainingArguments, *, found: bool | None) -> dict[str, Any]:
    """By which rule the model was chosen, and whether that rule reads group labels.

    Args:
        method: of the run.
        args: of the run.
        found: whether it found a shortcut, see `shortcut_found`.

    Returns:
        `rule` as it was asked for ("last": the model after the last step; a metric by its name), `applied` (without a
        discovered direction there are no inferred groups, and the worst class stands for the worst inferred group), and
        `reads_group_labels`: whether the method chooses or fits anything on group labels of the validation set.
    """
    rules = {metric.removeprefix("eval_"): rule for rule, metric in SELECTION_METRICS.items()}
    metric = str(args.metric_for_best_model).removeprefix("eval_")
    rule = rules.get(metric, metric) if args.load_best_model_at_end else "last"
    applied = "worst_class" if rule == "worst_inferred_group" and not found else rule
    return {"rule": rule, "applied": applied, "reads_group_labels": GROUP in method.validation_columns()}


def shortcut_found(history: list[dict[str, float]]) -> bool | None:
    """Whether the method found a shortcut when it last looked; None for one that does not look for any.

    Args:
        history: the trainer's log.

    Example:
        >>> shortcut_found([{"loss": 1.0}]), shortcut_found([{"spurious_direction_found": 0.0}])
        (None, False)
    """
    told = [entry["spurious_direction_found"] for entry in history if "spurious_direction_found" in entry]
    return bool(told[-1]) if told else None


def describe_state(state: Any) -> dict[str, Any]:
    """What the adapter learnt about shortcuts, in a few numbers: the saved buffers hold the rest.

    Args:
        state: the adapter's `AIFSState`.
    """
    groups = state.groups
    return {
        "num_updates": int(state.num_updates),
        "mask_max": float(state.mask.max()) if state.mask.numel() else 0.0,
        "spurious_directions": int(state.basis.shape[1]) if state.has_basis else 0,
        "evidence": float(state.evidence) if state.evidence.numel() == 1 else None,
        "inferred_groups": torch.bincount(groups.flatten()).tolist() if groups.numel() else [],
    }


def _training_settings(args: AIFSTrainingArguments) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in _SETTINGS if hasattr(args, name)}
    return {name: getattr(value, "value", value) for name, value in values.items()}

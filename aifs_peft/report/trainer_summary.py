"""What a trainer knows of its run, in the form of `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aifs_peft._checks import parse_json_object
from aifs_peft._plain import plain
from aifs_peft.models import commit_of, resolve_model
from aifs_peft.models.tabular import TabularConfig
from aifs_peft.report.usage import EMBEDDED

if TYPE_CHECKING:
    from aifs_peft.methods import Method
    from aifs_peft.training import AIFSTrainer

_MODALITY = {"pixel_values": "image", "input_ids": "text", "features": "features"}
_LOADERS = ("csv", "json", "pandas", "parquet", "text", "arrow", "generator", "imagefolder", "webdataset")
"""Names of loaders of `datasets`, which say nothing about the data."""
OWN_DATA = "the user's own data"


def summary_from_trainer(trainer: AIFSTrainer, audit: Any = None) -> dict[str, Any]:
    """What a trainer knows of its run, as plain JSON in the form of `summary.json`.

    Args:
        trainer: before, within or after training. A dictionary in its attribute `run_summary` (what a caller knows
            beside: test metrics, comparison, data) wins over what is read here.
        audit: an `Audit` of the training set, where there is one.

    Returns:
        The summary. It has "evaluation" (figures of the evaluation set, which also served selection), not "metrics".
    """
    from aifs_peft.experiments import provenance

    model, method, args = trainer.adapted, trainer.method, trainer.args
    base = model.get_base_model()
    modality = _MODALITY.get(getattr(base, "main_input_name", ""), "features")
    log = trainer.state.log_history
    state = _state(trainer.layer.state)
    trained = trainer.state.global_step > 0
    summary: dict[str, Any] = {
        "model": _model_name(base),
        "model_revision": {
            "asked": model.peft_config[trainer.layer.adapter].revision,
            "commit": commit_of(base),
        },
        "dataset": _dataset_name(trainer.train_dataset),
        "modality": modality,
        "task": "tabular-classification" if modality == "features" else f"{modality}-classification",
        "label_names": _label_names(base, trainer.num_labels),
        "method": method.name,
        "supervision": supervision_of(method, trainer.train_dataset, args.discovery_options),
        "unlabelled": _unlabelled(trainer),
        "options": asdict(method.options),
        "found": state["spurious_directions"] > 0 if method.name == "aifs" and trained else None,
        "seed": args.seed,
        "seconds": next((entry["train_runtime"] for entry in reversed(log) if "train_runtime" in entry), None),
        "selection": _selection(trainer),
        "evaluation": _evaluation(trainer),
        "state": state,
        "history": log,
        "provenance": provenance(),
    }
    if audit is not None:
        summary["audit"] = audit.to_dict()
    known: Mapping[str, Any] = getattr(trainer, "run_summary", None) or {}
    out: dict[str, Any] = plain({**summary, **known})
    return out


def _unlabelled(trainer: AIFSTrainer) -> dict[str, Any] | None:
    from aifs_peft.experiments.unlabelled import describe_unlabelled

    data = trainer.unlabelled_dataset
    return None if data is None else describe_unlabelled(None, len(data), trainer.state.log_history)


def supervision_of(method: Method, data: Any, discovery_options: Any = None) -> str:
    """What a method was told in this run: at least what its class says, and "hints" where it got any.

    Args:
        method: that trained.
        data: its training set.
        discovery_options: keyword arguments for `discover`, as a dictionary or JSON text.

    Returns:
        "none", "hints" or "groups".
    """
    from aifs_peft.experiments.describe import supervision

    columns = [name for name in method.optional_columns() if _has_column(data, name)]
    return supervision(method, columns, parse_json_object("discovery_options", discovery_options))


def _model_name(base: Any) -> str | None:
    """The base model as it can be loaded again; None where it is known to nobody by name."""
    config = getattr(base, "config", None)
    if isinstance(config, TabularConfig) and not config.name_or_path:
        return str(config.encoder)
    name = str(getattr(config, "name_or_path", "") or "")
    return next((known for known in EMBEDDED if name == resolve_model(known)), name or None)


def _dataset_name(data: Any) -> str:
    info = getattr(getattr(data, "source", data), "info", None)
    name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    return OWN_DATA if not name or name in _LOADERS else str(name)


def _label_names(base: Any, num_labels: int) -> list[str]:
    names = getattr(getattr(base, "config", None), "id2label", None) or {}
    return [str(names.get(i, f"LABEL_{i}")) for i in range(num_labels)]


def _has_column(data: Any, name: str) -> bool:
    from aifs_peft.training.streams import is_stream

    known = getattr(data, "columns", None) or getattr(data, "column_names", None)
    if known is None and data is not None and not is_stream(data) and len(data):
        known = data[0]
    return known is not None and name in known


def _selection(trainer: AIFSTrainer) -> dict[str, Any]:
    from aifs_peft.training.selection import SELECTION_METRICS

    args, metric = trainer.args, str(trainer.args.metric_for_best_model)
    rules = {value.removeprefix("eval_"): rule for rule, value in SELECTION_METRICS.items()}
    rule = rules.get(metric.removeprefix("eval_"))
    applied = bool(args.load_best_model_at_end and trainer.state.best_model_checkpoint)
    # Of a metric of the user's own nobody but the user knows what it reads.
    reads: bool | None = False if rule or not applied or metric in ("loss", "eval_loss") else None
    if "group" in trainer.method.validation_columns():
        reads = True
    return {"rule": rule or metric if applied else "last", "reads_group_labels": reads}


def _state(state: Any) -> dict[str, Any]:
    return {
        "num_updates": int(state.num_updates),
        "spurious_directions": int(state.basis.shape[1]) if state.has_basis else 0,
        "evidence": float(state.evidence) if state.evidence.numel() == 1 else None,
    }


def _evaluation(trainer: AIFSTrainer) -> dict[str, Any]:
    """Figures of the weights that are kept, on the evaluation set; empty where none were taken."""
    from aifs_peft.methods import Method

    log, state = trainer.state.log_history, trainer.state
    end = next((i for i, entry in enumerate(log) if "train_runtime" in entry), len(log))
    after = [entry for entry in log[end:] if "eval_accuracy" in entry]
    during = [entry for entry in log[:end] if "eval_accuracy" in entry]
    if after:
        entry = after[-1]
    elif not during or type(trainer.method).finish is not Method.finish:
        return {}  # a head that was fitted again after the last evaluation is another one
    else:
        best = [e for e in during if trainer.args.load_best_model_at_end and e.get("step") == state.best_global_step]
        entry = (best or during)[-1]
    figures = {key.removeprefix("eval_"): value for key, value in entry.items() if key.endswith("accuracy")}
    data: Any = trainer.eval_dataset
    size = len(data) if hasattr(data, "__len__") and not isinstance(data, dict) else None
    return {**figures, "epoch": entry.get("epoch"), "n": size}

"""The card and the push of a trainer: what `AIFSTrainer.create_model_card` and `push_to_hub` do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, ModelCard

from aifs_peft.models import resolve_model
from aifs_peft.models.tabular import TabularConfig
from aifs_peft.report.card import render_card
from aifs_peft.report.hub import push_files
from aifs_peft.report.plain import plain
from aifs_peft.report.usage import EMBEDDED

if TYPE_CHECKING:
    from peft import PeftModel

    from aifs_peft.methods import Method
    from aifs_peft.training import AIFSTrainer

_MODALITY = {"pixel_values": "image", "input_ids": "text", "features": "features"}
_LOADERS = ("csv", "json", "pandas", "parquet", "text", "arrow", "generator", "imagefolder", "webdataset")
"""Names of loaders of `datasets`, which say nothing about the data."""
_HINTS = ("groups", "metadata", "attributes")
"""Arguments of `discover` that tell it about the attribute."""
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
    from aifs_peft.experiments.finetune import describe_state

    model, method, args = trainer.adapted, trainer.method, trainer.args
    base = model.get_base_model()
    modality = _MODALITY.get(getattr(base, "main_input_name", ""), "features")
    log = trainer.state.log_history
    state = describe_state(trainer.layer.state)
    trained = trainer.state.global_step > 0
    summary: dict[str, Any] = {
        "model": _model_name(base),
        "dataset": _dataset_name(trainer.train_dataset),
        "modality": modality,
        "task": "tabular-classification" if modality == "features" else f"{modality}-classification",
        "label_names": _label_names(base, trainer.num_labels),
        "method": method.name,
        "supervision": supervision_of(method, trainer.train_dataset, args.discovery_options),
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


def supervision_of(method: Method, data: Any, discovery_options: Any = None) -> str:
    """What a method was told in this run: at least what its class says, and "hints" where it got any.

    Args:
        method: that trained.
        data: its training set.
        discovery_options: keyword arguments for `discover`, as a dictionary or JSON text.

    Returns:
        "none", "hints" or "groups".
    """
    from aifs_peft.training.method import parse_options

    if method.supervision != "none":
        return str(method.supervision)
    read = method.columns() or [name for name in method.optional_columns() if _has_column(data, name)]
    given = [name for name in _HINTS if parse_options(discovery_options).get(name) is not None]
    return "hints" if read or given else "none"


def card_from_trainer(trainer: AIFSTrainer, audit: Any = None, **metadata: Any) -> ModelCard:
    """The model card of a trainer's run.

    Args:
        trainer: see `summary_from_trainer`.
        audit: an `Audit` of the training set, where there is one.
        **metadata: as for `Trainer.create_model_card`: `language`, `license`, `tags`, `model_name`, `finetuned_from`,
            `tasks`, `dataset`, `dataset_tags`; None where not given.

    Returns:
        The card; sheets of examples in the output folder are shown in it.
    """
    return render_card({**summary_from_trainer(trainer, audit), **_card_fields(metadata)}, trainer.args.output_dir)


def push_trainer(
    trainer: AIFSTrainer,
    commit_message: str | None = "End of training",
    *,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    examples: bool = False,
    **metadata: Any,
) -> CommitInfo | None:
    """What `AIFSTrainer.push_to_hub` does: adapter, processor, card and summary in one commit, and nothing else.

    The folder of the run holds more (checkpoints, optimizer states, pickled arguments): none of that is uploaded. Call
    it in every process; only the first one pushes.

    Args:
        trainer: whose model is pushed, to `args.hub_model_id` or a repository named like the output folder.
        commit_message: of the commit.
        token: of the Hub; None takes `args.hub_token`.
        revision: branch; None takes `args.hub_revision`.
        private: whether a new repository is private; None takes `args.hub_private_repo`.
        examples: see `push_adapter`.
        **metadata: see `card_from_trainer`.

    Returns:
        The commit; None in other processes than the first.
    """
    if not trainer.is_world_process_zero():
        return None
    args = trainer.args
    summary = {**summary_from_trainer(trainer), **_card_fields(metadata)}
    repo = args.hub_model_id or Path(str(args.output_dir)).absolute().name
    return push_files(
        trainer.adapted, trainer.processing_class, summary, repo,
        token=token if token is not None else args.hub_token,
        revision=revision if revision is not None else args.hub_revision,
        private=private if private is not None else args.hub_private_repo,
        run_folder=args.output_dir, examples=examples, commit_message=commit_message,
    )  # fmt: skip


def attach_card(model: PeftModel, summary: Mapping[str, Any], processor: Any = None) -> None:
    """From now on this model's own `save_pretrained` and `push_to_hub` write the honest card, too.

    PEFT's write a template in which nearly everything reads "More Information Needed".

    Args:
        model: a trained PEFT model.
        summary: of its run.
        processor: image processor or tokenizer that goes along in `push_to_hub`.
    """
    writer = _CardWriter(model, summary, processor)
    # On this one object: PEFT offers no place for it, and its class is everybody's.
    model.__dict__.update(create_or_update_model_card=writer.write, push_to_hub=writer.push)


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
    known = getattr(data, "columns", None) or getattr(data, "column_names", None)
    if known is None and data is not None and len(data):
        known = data[0]
    return known is not None and name in known


def _selection(trainer: AIFSTrainer) -> dict[str, Any]:
    from aifs_peft.training.selection import SELECTION_METRICS

    args, metric = trainer.args, str(trainer.args.metric_for_best_model)
    rules = {value.removeprefix("eval_"): rule for rule, value in SELECTION_METRICS.items()}
    rule = rules.get(metric.removeprefix("eval_"))
    applied = bool(args.load_best_model_at_end and trainer.state.best_model_checkpoint)
    # Of a metric of the user's own nobody but the user knows what it reads.
    reads = False if rule or not applied or metric in ("loss", "eval_loss") else None
    return {"rule": rule or metric if applied else args.selection, "reads_group_labels": reads, "applied": applied}


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


def _card_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Trainer.create_model_card` as keys of a summary."""
    names = {"finetuned_from": "model", "dataset_tags": "datasets", "tasks": "task"}
    out = {names.get(key, key): value for key, value in metadata.items() if value is not None and key != "dataset_args"}
    for key in ("task", "dataset"):
        if isinstance(out.get(key), list):
            out[key] = ", ".join(out[key]) if key == "dataset" else out[key][0]
    for key in ("tags", "datasets"):
        if isinstance(out.get(key), str):
            out[key] = [out[key]]
    return out


class _CardWriter:
    """What `attach_card` puts on a model: two of its methods, which know the run."""

    def __init__(self, model: PeftModel, summary: Mapping[str, Any], processor: Any) -> None:
        self.model, self.summary, self.processor = model, plain(summary), processor

    def write(self, output_dir: str | Path) -> None:
        """As `PeftModel.create_or_update_model_card`."""
        render_card(self.summary, output_dir).save(Path(output_dir) / "README.md")

    def push(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """As `PeftModel.push_to_hub`; an adapter is one file, so `max_shard_size` changes nothing."""
        del max_shard_size
        return push_files(
            self.model, self.processor, {**self.summary, "tags": tags or []}, repo_id, private=private, token=token,
            revision=revision, commit_message=commit_message, commit_description=commit_description,
            create_pr=create_pr,
        )  # fmt: skip

"""One fine-tuning run from names to numbers: data, model, adapter, training, group metrics, result."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from aifs_peft import data
from aifs_peft._checks import parse_json_object
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments.evaluation import evaluate_groups, group_counts, group_definition
from aifs_peft.experiments.prepare import (
    MODALITIES,
    PreparedDataset,
    label_names,
    make_encoder,
    modality_of,
)
from aifs_peft.experiments.provenance import provenance
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import get, make
from aifs_peft.models.loading import default_model, load_model, load_processor
from aifs_peft.models.tabular import ENCODERS
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from peft import PeftModel
    from torch import nn

ADAPTERS = ("none", "lora", "dora", "rslora", "ia3", "full")
UNKNOWN_ADAPTER = "adapter was {given!r}; it is one of {known}."
FULL_QUANTISED = (
    "adapter='full' trains whole layers, which quantization={given!r} stores as integers: use adapter='lora'."
)
NOTHING_TO_TUNE = (
    "The model 'identity' has no layers between its input and its head; adapter was {given!r}: pass 'none'."
)
NO_SPLIT = (
    "The data set {name!r} has the splits {given}; needed are 'train', 'validation' (drawn like train, for "
    "model selection) and 'test'."
)


@dataclass
class FinetuneSpec:
    """What to fine-tune on what; how to train is in `AIFSTrainingArguments`.

    Args:
        model: Hub name, local directory, or `"tiny_clip"`, the encoder that ships with this package. For tables:
            `"mlp"`, trained from scratch, or `"identity"` where the features are latents already. `None` chooses
            `"tiny_clip"` for images and `"mlp"` for features.
        revision: branch, tag or commit of the model on the Hub.
        trust_remote_code: run model code from the Hub. Off unless asked for.
        dataset: a name from `aifs_peft.data.names()`; or your own data as a table, a folder or a Hub
            name (see `aifs_peft.data.load_own`).
        data_dir: folder of a local copy in the data set's official layout.
        dataset_options: options of the data set's `load`, such as `{"aligned_share": 0.95}`.
        adapter: how the encoder is tuned: `none` (frozen), `lora`, `dora`, `rslora`, `ia3`, or `full` (every linear
            layer is trained whole and saved in the adapter).
        lora_r: rank of LoRA.
        lora_alpha: scale of LoRA.
        lora_dropout: dropout of LoRA.
        target_modules: module names the encoder adapter goes to; `None` chooses by architecture.
        quantization: `none`, `4bit` or `8bit` (bitsandbytes).
        head: the classifier that is trained: `copy` (structure of the model's own), `linear`, or `mlp` with one hidden
            layer, which some methods need on a frozen encoder.
        max_length: tokens per text.
        n_boot: bootstrap replicates for the intervals that have no exact form; 0 leaves them out.
    """

    model: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    dataset: str = "digits_on_scenes"
    data_dir: str | None = None
    dataset_options: dict[str, Any] = field(default_factory=dict)
    adapter: str = "lora"
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    target_modules: list[str] | None = None
    quantization: str = "none"
    head: str = "copy"
    max_length: int = 128
    n_boot: int = 0

    def encoder_adapter(self) -> PeftConfig | None:
        """The PEFT configuration that tunes the encoder, `None` when it stays frozen or is trained whole.

        Raises:
            InvalidConfigError: an unknown adapter, or one that does not go with the model or its quantization.
        """
        if self.adapter not in ADAPTERS:
            raise InvalidConfigError(UNKNOWN_ADAPTER.format(given=self.adapter, known=", ".join(ADAPTERS)))
        if self.model == "identity" and self.adapter != "none":
            raise InvalidConfigError(NOTHING_TO_TUNE.format(given=self.adapter))
        if self.adapter == "full" and self.quantization != "none":
            raise InvalidConfigError(FULL_QUANTISED.format(given=self.quantization))
        if self.adapter in ("none", "full"):
            return None
        if self.adapter == "ia3":
            return IA3Config(target_modules=self.target_modules)
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.target_modules,
            use_dora=self.adapter == "dora",
            use_rslora=self.adapter == "rslora",
        )

    def trained_modules(self) -> list[str] | str | None:
        """Modules of the encoder that are trained whole, `None` for none."""
        return (self.target_modules or "all-linear") if self.adapter == "full" else None


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


def adapter_config(method: str, spec: FinetuneSpec) -> AIFSConfig:
    """The adapter of a method: recipe `paper` for `aifs-paper`, `discovery` for `aifs`, else the plain head.

    Raises:
        InvalidConfigError: an unknown method or adapter.
    """
    cls = get(method)
    return AIFSConfig(
        recipe=cls.recipe,
        head=spec.head,
        auxiliary=cls.auxiliary,
        encoder_adapter=spec.encoder_adapter(),
        trained_modules=spec.trained_modules(),
    )


@dataclass
class Assembled:
    """Everything a run needs, built and not yet trained.

    Args:
        trainer: with model, training and validation set.
        processor: image processor or tokenizer of the base model; `None` for tables.
        splits: the data set as it was loaded.
        test: the test split as the model takes it.
        modality: which input column is read.
        name: of the base model.
        config: of the adapter.
    """

    trainer: AIFSTrainer
    processor: Any
    splits: DatasetDict
    test: PreparedDataset
    modality: str
    name: str
    config: AIFSConfig


def build_trainer(
    spec: FinetuneSpec, args: AIFSTrainingArguments, callbacks: list[TrainerCallback] | None = None
) -> Assembled:
    """Load data and model, wrap the model, make its trainer.

    Raises:
        ModelNotFoundError: the model is neither local nor on the Hub.
        InvalidConfigError: model, adapter, method and data set do not fit each other.
        InvalidInputError: unknown data set or missing splits.
    """
    args.method = method = args.method or "aifs"
    # First: a misspelt setting is told before anything is loaded.
    config = adapter_config(method, spec)
    objective = make(method, method_options=parse_json_object("method_options", args.method_options))
    set_seed(args.seed)
    splits = load_data(spec)
    _check_splits(spec.dataset, splits)
    # A model of tables reads the features of a set that has pictures as well.
    modality = modality_of(splits["train"], ("features",) if spec.model in ENCODERS else MODALITIES)
    name = spec.model or default_model(modality)
    model = get_peft_model(_base_model(name, spec, splits["train"], modality), config)
    processor = load_processor(name, modality=modality, revision=spec.revision)
    encode = make_encoder(processor, modality, max_length=spec.max_length)
    reads = {
        "train": (*objective.columns(), *objective.optional_columns()),
        "validation": objective.validation_columns(),
    }
    prepared = {
        split: PreparedDataset(rows, encode, column=modality, keep=reads.get(split, ()), split=split)
        for split, rows in splits.items()
    }
    trainer = AIFSTrainer(
        model=model, args=args, train_dataset=prepared["train"], eval_dataset=prepared["validation"],
        callbacks=callbacks,
    )  # fmt: skip
    if callbacks is not None:
        trainer.remove_callback(PrinterCallback)  # what a run shows is then the caller's choice
    return Assembled(trainer, processor, splits, prepared["test"], modality, name, config)


def run_finetune(
    spec: FinetuneSpec, args: AIFSTrainingArguments, callbacks: list[TrainerCallback] | None = None
) -> FinetuneResult:
    """Fine-tune and evaluate once; group labels are read for the metrics on the test split alone, and by oracles.

    Raises:
        AIFSError: as `build_trainer`, and what training raises.
    """
    run = build_trainer(spec, args, callbacks)
    started = time.perf_counter()
    run.trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    seconds = time.perf_counter() - started
    logits = np.asarray(run.trainer.predict(run.test).predictions, dtype=np.float64)
    summary = {
        **_describe(run, spec, args),
        "metrics": evaluate_groups(run.splits["test"], logits, spec.n_boot, args.seed, run.splits["train"]),
        "seconds": seconds,
        "provenance": provenance(),
    }
    return FinetuneResult(run.trainer.adapted, run.trainer, run.processor, summary)


def _describe(run: Assembled, spec: FinetuneSpec, args: AIFSTrainingArguments) -> dict[str, Any]:
    """What was trained on what, and what the adapter learnt."""
    objective = run.trainer.method
    return {
        "model": run.name,
        "dataset": spec.dataset,
        "modality": run.modality,
        "task": "tabular-classification" if run.modality == "features" else f"{run.modality}-classification",
        "label_names": label_names(run.splits["train"]),
        "method": objective.name,
        "supervision": objective.supervision,
        "options": asdict(objective.options),
        "seed": args.seed,
        "selection": {"rule": args.selection, "reads_group_labels": False},
        "group_definition": group_definition(run.splits),
        "groups": group_counts(run.splits),
        "spec": asdict(spec),
        "adapter": run.config.to_dict(),
        "training": _training_settings(args),
        "state": describe_state(run.trainer.layer.state),
        "history": run.trainer.state.log_history,
    }


def _base_model(name: str, spec: FinetuneSpec, train: Dataset, modality: str) -> nn.Module:
    """The classifier that the adapter goes on; a fresh one standardises by the training features."""
    fresh = name in ENCODERS
    return load_model(
        name, modality=modality, label_names=label_names(train), revision=spec.revision,
        trust_remote_code=spec.trust_remote_code, quantization=spec.quantization,
        train_features=make_encoder(None, "features")(train["features"][:])["features"] if fresh else None,
    )  # fmt: skip


def load_data(spec: FinetuneSpec) -> DatasetDict:
    """The data set by name; a file, a folder or a Hub name with a slash is read as the user's own data."""
    return cast("DatasetDict", data.load(spec.dataset, spec.data_dir, **spec.dataset_options))


def describe_state(state: AIFSState) -> dict[str, Any]:
    """What the adapter learnt about shortcuts, in a few numbers: the saved buffers hold the rest."""
    groups = state.groups
    return {
        "num_updates": int(state.num_updates),
        "mask_max": float(state.mask.max()) if state.mask.numel() else 0.0,
        "spurious_directions": int(state.basis.shape[1]) if state.has_basis else 0,
        "evidence": float(state.evidence) if state.evidence.numel() == 1 else None,
        "inferred_groups": torch.bincount(groups.flatten()).tolist() if groups.numel() else [],
    }


def _check_splits(name: str, splits: DatasetDict) -> None:
    if not {"train", "validation", "test"} <= set(splits):
        raise InvalidInputError(NO_SPLIT.format(name=name, given=sorted(splits)))


# What identifies a training run; the rest of TrainingArguments is where files go and how they are logged.
_SETTINGS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "weight_decay", "lr_scheduler_type", "warmup_steps", "optim", "bf16", "mask_update_every", "alpha", "beta",
    "lambda_", "balance_groups", "early_stopping_patience",
)  # fmt: skip


def _training_settings(args: AIFSTrainingArguments) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in _SETTINGS if hasattr(args, name)}
    return {name: getattr(value, "value", value) for name, value in values.items()}

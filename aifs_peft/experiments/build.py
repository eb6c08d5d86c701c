"""From a `FinetuneSpec` to a trainer that is ready to train: data, model, adapter."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from peft import get_peft_model
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from aifs_peft._checks import check_count, check_names, parse_json_object
from aifs_peft.data.own.matrices import dataset_matrix
from aifs_peft.errors import AIFSError, InvalidConfigError
from aifs_peft.experiments.columns import TableEncoding
from aifs_peft.experiments.fused import FUSED_ALREADY, check_fused, fused_columns, fused_model
from aifs_peft.experiments.loading import data_options, load_data
from aifs_peft.experiments.prepare import (
    CACHE_BYTES,
    MODALITIES,
    PreparedDataset,
    encode_features,
    label_names,
    make_encoder,
    modality_of,
)
from aifs_peft.experiments.spec import FinetuneSpec
from aifs_peft.experiments.streamed import Prepared, PreparedStream, check_streaming, load_streamed
from aifs_peft.experiments.unlabelled import UNLABELLED, check_method, load_unlabelled
from aifs_peft.methods import get, make
from aifs_peft.models import FusedClassifier
from aifs_peft.models.loading import default_model, load_model, load_processor
from aifs_peft.models.tabular import ENCODERS
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.training.streams import Stream
from aifs_peft.tuner import AIFSConfig

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from torch import Tensor, nn

DOES_NOT_FIT = "The adapter {adapter!r} does not fit the model {model!r}: {reason}"
REFUSED = "The training arguments cannot be used here: {reason}"
# Examples of a streamed training set that are shuffled at a time, where the arguments do not say.
SHUFFLED = 1000
# What a run gives to `discover` itself, or what cannot be written as JSON.
_NOT_OPTIONS = ("groups", "random_state", "gate", "config")


@dataclass
class Assembled:
    """Everything a run needs, built and not yet trained.

    Args:
        trainer: with model, training and validation set.
        processor: image processor or tokenizer of the base model; `None` for tables.
        splits: the data set as it was loaded; of a streamed training split what is beside its inputs.
        prepared: the splits as the model takes them.
        modality: which input column is read.
        name: of the base model.
        config: of the adapter.
        encode_once: whether the encoder is frozen and the method reads latents alone, so that one pass is enough.
        unlabelled: the examples without labels as the model takes them; None without any.
        latent_cache: folder that keeps latents of the untuned encoder; None keeps none.
        fused: how the columns that the model reads beside its inputs are encoded; None where it reads none.
    """

    trainer: AIFSTrainer
    processor: Any
    splits: DatasetDict
    prepared: dict[str, Prepared]
    modality: str
    name: str
    config: AIFSConfig
    encode_once: bool
    unlabelled: PreparedDataset | None = None
    latent_cache: str | None = None
    fused: TableEncoding | None = None


def adapter_config(method: str, spec: FinetuneSpec) -> AIFSConfig:
    """The adapter of a method: recipe `paper` for `aifs-paper`, `discovery` for `aifs`, else the plain head.

    Args:
        method: its name.
        spec: for the encoder's adapter and the head.

    Raises:
        InvalidConfigError: an unknown method, or an adapter that does not fit the model.

    Example:
        >>> adapter_config("aifs", FinetuneSpec(adapter="none")).recipe
        'discovery'
    """
    cls = get(method)
    return AIFSConfig(
        revision=spec.revision,
        recipe=cls.recipe,
        head=cast(Literal["copy", "linear", "mlp"], spec.head),  # one of them: the spec has checked it
        auxiliary=cls.auxiliary,
        latents=cast(Literal["last", "multi"], spec.latents),
        encoder_adapter=spec.encoder_adapter(),
        trained_modules=spec.trained_modules(),
    )


def build_trainer(
    spec: FinetuneSpec,
    args: AIFSTrainingArguments,
    callbacks: list[TrainerCallback] | None = None,
    *,
    splits: DatasetDict | None = None,
    processor: Any = None,
) -> Assembled:
    """Load data and model, wrap the model, make its trainer.

    Args:
        spec: what to fine-tune on what.
        args: how to train; `method` is filled in.
        callbacks: what a run shows; None leaves transformers' own printing.
        splits: the data set, where it is loaded already; None loads the one that `spec` names.
        processor: image processor or tokenizer, in place of the one that belongs to the model.

    Raises:
        ModelNotFoundError: the model is neither local nor on the Hub.
        InvalidConfigError: model, adapter, method and data set do not fit each other.
        InvalidInputError: unknown data set or missing splits.
    """
    args.method = method = args.method or "aifs"
    # First: a misspelt setting is told before anything is loaded.
    config = adapter_config(method, spec)
    check_discovery_options(parse_json_object("discovery_options", args.discovery_options))
    settings = make(method, method_options=parse_json_object("method_options", args.method_options))
    check_method(spec, settings)
    check_fused(spec)
    if spec.streaming:
        check_streaming(spec)
    set_seed(args.seed)
    # A model of tables reads the features of a set that has pictures as well.
    known = ("features",) if spec.model in ENCODERS else MODALITIES
    streamed = load_streamed(spec, data_options(spec), known) if spec.streaming and splits is None else None
    splits = streamed.splits if streamed is not None else load_data(spec) if splits is None else splits
    modality = modality_of(splits["train"], known) if streamed is None else streamed.modality
    name = spec.model or default_model(modality)
    values = None
    if streamed is not None and name in ENCODERS:
        values = torch.cat([encode_features(part)["features"] for part in streamed.inputs()])
    fused = fused_columns(spec, splits["train"], modality)
    if fused is None:
        base = base_model(name, spec, splits["train"], modality, values)
    else:
        base = fused_model(name, spec, splits["train"], modality, fused, processor)
    model = _adapted(base, config, spec, name)
    processor = processor or load_processor(name, modality=modality, revision=spec.revision)
    encode = make_encoder(processor, modality, max_length=spec.max_length, model=model)
    reads = {
        "train": (*settings.columns(), *settings.optional_columns()),
        "validation": settings.validation_columns(),
    }
    once = spec.adapter == "none" and not settings.reads_tokens
    prepared: dict[str, Prepared] = {
        split: PreparedDataset(
            rows, encode, 0 if once else CACHE_BYTES, modality, reads.get(split, ()), split,
            None if fused is None else fused.encode(rows),
        )
        for split, rows in splits.items()
        if streamed is None or split != "train"
    }  # fmt: skip
    if streamed is not None:
        prepared["train"] = PreparedStream(splits["train"], streamed.inputs, encode, modality, reads["train"])
    rows = load_unlabelled(spec, splits["train"], modality)
    pool = None if rows is None else PreparedDataset(rows, encode, 0 if once else CACHE_BYTES, modality, (), UNLABELLED)
    if streamed is not None and not args.stream_shuffle_buffer:
        args.stream_shuffle_buffer = SHUFFLED
    # On latents, which are held, any method trains: one that a stream would be refused for is not refused then.
    first = prepared["validation" if streamed is not None and once else "train"]
    trainer = make_trainer(model, args, first, prepared["validation"], callbacks, pool)
    if first is not prepared["train"]:
        trainer.train_dataset = Stream(prepared["train"], seed=args.seed)
    return Assembled(
        trainer, processor, splits, prepared, modality, name, config, once, pool, latent_cache=spec.latent_cache,
        fused=fused,
    )  # fmt: skip


def make_trainer(
    model: Any,
    args: AIFSTrainingArguments,
    train: Any,
    validation: Any,
    callbacks: list[TrainerCallback] | None,
    unlabelled: Any = None,
) -> AIFSTrainer:
    """The trainer of a run.

    Args:
        model: with its adapter.
        args: how to train.
        train: training set.
        validation: validation set.
        callbacks: what the run shows; None leaves transformers' own printing.
        unlabelled: examples without labels; None without any.

    Raises:
        InvalidConfigError: arguments that transformers or this machine refuse.
    """
    # The sets hold what the model takes and nothing else; which names that are changes with a frozen encoder's latents.
    args.remove_unused_columns = False
    try:
        trainer = AIFSTrainer(
            model=model, args=args, train_dataset=train, eval_dataset=validation, unlabelled_dataset=unlabelled,
            callbacks=callbacks,
        )  # fmt: skip
    except AIFSError:
        raise
    except (ValueError, ImportError) as error:
        raise InvalidConfigError(REFUSED.format(reason=" ".join(str(error).split()))) from error
    if callbacks is not None:
        trainer.remove_callback(PrinterCallback)  # what a run shows is then the caller's choice
    return trainer


def base_model(
    name: str, spec: FinetuneSpec, train: Dataset, modality: str, features: Tensor | None = None
) -> nn.Module:
    """The classifier that the adapter goes on; a fresh one standardises by the training features.

    Args:
        name: of the model.
        spec: for its revision and precision.
        train: training split, for its classes.
        modality: which input it reads.
        features: training features, `(n, d)`; None reads them off `train`.
    """
    if name in ENCODERS and features is None:
        features = torch.from_numpy(dataset_matrix(train, "features", "the training split"))
    model = load_model(
        name, modality=modality, label_names=label_names(train), revision=spec.revision,
        trust_remote_code=spec.trust_remote_code, quantization=spec.quantization,
        train_features=features,
    )  # fmt: skip
    if isinstance(model, FusedClassifier):
        raise InvalidConfigError(FUSED_ALREADY.format(model=name))
    return model


def check_discovery_options(options: dict[str, Any]) -> None:
    """Refuse what `discover` would not take, before anything is loaded.

    Args:
        options: `AIFSTrainingArguments.discovery_options`, as a dictionary.

    Raises:
        InvalidConfigError: an unknown name, with the closest known one; a number out of range.

    Example:
        >>> check_discovery_options({"k": 3})
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidConfigError: discovery_options: discover has no option 'k'; known: metadata, ...
    """
    from aifs_peft.discovery import discover

    parameters = inspect.signature(discover).parameters.values()
    known = {p.name: str(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _NOT_OPTIONS}
    check_names(options, known, "discovery_options: discover has no option")
    for name, value in options.items():
        if known[name].startswith("int"):
            check_count(f"discovery_options: {name}", value)


def _adapted(base: nn.Module, config: AIFSConfig, spec: FinetuneSpec, name: str) -> Any:
    """The model with its adapter; what PEFT refuses becomes an error of ours that names both."""
    try:
        return get_peft_model(base, config)
    except (ValueError, TypeError) as error:
        refused = error.__cause__ if isinstance(error, InvalidConfigError) else error
        if refused is None or (isinstance(error, AIFSError) and not isinstance(error, InvalidConfigError)):
            raise
        reason = " ".join(str(refused).split())
        raise InvalidConfigError(DOES_NOT_FIT.format(adapter=spec.adapter, model=name, reason=reason)) from error

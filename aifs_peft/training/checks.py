"""What a training refuses before it begins, each by the name of the argument."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import IntervalStrategy

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import Method
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.labels import LABEL_NAMES, NOT_MAP_STYLE, check_labels, find_labels, is_map_style
from aifs_peft.training.rng import isolated_rng
from aifs_peft.training.selection import SELECTION_METRICS
from aifs_peft.training.sharded import is_sharded

SPREAD = (
    "the model {how}; discovery, masks and exact resume have not been shown to work then. Load it whole and start one "
    "process per GPU; where its frozen weights do not fit onto one, set shard_base_model=True, or load them in 4 bits"
)


def check_arguments(args: object) -> None:
    """Refuse arguments of another class, and what the machine would make of them.

    Args:
        args: of the trainer.

    Raises:
        InvalidConfigError: naming what to do instead.
    """
    if not isinstance(args, AIFSTrainingArguments):
        raise InvalidConfigError(
            f"args must be AIFSTrainingArguments, got {type(args).__name__}; it takes the same arguments and more"
        )
    if args.n_gpu > 1:
        raise InvalidConfigError(
            f"{args.n_gpu} GPUs in one process would mean nn.DataParallel, whose copies lose the latents; start "
            f"one process per GPU: torchrun --nproc_per_node {args.n_gpu} ..., or accelerate launch"
        )
    check_precision("fp16" if args.fp16 else None, args.device)


def check_precision(precision: str | None, device: torch.device) -> None:
    """Refuse a precision that would be left out in silence.

    Args:
        precision: "fp16", "bf16", or another word of Accelerate.
        device: of the model.

    Raises:
        InvalidConfigError: for fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InvalidConfigError(
            "fp16 does nothing on a CPU: Accelerate has no mixed precision in float16 there, and would train in "
            "float32. Leave it out, or use bf16"
        )


def check_model(model: nn.Module, args: AIFSTrainingArguments, *, encoder_trains: bool) -> None:
    """Refuse arguments that would do nothing, or harm in silence, with this model.

    Args:
        model: with its adapter.
        args: of the trainer.
        encoder_trains: whether any parameter outside the head is trained.

    Raises:
        InvalidConfigError: naming the argument.
    """
    check_whole(model)
    if args.neftune_noise_alpha is not None and not encoder_trains:
        raise InvalidConfigError(
            "neftune_noise_alpha adds noise to embeddings in training mode, and a frozen encoder stays in evaluation "
            "mode: it would do nothing. Leave it out, or train the encoder (AIFSConfig(encoder_adapter=...))"
        )


def check_whole(model: nn.Module) -> None:
    """Refuse a model that somebody else has spread over devices or processes.

    Args:
        model: with its adapter.

    Raises:
        InvalidConfigError: saying how it is spread, and what to do instead.
    """
    maps: list[dict[str, Any]] = [getattr(module, "hf_device_map", None) or {} for module in model.modules()]
    devices = sorted({str(device) for devices in maps for device in devices.values()})
    if len(devices) > 1:
        raise InvalidConfigError(SPREAD.format(how=f"is spread over the devices {', '.join(devices)} (device_map)"))
    if getattr(model, "is_distributed_loading_by_transformers", False):
        raise InvalidConfigError(SPREAD.format(how="was loaded in shards (distributed_config)"))
    split = [name for name, p in model.named_parameters() if type(p).__name__ == "DTensor"]
    if split and not is_sharded(model):
        raise InvalidConfigError(SPREAD.format(how=f"is split over processes (tp_plan or device_mesh: {split[0]})"))


def check_evaluation_sets(datasets: Any, args: AIFSTrainingArguments, num_labels: int) -> None:
    """Check the labels of what training will be evaluated on, before it begins.

    Args:
        datasets: one set, several by name, or None.
        args: of the trainer.
        num_labels: classes of the head.

    Raises:
        InvalidInputError: naming the set and its labels.
        InvalidConfigError: if the metric that chooses the best model will not exist.
    """
    evaluates = args.eval_on_start or IntervalStrategy(args.eval_strategy) != IntervalStrategy.NO
    if isinstance(datasets, dict):
        chosen = args.metric_for_best_model
        if evaluates and chosen is not None and chosen in SELECTION_METRICS.values():
            names = [chosen.replace("eval_", f"eval_{name}_", 1) for name in datasets]
            raise InvalidConfigError(
                f"eval_dataset holds {len(datasets)} sets, so there is no metric {chosen!r}; say which set chooses the "
                f"best model: metric_for_best_model={' or '.join(map(repr, names))}"
            )
    named = datasets if isinstance(datasets, dict) else {"evaluation": datasets}
    for name, dataset in named.items():
        if dataset is not None:
            check_split(dataset, num_labels, name, args.seed, required=evaluates)


def check_unlabelled(dataset: Any, method: Method) -> None:
    """Refuse an unlabelled set that cannot be encoded, or that the method would not look at.

    Args:
        dataset: as it was given.
        method: that is trained with.

    Raises:
        InvalidInputError: for a set that is streamed or empty.
        InvalidConfigError: for a method that has no use for it.
    """
    if not is_map_style(dataset):
        raise InvalidInputError(NOT_MAP_STYLE.format(what="unlabelled", kind=type(dataset).__name__))
    if len(dataset) == 0:
        raise InvalidInputError(
            "the unlabelled set is empty; leave unlabelled_dataset out, or give some hundred examples"
        )
    if not method.reads_unlabelled:
        raise InvalidConfigError(
            f"unlabelled_dataset was given, and method {method.name!r} has no use for unlabelled examples; leave it "
            "out, or train with AIFS's own discovery (AIFSConfig(recipe='discovery'))"
        )


def check_split(dataset: Any, num_labels: int, what: str, seed: int, *, required: bool = True) -> bool:
    """Check the labels of a set that is evaluated; of a streamed one they are checked batch by batch.

    Args:
        dataset: of any kind.
        num_labels: classes of the head.
        what: which set, for messages.
        seed: for whatever the set draws while its labels are read.
        required: whether a set without any label is refused.

    Returns:
        Whether the set has labels, as far as is known.

    Raises:
        InvalidInputError: naming the set and its labels.
    """
    if not is_map_style(dataset):
        return True
    with isolated_rng(seed):
        labels = find_labels(dataset, what)
    if labels is not None:
        check_labels(labels, num_labels, what, several=False)
    elif required:
        raise InvalidInputError(
            f"the {what} set has no labels (no example has one of {', '.join(LABEL_NAMES)}, or all are -1 or -100), "
            "and an evaluation measures nothing without; use trainer.predict for a set whose labels are hidden"
        )
    return labels is not None

"""The training options that `aifs finetune --help` lists, written out so that help needs no import of transformers.

A test compares every entry with the field of `AIFSTrainingArguments` of the same name. The long tail of transformers'
own options (`--help-all`) is read off that class when it is asked for.
"""

from __future__ import annotations

from typing import Any

from aifs_peft.cli.option import Option

METHOD, TRAINING, EVALUATION, OUTPUT, HUB = "Method", "Training", "Selection and evaluation", "Output", "Hub"

_INTERVALS = {"choices": ("no", "steps", "epoch")}
_POSITIVE: dict[str, Any] = {"low": 0, "above": True}
_COUNT: dict[str, Any] = {"low": 1}

OPTIONS: tuple[Option, ...] = (
    Option("method", "str", None, "training method; `aifs methods` lists them", METHOD, optional=True),
    Option("alpha", "float", None, "weight of the invariance loss, the same prediction after an intervention; left "
           "out: that of the method's recipe", METHOD, {"low": 0}, True),
    Option("beta", "float", None, "weight of the penalty on spurious directions; left out: that of the recipe", METHOD,
           {"low": 0}, True),
    Option("lambda_", "float", None, "strength of the intervention on latents; left out: that of the recipe", METHOD,
           optional=True),
    Option("method_options", "json", None, "the method's own numbers; `aifs methods --json` lists them", METHOD,
           optional=True),
    Option("class_weights", "numbers", None, "of aifs-paper: weights of the classes in its attributions, or "
           "'probability'", METHOD, {"words": ("probability",)}, True),
    Option("discovery_options", "json", None, "keyword arguments of discover, such as '{\"max_attributes\": 1}'",
           METHOD, optional=True),
    Option("directions", "str", "refit", "what becomes of the directions that were found while the encoder is "
           "trained: refit (estimated anew at each epoch's end), rediscover (searched for anew), keep", METHOD,
           {"choices": ("refit", "rediscover", "keep")}),
    Option("mask_update_every", "int", 1, "epochs between two updates of the mask or the directions", METHOD, _COUNT),
    Option("mask_samples", "int", None, "examples whose latents such an update reads; left out: the method's number",
           METHOD, _COUNT, True),
    Option("balance_groups", "bool", True, "balance training over label and inferred attribute value", METHOD),
    Option("max_repeats", "float", 20.0, "an example is drawn at most this often per epoch, on average", METHOD,
           _COUNT),
    Option("num_train_epochs", "float", 3.0, "passes over the training set", TRAINING, _POSITIVE,
           aliases=("epochs",)),
    Option("max_steps", "int", -1, "optimizer steps in place of epochs; -1: as many as the epochs have", TRAINING,
           {"low": -1}),
    Option("per_device_train_batch_size", "int", 8, "examples per step and device", TRAINING, _COUNT,
           aliases=("batch-size",)),
    Option("per_device_eval_batch_size", "int", 8, "examples per batch and device in evaluation", TRAINING, _COUNT),
    Option("gradient_accumulation_steps", "int", 1, "batches per optimizer step", TRAINING, _COUNT),
    Option("learning_rate", "float", 5e-05, "learning rate at its highest", TRAINING, _POSITIVE),
    Option("lr_scheduler_type", "str", "cosine", "schedule of the learning rate: cosine, linear, constant, ...",
           TRAINING, {"choices": (
               "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
               "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
               "warmup_stable_decay", "greedy")}),
    Option("warmup_steps", "float", 0, "steps (below 1: share of all steps) with a rising learning rate", TRAINING,
           {"low": 0}),
    Option("weight_decay", "float", 0.0, "weight decay of AdamW", TRAINING, {"low": 0}),
    Option("max_grad_norm", "float", 1.0, "gradients are clipped to this norm; 0 leaves them", TRAINING, {"low": 0}),
    Option("label_smoothing_factor", "float", 0.0, "label smoothing of the cross-entropy", TRAINING,
           {"low": 0, "high": 1, "below": True}),
    Option("bf16", "bool", False, "mixed precision in bfloat16", TRAINING),
    Option("seed", "int", 42, "of every random draw", TRAINING, {"low": 0, "high": 2**32 - 1}),
    Option("use_cpu", "bool", False, "do not use an accelerator that is there", TRAINING),
    Option("dataloader_num_workers", "int", 0, "processes that load data beside the training", TRAINING, {"low": 0}),
    Option("shard_base_model", "bool", False, "split the frozen base model over several processes (FSDP2)", TRAINING),
    Option("resume_from_checkpoint", "checkpoint", None, "go on from this checkpoint, or from the newest with true",
           TRAINING, optional=True),
    Option("resume_without_optimizer", "bool", False, "resume also where --save-only-model left out the optimizer",
           TRAINING),
    Option("save_on_sigterm", "bool", True, "on SIGTERM save a checkpoint and end with status 143", TRAINING),
    Option("eval_strategy", "str", "no", "when the validation set is evaluated", EVALUATION, _INTERVALS),
    Option("selection", "str", "worst_inferred_group", "metric that chooses the best model; none reads group labels",
           EVALUATION, {"choices": ("worst_inferred_group", "worst_class", "average")}),
    Option("min_cell", "int", 10, "evaluation cells with fewer examples do not count as the worst", EVALUATION, _COUNT),
    Option("load_best_model_at_end", "bool", False, "keep the best model of the evaluations, not the last one",
           EVALUATION),
    Option("early_stopping_patience", "int", None, "stop after this many evaluations without improvement", EVALUATION,
           _COUNT, True),
    Option("output_dir", "str", None, "folder of the adapter, its card and summary.json", OUTPUT, optional=True),
    Option("save_strategy", "str", "steps", "when a checkpoint is written", OUTPUT,
           {"choices": ("no", "steps", "epoch", "best")}),
    Option("save_total_limit", "int", None, "checkpoints kept", OUTPUT, _COUNT, True),
    Option("save_only_model", "bool", False, "checkpoints without what resuming needs", OUTPUT),
    Option("report_to", "list", "none", "where numbers are sent while training (wandb, tensorboard, ...)", OUTPUT,
           optional=True),
    Option("push_to_hub", "bool", False, "push adapter and card to the Hub at the end", HUB),
    Option("hub_model_id", "str", None, "name of the repository; left out: that of the output folder", HUB,
           optional=True),
    Option("hub_private_repo", "bool", None, "make the repository private", HUB, optional=True),
    Option("hub_token", "str", None, "token of the Hub; left out: the one that was logged in with", HUB,
           optional=True),
)  # fmt: skip

_LEVELS = {"choices": ("detail", "debug", "info", "warning", "error", "critical", "passive")}
_METRICS = ("loss", "accuracy", "worst_class_accuracy", "worst_inferred_group_accuracy")
# Bounds of numbers and words that are known, in the long tail, by field.
BOUNDS: dict[str, dict[str, Any]] = {
    "log_level": _LEVELS,
    "log_level_replica": _LEVELS,
    "metric_for_best_model": {"choices": (*_METRICS, *(f"eval_{name}" for name in _METRICS))},
    "adam_beta1": {"low": 0, "high": 1, "below": True},
    "adam_beta2": {"low": 0, "high": 1, "below": True},
    "adam_epsilon": _POSITIVE,
    "logging_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_delay": {"low": 0},
    "eval_accumulation_steps": _COUNT,
    "data_seed": {"low": 0, "high": 2**32 - 1},
    "dataloader_prefetch_factor": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "neftune_noise_alpha": {"low": 0},
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
}


def every_option() -> list[Option]:
    """The options above, then those of `AIFSTrainingArguments` that are not among them; imports transformers.

    Returns:
        The latter without a group (help lists them with `--help-all` alone), under transformers' own help texts.
    """
    from aifs_peft.cli.option import options_of
    from aifs_peft.training import AIFSTrainingArguments

    named = {option.name for option in OPTIONS}
    tail = [option for option in options_of(AIFSTrainingArguments) if option.name not in named]
    return [*OPTIONS, *(_described(option) for option in tail)]


def _described(option: Option) -> Option:
    text = " ".join(option.help.split()).replace("%%", "%")
    first = text.split(". ")[0].removesuffix(".")
    rules = {**option.rules, **BOUNDS.get(option.name, {})}
    return Option(option.name, option.kind, option.default, first, "", rules, option.optional)

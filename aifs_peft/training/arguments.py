"""`AIFSTrainingArguments`: transformers' arguments, those of AIFS, and the defaults that differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import SchedulerType, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.training.labels import LABEL_NAMES
from aifs_peft.training.peers import meeting_processes
from aifs_peft.training.selection import SELECTION_METRICS

# transformers' argument -> least value, whether it must be whole, whether None is one of its values.
_RANGES: dict[str, tuple[float, bool, bool]] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, True, False)),
    **dict.fromkeys(("gradient_accumulation_steps",), (1, True, False)),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "num_train_epochs"), (0, False, False)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps"), (0, False, False)),
    **dict.fromkeys(("logging_steps", "save_steps"), (0, False, False)),
    **dict.fromkeys(("eval_steps", "eval_delay", "eval_accumulation_steps"), (0, False, True)),
    **dict.fromkeys(("seed", "dataloader_num_workers"), (0, True, False)),
    **dict.fromkeys(("data_seed", "dataloader_prefetch_factor"), (0, True, True)),
    **dict.fromkeys(("alpha", "beta", "lambda_", "neftune_noise_alpha"), (0, False, True)),
    "save_total_limit": (0, True, True),
    "max_steps": (-1, True, False),
}


@dataclass
class AIFSTrainingArguments(TrainingArguments):
    """Arguments of `AIFSTrainer`. Everything of `transformers.TrainingArguments` works; these are added.

    **Method**

    Args:
        method: name of a training method (`aifs_peft.methods.names()`); None takes the adapter's recipe:
            `discovery` is "aifs", `paper` is "aifs-paper", `erm` is "erm".
        alpha: weight of the invariance term; None takes the adapter's configuration, as for the next two.
        beta: weight of the sensitivity term.
        lambda_: strength of the intervention.
        method_options: the method's own numbers, keyword arguments of its `Options` (JSON on the command line).

    **Mask**

    Args:
        class_weights: what each class weighs in the attributions of the paper's recipe: a list with one number per
            class (JSON on the command line), or "probability"; None takes the adapter's configuration.
        mask_update_every: epochs between two updates, at least 1.
        mask_samples: examples whose latents are kept for an update; None takes the method's (2048 for the paper's
            recipe, all for discovery).

    **Discovery**

    Args:
        directions: for an encoder that is trained, at each update: "refit" the directions from the groups found
            first, "rediscover" with one more pass of the encoder, or "keep" them.
        discovery_options: keyword arguments for `aifs_peft.discovery.discover` (JSON on the command line).
        balance_groups: balance `aifs` over (label, inferred group) once groups are known: by the logits with two
            classes and an encoder that is trained, else by the draws.
        max_repeats: no example is drawn more often than this per epoch on average, however small its cell.
        cache_latents: encode every data set once, before the first epoch, and train on the latents: for a frozen
            encoder and examples that are the same each time they are read (no random augmentation), which is checked.
        stream_shuffle_buffer: examples of a streamed training set that are held to be shuffled, anew in each epoch; 0
            takes them in the order of the stream, as transformers does. A set in memory is always shuffled.

    **Selection and evaluation, without group labels**

    Args:
        selection: "worst_inferred_group", "worst_class" or "average": the metric by which the best model is chosen,
            unless `metric_for_best_model` says otherwise.
        min_cell: cells with fewer evaluation examples do not count as the worst.
        early_stopping_patience: stop after that many evaluations without improvement; None trains to the end.
        evaluation_columns: integer or boolean columns of the evaluation set (say, true groups, also overlapping ones)
            that `compute_metrics` and `predict` get beside the labels, as `label_ids = (labels, column, ...)`. Kept
            whatever `remove_unused_columns` says; never seen by the model.

    **Several processes**

    Args:
        shard_base_model: split the frozen weights of the base model over the processes (FSDP2), for a base that does
            not fit onto one device; what is trained stays whole on each.

    **Interruptions**

    Args:
        save_on_sigterm: on SIGTERM finish the step, save a checkpoint and end with status 143; nothing is done where
            the signal has a handler already.
        resume_without_optimizer: resume also from checkpoints that were saved with `save_only_model`; optimizer,
            schedule and random generators then start anew.

    **Defaults that differ from transformers**

    - `lr_scheduler_type="cosine"` (there: linear); the optimizer is AdamW in both.
    - `logging_nan_inf_filter=False` (there: True): a loss that is not finite raises instead of being smoothed away.
    - `ddp_find_unused_parameters=False`, `ddp_broadcast_buffers=False` (there: decided at run time): every trainable
      parameter is used in each step, and the adapter's buffers are made equal when they change.
    - `report_to="none"` unless given: nothing is sent anywhere.
    - `greater_is_better=True` with the selection metrics.

    Raises:
        InvalidConfigError: naming the field.

    Example:
        >>> args = AIFSTrainingArguments(output_dir="run", use_cpu=True)
        >>> str(args.lr_scheduler_type.value), args.mask_update_every, args.method
        ('cosine', 1, None)
    """

    method: str | None = field(default=None, metadata={"help": "Training method; None: the adapter's recipe."})
    alpha: float | None = field(default=None, metadata={"help": "Weight of the invariance term."})
    beta: float | None = field(default=None, metadata={"help": "Weight of the sensitivity term."})
    lambda_: float | None = field(default=None, metadata={"help": "Strength of the intervention."})
    method_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The method's own numbers, as JSON; `aifs methods` lists them."}
    )
    class_weights: list[float] | str | None = field(
        default=None, metadata={"help": "Weights of the classes in attributions, as JSON, or 'probability'."}
    )
    mask_update_every: int = field(default=1, metadata={"help": "Epochs between two mask updates."})
    mask_samples: int | None = field(default=None, metadata={"help": "Examples used for a mask update."})
    directions: str = field(default="refit", metadata={"help": "refit, rediscover or keep."})
    discovery_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Keyword arguments for discover, as JSON."}
    )
    balance_groups: bool = field(default=True, metadata={"help": "Balance batches over inferred groups."})
    max_repeats: float = field(default=20.0, metadata={"help": "Most draws per example and epoch, on average."})
    cache_latents: bool = field(default=False, metadata={"help": "Encode each set once; for a frozen encoder."})
    stream_shuffle_buffer: int = field(
        default=0, metadata={"help": "Examples of a streamed training set that are shuffled at a time."}
    )
    selection: str = field(
        default="worst_inferred_group",
        metadata={"help": "worst_inferred_group, worst_class or average."},
    )
    min_cell: int = field(default=10, metadata={"help": "Smallest evaluation cell that counts."})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "Evaluations without improvement."})
    evaluation_columns: list[str] | None = field(
        default=None, metadata={"help": "Columns for compute_metrics, such as true groups."}
    )
    shard_base_model: bool = field(
        default=False, metadata={"help": "Split the frozen base model over the processes (FSDP2)."}
    )
    save_on_sigterm: bool = field(default=True, metadata={"help": "On SIGTERM save a checkpoint and end with 143."})
    resume_without_optimizer: bool = field(
        default=False, metadata={"help": "Resume from checkpoints of save_only_model, with a new optimizer."}
    )
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide non-finite losses; leave it off."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See TrainingArguments."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "See TrainingArguments."})
    # The order matters: the command line takes the second member of the union.
    report_to: None | str | list[str] = field(  # noqa: RUF036
        default="none", metadata={"help": "Where to report; nowhere by default."}
    )

    def worker_options(self) -> dict[str, Any]:
        """Arguments of a `DataLoader` that say how examples are read."""
        return {
            "num_workers": self.dataloader_num_workers,
            "prefetch_factor": self.dataloader_prefetch_factor,
            "multiprocessing_context": self.dataloader_multiprocessing_context,
            "pin_memory": self.dataloader_pin_memory and self.device.type == "cuda",
        }

    def checked(self) -> AIFSTrainingArguments:
        """Themselves, checked again after fields were set.

        Raises:
            InvalidConfigError: naming the field.
        """
        self._check_ranges()
        self._check()
        return self

    def __post_init__(self) -> None:
        self._check_selection()
        self._check_ranges()
        self._check_parallelism()
        wants_best = self.load_best_model_at_end or self.early_stopping_patience is not None
        if self.metric_for_best_model is None and (wants_best or str(self.save_strategy) == "best"):
            self.metric_for_best_model = SELECTION_METRICS[self.selection]
            if self.greater_is_better is None:
                self.greater_is_better = True
        with meeting_processes(self):
            super().__post_init__()
        self._check()

    def _check_selection(self) -> None:
        if not isinstance(self.selection, str) or self.selection not in SELECTION_METRICS:
            raise InvalidConfigError(
                f"selection must be one of {', '.join(map(repr, SELECTION_METRICS))}; got {self.selection!r}"
            )

    def _check(self) -> None:
        self._check_selection()
        check_number("max_repeats", self.max_repeats, 1)
        for name in ("mask_update_every", "min_cell"):
            check_count(name, getattr(self, name))
        check_count("stream_shuffle_buffer", self.stream_shuffle_buffer, 0)
        for name in ("mask_samples", "early_stopping_patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.directions not in ("refit", "rediscover", "keep"):
            raise InvalidConfigError(f"directions must be 'refit', 'rediscover' or 'keep'; got {self.directions!r}")
        if self.ignore_data_skip:
            raise InvalidConfigError(
                "ignore_data_skip=True would train on part of an epoch twice with half-filled statistics; leave it at "
                "False: skipping reads the order of examples only"
            )
        if self.train_sampling_strategy != "random":
            raise InvalidConfigError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} has no effect here: the training method "
                'decides how examples are drawn (at random, or balanced over what it inferred); leave it at "random"'
            )
        if not self.dataloader_in_order and self.dataloader_num_workers > 1:
            raise InvalidConfigError(
                f"dataloader_in_order=False with dataloader_num_workers={self.dataloader_num_workers} gives batches in "
                "the order in which workers finish: no training could be repeated, and one that is resumed within an "
                "epoch would see some examples twice and others never. Leave it at True"
            )
        if self.use_liger_kernel:
            raise InvalidConfigError(
                "use_liger_kernel=True computes the loss inside the model without logits, and the method's losses read "
                "logits and latents; leave it at False"
            )
        if self.label_names is not None and not set(self.label_names) & set(LABEL_NAMES):
            raise InvalidConfigError(
                f"label_names={self.label_names!r} names no label that is known here; rename the column to one of "
                f"{', '.join(LABEL_NAMES)}, and pass other columns for metrics as evaluation_columns"
            )
        if not 0 <= self.label_smoothing_factor < 1:
            raise InvalidConfigError(f"label_smoothing_factor must lie in [0, 1); got {self.label_smoothing_factor}")
        if self.early_stopping_patience is not None and IntervalStrategy(self.eval_strategy) == IntervalStrategy.NO:
            raise InvalidConfigError('early_stopping_patience needs evaluations; set eval_strategy="epoch" or "steps"')

    def _check_ranges(self) -> None:
        """Of transformers' own numbers, which it takes as they are: a negative rate trains away from the data."""
        for name, (low, whole, none) in _RANGES.items():
            value = getattr(self, name, None)
            # The command line of transformers gives some numbers as text; upstream reads them.
            if (value is None and none) or isinstance(value, str) or not hasattr(self, name):
                continue
            check_count(name, value, int(low)) if whole else check_number(name, value, low)
        if self.max_steps <= 0:
            check_number("num_train_epochs (without max_steps)", self.num_train_epochs, 0, above=True)

    def _check_parallelism(self) -> None:
        """Before upstream sets anything up for it."""
        for name in ("fsdp", "deepspeed", "parallelism_config"):
            value = getattr(self, name)
            if value:
                raise InvalidConfigError(
                    f"{name}={value!r} splits parameters or batches over processes, and discovery, masks and exact "
                    "resume have not been shown to work then; leave it out and start one process per device: torchrun "
                    "--nproc_per_node N ..., or accelerate launch --multi_gpu. For a base model that does not fit onto "
                    "one device: shard_base_model=True (FSDP2 on its frozen weights)"
                )

"""`AIFSTrainer`: one encoder pass per batch, losses on latents, state in the adapter, exact resume."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import EarlyStoppingCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import StepContext
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.batches import (
    INDEX,
    LABEL_NAMES,
    OCCURRENCE,
    POSITION_COLUMNS,
    CarryingCollator,
    IndexedDataset,
    check_labels,
    label_of,
    read_labels,
)
from aifs_peft.training.callbacks import EpochHook
from aifs_peft.training.epochs import EpochMixin
from aifs_peft.training.losses import LossTerms
from aifs_peft.training.method import build_method, give_own_group, require_adapter
from aifs_peft.training.rng import ExampleNoise, isolated_rng, private_generator
from aifs_peft.training.sampling import EpochSampler
from aifs_peft.training.selection import selection_metrics

logger = logging.getLogger(__name__)


class AIFSTrainer(EpochMixin):
    """`transformers.Trainer` for an AIFS adapter.

    Data sets hold the model's inputs and an integer `labels` (or `label`) per example; group labels are never
    asked for. The encoder runs once per batch: the adapter's layer classifies clean and intervened latents in one
    call of the head. What the method learns lies in the adapter's buffers, so checkpoints, processes and the saved
    adapter have it, and a resumed run continues bit for bit, at an epoch's end or within one.

    A frozen encoder stays in evaluation mode: its dropout is off and its batch statistics do not move.

    Args:
        model: a `PeftModel` with an AIFS adapter.
        args: see `AIFSTrainingArguments`.
        **kwargs: as for `Trainer` (`train_dataset`, `eval_dataset`, `data_collator`, `compute_metrics`, ...).

    Raises:
        HeadError: if the model has no AIFS adapter.
        InvalidConfigError: for arguments that contradict each other, the adapter or the machine.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from transformers import PrinterCallback, ViTConfig, ViTForImageClassification
        >>> from aifs_peft.tuner import AIFSConfig
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> vit = ViTForImageClassification(ViTConfig(image_size=4, patch_size=4, num_labels=2, **sizes))
        >>> model = get_peft_model(vit, AIFSConfig.paper())
        >>> data = [{"pixel_values": torch.randn(3, 4, 4), "label": i % 2} for i in range(8)]
        >>> folder = tempfile.TemporaryDirectory()
        >>> args = AIFSTrainingArguments(output_dir=folder.name, num_train_epochs=1, use_cpu=True, disable_tqdm=True)
        >>> trainer = AIFSTrainer(model, args, train_dataset=data)
        >>> trainer.remove_callback(PrinterCallback)
        >>> trainer.train().global_step, int(trainer.layer.state.num_updates)
        (1, 1)
        >>> folder.cleanup()
    """

    # The loss below is a plain mean over the batch: upstream divides it by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(self, model: PeftModel, args: AIFSTrainingArguments | None = None, **kwargs: Any) -> None:
        args = AIFSTrainingArguments(output_dir="aifs_run") if args is None else args
        if not isinstance(args, AIFSTrainingArguments):
            raise InvalidConfigError(
                f"args must be AIFSTrainingArguments, got {type(args).__name__}; it takes the same arguments and more"
            )
        if args.n_gpu > 1:
            raise InvalidConfigError(
                f"{args.n_gpu} GPUs in one process would mean nn.DataParallel, whose copies lose the latents; start "
                f"one process per GPU: torchrun --nproc_per_node {args.n_gpu} ..., or accelerate launch"
            )
        self.layer = require_adapter(model)
        self.method = build_method(model, self.layer, args)
        if args.label_names is None:
            args.label_names = ["labels", *(args.evaluation_columns or [])]
        self._labels: Tensor | None = None
        self._sampler: EpochSampler | None = None
        self._micro_step = (-1, 0)
        self._evaluated: list[tuple[Tensor, ...]] | None = None
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.data_collator = CarryingCollator(self.data_collator, args.evaluation_columns or ())
        self.terms = LossTerms(self.accelerator)
        self.add_callback(EpochHook(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))

    def adapter_name(self) -> str:
        """Name of the adapter that is trained."""
        return self.layer.adapter

    def extra_columns(self) -> list[str]:
        """Columns that reach a batch though the model does not take them."""
        return list(self.args.evaluation_columns or [])

    @property
    def num_labels(self) -> int:
        """Number of classes of the trained head."""
        return self.layer.aifs_spec[self.layer.adapter].num_labels

    @property
    def labels(self) -> Tensor:
        """Labels of the training set, `(n,)` int64, read and checked once.

        Raises:
            InvalidInputError: if the set is empty, has one class, or a label has no class in the head.
        """
        if self._labels is None:
            with isolated_rng(self.args.seed):
                labels = read_labels(self.train_dataset)
            check_labels(labels, self.num_labels)
            self._labels = labels
        return self._labels

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, or go on from a checkpoint exactly where it was left.

        Args:
            resume_from_checkpoint: folder, or True for the last one in `output_dir`.
            trial: as for `Trainer.train`.
            ignore_keys_for_eval: as for `Trainer.train`.

        Returns:
            Steps, mean loss and timings.

        Raises:
            InvalidInputError: if the data cannot be trained on.
            NonFiniteError: if latents or a term of the loss are not finite.
            CheckpointMismatchError: if the checkpoint does not fit the adapter.
        """
        if self.train_dataset is None:
            raise InvalidInputError("no training set; pass AIFSTrainer(train_dataset=...)")
        self.resumed_from = None
        self._labels = None
        _ = self.labels
        output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        self.finish_training()
        return output

    def get_train_dataloader(self) -> Any:
        """Batches of the training set in the order of `EpochSampler`, with each example's position."""
        inner = self.without_unused_columns(self.train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = self._sampler = EpochSampler(
            len(self.labels),
            lambda epoch: self.method.sampling(self.labels, replace(self.epoch_context(), epoch=epoch)),
            seed,
            self.args.max_repeats,
        )
        return self.build_loader(
            IndexedDataset(inner), "training", self.device_batch_size, lambda _: sampler, is_training=True
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean loss of a batch: the method's terms in training, the plain cross-entropy in evaluation."""
        del num_items_in_batch
        labels = label_of(inputs)
        carried, hidden = inputs, {*LABEL_NAMES, *POSITION_COLUMNS, *self.extra_columns()}
        inputs = {name: value for name, value in inputs.items() if name not in hidden}
        if not (self.adapted.training and torch.is_grad_enabled()):
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs["logits"].float(), labels)
            return (loss, outputs) if return_outputs else loss
        index = carried[INDEX]
        context = self._step_context(labels, index, carried[OCCURRENCE])
        wants = {"output_hidden_states": True} if self.method.reads_tokens else {}
        with self.layer.intervening(self.method.intervention(context)):
            outputs = model(**inputs, **wants)
        output = self.layer.take_output()
        if self.method.reads_tokens:
            context = self.with_tokens(context, inputs, outputs)
        terms = self.method.loss(output, labels, context)
        loss = self.terms.add(terms, output.z, self.state.global_step)
        self.keep_latents(index, output.z, labels)
        return (loss, outputs) if return_outputs else loss

    def _step_context(self, labels: Tensor, index: Tensor, occurrence: Tensor) -> StepContext:
        step, seed, rank = self.state.global_step, self.args.seed, self.args.process_index
        micro = self._micro_step[1] + 1 if self._micro_step[0] == step else 0
        self._micro_step = (step, micro)
        return StepContext(
            head=self.head,
            state=self.layer.state,
            labels=labels,
            index=index,
            generator=private_generator(seed, step, micro, rank),
            draw=ExampleNoise(seed, step, index, occurrence),
            step=step,
            progress=step / max(self.state.max_steps, 1),
            columns=self.method_columns,
            rank=rank,
            world_size=self.accelerator.num_processes,
            gather=self.accelerator.gather,
            auxiliary=self.layer.auxiliary,
        )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream; the second head, where there is one, without weight decay and with its own learning rate."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.layer.auxiliary is not None:
            give_own_group(optimizer, self.layer.auxiliary, self.args.learning_rate * self.method.auxiliary_lr_scale)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As upstream, with the mean of each term of the loss under its own name."""
        if "loss" in logs:
            logs = {**logs, **self.terms.drain()}
        super().log(logs, start_time)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As upstream; notes what the label-free metrics need.

        Raises:
            InvalidInputError: if labelled data lack a column of `evaluation_columns`: upstream would drop the loss and
                the metrics without a word.
        """
        missing = [name for name in self.args.evaluation_columns or () if name not in inputs]
        if missing and any(name in inputs for name in LABEL_NAMES):
            raise InvalidInputError(
                f"the evaluation set has no integer column {', '.join(missing)} (a batch has {sorted(inputs)}); add it "
                "or take it out of evaluation_columns"
            )
        result = super().prediction_step(model, inputs, *args, **kwargs)
        if self._evaluated is None or not self.layer.has_output:
            return result
        output = self.layer.take_output()
        state = self.layer.state
        labels = label_of(inputs).to(output.logits.device)
        u = output.z.detach().float() @ state.basis
        rows = self.accelerator.gather_for_metrics((output.logits.argmax(1) == labels, labels, u))
        self._evaluated.append(tuple(row.cpu() for row in rows))
        return result

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As upstream, with the label-free metrics, and without touching the generators of a running training."""
        with isolated_rng(self.args.seed):
            has_labels = description == "Evaluation"
            self._evaluated = [] if has_labels else None
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        rows, self._evaluated = self._evaluated, None
        if rows and output.metrics is not None:
            correct, labels, u = (torch.cat(column) for column in zip(*rows, strict=True))
            state = self.layer.state
            metrics = selection_metrics(correct, labels, u if state.has_basis else None, state, self.args.min_cell)
            for name, value in metrics.items():
                output.metrics.setdefault(f"{metric_key_prefix}_{name}", value)
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As upstream; a checkpoint in mid-epoch also gets the latents seen so far."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:
            self.save_latents(Path(output_dir))

"""`AIFSTrainer`: one encoder pass per batch, losses on latents, state in the adapter, exact resume."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import TrainOutput

from aifs_peft.errors import InvalidInputError
from aifs_peft.training import _transformers, search
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.batches import (
    INDEX,
    OCCURRENCE,
    POSITION_COLUMNS,
    CarryingCollator,
    model_inputs,
)
from aifs_peft.training.callbacks import EpochCallback
from aifs_peft.training.checkpointing import CheckpointingTrainer
from aifs_peft.training.checks import check_arguments, check_evaluation_sets
from aifs_peft.training.contexts import Batch
from aifs_peft.training.evaluating import EvaluatingTrainer
from aifs_peft.training.finite import require_finite_gradients, require_finite_logits, require_finite_weights
from aifs_peft.training.from_names import build_model
from aifs_peft.training.frozen import LATENTS, on_kept_latents
from aifs_peft.training.labels import label_of
from aifs_peft.training.losses import GivenLoss, LossTerms
from aifs_peft.training.method import method_of
from aifs_peft.training.optimizers import give_own_group, require_held
from aifs_peft.training.parallel import processes_of, refuse_sharding
from aifs_peft.training.peers import telling_lost_processes
from aifs_peft.training.publishing import PublishingTrainer
from aifs_peft.training.running import RunningTrainer
from aifs_peft.training.searching import SearchingTrainer
from aifs_peft.training.sharding import check_shardable, shard_base
from aifs_peft.training.streams import is_stream
from aifs_peft.training.termination import Termination


@_transformers.begins_no_epoch_when_stopped
@_transformers.saves_whole_checkpoints
@_transformers.pushes_without_pickles
@_transformers.loads_adapters_strictly
class AIFSTrainer(RunningTrainer, EvaluatingTrainer, CheckpointingTrainer, SearchingTrainer, PublishingTrainer):
    """`transformers.Trainer` for an AIFS adapter.

    Data sets hold the model's inputs, or images or texts that `processing_class` turns into them, and a `label` (or
    `labels`) per example, an index or a class name; group labels are never asked for. The encoder runs once per batch:
    the adapter's layer classifies clean and intervened latents in one call of the head. What the method learns lies in
    the adapter's buffers, so checkpoints, processes and the saved adapter have it, and a resumed run continues bit for
    bit, at an epoch's end or within one.

    A frozen encoder stays in evaluation mode: its dropout is off and its batch statistics do not move.

    `compute_loss_func` takes the place of the plain cross-entropy of methods that have one (class weights, say); it is
    asked for the mean over the batch. Everything else of `Trainer` works as there, or is refused by its name.

    Args:
        model: a `PeftModel` with an AIFS adapter; with `peft_config` also a bare model, or the name or folder of one;
            None with `model_init`.
        args: see `AIFSTrainingArguments`; left as they are.
        *positional: as for `Trainer`.
        peft_config: an `AIFSConfig`, or the configuration of the encoder's adapter, such as `LoraConfig`; with
            `model_init` every model that it builds gets one. Its `revision` is the one of a model given by name.
        unlabelled_dataset: examples without labels, of the training set's kind, in which a shortcut goes with the label
            less: the default recipe finds weak shortcuts by them, see `discover(unlabelled=)`. Labels in it are
            ignored.
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
        >>> args = AIFSTrainingArguments(output_dir=folder.name, num_train_epochs=2, use_cpu=True, disable_tqdm=True)
        >>> trainer = AIFSTrainer(model, args, train_dataset=data)
        >>> trainer.remove_callback(PrinterCallback)
        >>> trainer.train().global_step, int(trainer.layer.state.num_updates)
        (2, 2)
        >>> folder.cleanup()
    """

    # The loss below is a plain mean over the batch: upstream divides it by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module | str | None = None,
        args: AIFSTrainingArguments | None = None,
        *positional: Any,
        peft_config: PeftConfig | None = None,
        unlabelled_dataset: Any = None,
        **kwargs: Any,
    ) -> None:
        args = AIFSTrainingArguments(output_dir="aifs_run") if args is None else args
        check_arguments(args)
        refuse_sharding()
        self.resumed_from: Path | None = None
        self.saving_to: Path | None = None
        self.push_due = False
        self._termination = Termination(wanted=False)
        self._adopted, self._runner, self._labels, self._checked_evaluation = None, None, None, None
        self._micro = (-1, 0)
        if kwargs.get("model_init") is not None and peft_config is not None:
            kwargs["model_init"], peft_config = search.adapting(kwargs["model_init"], peft_config), None
        if isinstance(model, str) or peft_config is not None:
            set_seed(args.seed)  # as `Trainer` does below: what is drawn for head and adapter is the seed's, too
            data, processor = kwargs.get("train_dataset"), kwargs.get("processing_class")
            model, kwargs["processing_class"] = build_model(model, peft_config, data, processor)
        if model is not None:
            self._adopt(model, args)  # what does not fit is told before anything is set up
        streamed, positional, kwargs = _without_stream(positional, kwargs)
        super().__init__(model, args, *positional, **kwargs)
        if streamed is not None:
            self.train_dataset = streamed
        refuse_sharding(self.accelerator)
        self._adopt(self.model, args)
        if args.shard_base_model and self.model is not None:
            check_shardable(self.adapted, args, self.accelerator.num_processes)
        columns = list(args.evaluation_columns or ())
        self.train_dataset = self._ready(self.train_dataset, "training")
        self.eval_dataset = self._ready(self.eval_dataset, "evaluation")
        self.unlabelled_dataset = self._ready_unlabelled(unlabelled_dataset)
        labels = list(args.label_names or ("labels",))
        self.label_names = [*labels, *(name for name in columns if name not in labels)]
        self.model_accepts_loss_kwargs = False
        _transformers.keep_columns(self, (*POSITION_COLUMNS, *columns, LATENTS))
        self.data_collator = CarryingCollator(self.data_collator, columns, seed=args.seed)
        self.terms = LossTerms(processes_of(self.accelerator))
        self.add_callback(
            EpochCallback(self._begin_training, self._begin_epoch, self._finish_epoch, self._asked_to_end)
        )
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, or go on from a checkpoint exactly where it was left.

        A second call begins anew from the weights as they are, as in `Trainer`. On SIGTERM the step is finished, a
        checkpoint saved and the process ended with status 143 (`SystemExit`), unless the signal is handled already or
        `save_on_sigterm=False`.

        Args:
            resume_from_checkpoint: folder, or True for the newest whole one in `output_dir`.
            trial: as for `Trainer.train`.
            ignore_keys_for_eval: as for `Trainer.train`.

        Returns:
            Steps, mean loss and timings.

        Raises:
            InvalidInputError: if the data cannot be trained or evaluated on.
            NonFiniteError: if latents, a term of the loss, gradients, weights or evaluated logits are not finite.
            CheckpointMismatchError: if the checkpoint is not whole, or does not fit the adapter, the method, the data
                or the run.
            CheckpointWriteError: if a checkpoint cannot be written.
            ProcessLostError: if another process of the run has ended.
        """
        if self.train_dataset is None:
            raise InvalidInputError("no training set; pass AIFSTrainer(train_dataset=...)")
        if trial is not None and self._settings is not None:
            search.restore(self.args, self._settings)
            _transformers.apply_trial(self, trial)  # before the model is made, whose seed may be among what is tried
            check_arguments(self.args.checked())
        if self.model is None:  # a trial's model is let go of when it ends
            self._adopted, self.model = None, self.call_model_init(trial)
            self._adopt(self.model, self.args)
        self.resumed_from, self._runner, self._labels, self._micro = None, None, None, (-1, 0)
        self.terms = LossTerms(processes_of(self.accelerator))
        asked = method_of(self.adapted, self.layer, self.args)
        if (type(asked), asked.settings) != (type(self.method), self.method.settings):
            self.method = asked  # arguments were changed since, as they may be in `Trainer`
        self.train_dataset = self._ready(self.train_dataset, "training")
        self.eval_dataset = self._ready(self.eval_dataset, "evaluation")
        _ = self.labels
        check_evaluation_sets(self.eval_dataset, self.args, self.num_labels)
        self._checked_evaluation = self.eval_dataset
        checkpoint = self._checkpoint(resume_from_checkpoint)
        self.fit_blocks()
        if self.args.shard_base_model:
            check_shardable(self.adapted, self.args, self.accelerator.num_processes)
            shard_base(self.adapted, self.layer)
        ending = Termination(wanted=self.args.save_on_sigterm)
        with ending as self._termination, self._telling_lost_processes(), self._on_latents():
            output = super().train(checkpoint, trial, ignore_keys_for_eval)
            require_finite_weights(self.adapted, self.state.global_step)
            self._report(self.runner.finish_training(int(self.state.epoch or 0)))
        # From here on the model's own `save_pretrained` and `push_to_hub` write the card of this run.
        from aifs_peft.report import attach_card, summary_from_trainer

        attach_card(self.adapted, summary_from_trainer(self), self.processing_class)
        if trial is not None:
            # Of the model as it is now, best and finished, not of its last evaluation.
            self.objective: float | None = None
        return output

    def _on_latents(self) -> AbstractContextManager[None]:
        """With `cache_latents`: every data set as latents, while the training lasts."""
        return on_kept_latents(self, self._loading()) if self.args.cache_latents else nullcontext()

    def _telling_lost_processes(self) -> Any:
        return telling_lost_processes(self.accelerator.process_index, self.accelerator.num_processes)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """As upstream; gradients that are not finite change no weight.

        Args:
            model: as it was wrapped for the machine.
            inputs: the batch.
            num_items_in_batch: as for `Trainer.training_step`.

        Raises:
            NonFiniteError: naming the step and the parameters. With fp16, whose scaler skips such steps, weights and
                losses alone are looked at.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and getattr(self.accelerator, "scaler", None) is None:
            require_finite_gradients(self.adapted, self.state.global_step)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The step: mean loss of a batch by the method's terms; the plain cross-entropy in evaluation.

        Args:
            model: as it was wrapped for the machine.
            inputs: the batch, with labels and positions.
            return_outputs: whether the model's outputs are wanted, too.
            num_items_in_batch: as for `Trainer.compute_loss`; not needed for a mean over this batch.

        Raises:
            NonFiniteError: if latents or a term of the loss are not finite.
        """
        del num_items_in_batch  # of all accumulated batches, which the mean over this one does not need
        labels, carried = label_of(inputs), inputs
        inputs = model_inputs(inputs, self.label_names)
        if not (self.adapted.training and torch.is_grad_enabled()):
            outputs = model(**inputs)
            require_finite_logits(outputs["logits"], inputs, self.adapted, self.state.global_step)
            loss = self._evaluation_loss(outputs, labels)
            return (loss, outputs) if return_outputs else loss
        # What the method may look at in this step.
        context = self.runner.contexts.step(self._batch(labels, carried))
        # One pass of the encoder; the head classifies latents and intervened latents in one call.
        wanted = {"output_hidden_states": True} if self.method.reads_tokens else {}
        with self.layer.intervening(self.method.intervention(context)):
            outputs = model(**inputs, **wanted)
        latent = self.layer.take_output()
        # The terms of the loss, everything after the encoder.
        context = self.runner.with_tokens(context, inputs, outputs)
        given = None if self.compute_loss_func is None else GivenLoss(self.compute_loss_func, outputs, labels)
        terms = self.method.loss(latent, labels, replace(context, given_loss=given))
        if given is not None:
            given.require_used(self.method.name)
        loss = self.terms.add(terms, latent.z, context.step)
        # A detached copy of the latents, for the end of the epoch.
        self.runner.keep(context.index, latent.z, labels, context.step)
        return (loss, outputs) if return_outputs else loss

    def _batch(self, labels: Tensor, carried: dict[str, Any]) -> Batch:
        """Which examples this is, and where in the training it comes."""
        if INDEX not in carried:
            raise InvalidInputError(
                f"a training batch has no {INDEX}, which tells the method its examples; take batches from "
                "get_train_dataloader(), or add the column in your own loader (IndexedDataset does)"
            )
        step = self.state.global_step
        self._micro = (step, self._micro[1] + 1 if self._micro[0] == step else 0)
        occurrence = carried.get(OCCURRENCE, torch.zeros_like(carried[INDEX]))
        return Batch(labels, carried[INDEX], occurrence, step, self._micro[1], self.state.max_steps)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As upstream; the second head, where there is one, without weight decay and with its own learning rate."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        second = self.layer.auxiliary
        if second is not None and given:  # the user's, or that of an earlier `train`: its groups belong to a schedule
            require_held(optimizer, second, self.method.name)
        elif second is not None:
            give_own_group(optimizer, second, self.args.learning_rate * self.method.auxiliary_lr_scale)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As upstream, with the mean of each term of the loss under its own name."""
        if "loss" in logs:
            logs = {**logs, **self.terms.drain()}
        super().log(logs, start_time)


def _without_stream(positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A streamed training set, and what was given without it: `Trainer` would want `max_steps`, its size unknown."""
    if is_stream(named.get("train_dataset")):
        return named["train_dataset"], positional, {**named, "train_dataset": None}
    if len(positional) > 1 and is_stream(positional[1]):  # after the collator
        return positional[1], (positional[0], None, *positional[2:]), named
    return None, positional, named

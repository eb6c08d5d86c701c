"""`EpochHook`: a training method in one's own loop, with `accelerate` and without `Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from aifs_peft.methods import TrainingPlan
from aifs_peft.training.adapter import num_labels_of, require_adapter, require_peft
from aifs_peft.training.assembly import TrainingData, assemble
from aifs_peft.training.batches import INDEX, OCCURRENCE, CarryingCollator, IndexedDataset, model_inputs
from aifs_peft.training.checks import check_precision, check_whole
from aifs_peft.training.contexts import Batch
from aifs_peft.training.encoding import EncodingPasses, Loading, Split
from aifs_peft.training.labels import check_labels, label_of, read_labels
from aifs_peft.training.losses import LossTerms
from aifs_peft.training.method import build_method
from aifs_peft.training.parallel import processes_of, refuse_sharding
from aifs_peft.training.resuming import check_same_run, describe, saved_run
from aifs_peft.training.rng import isolated_rng


class EpochHook:
    """The method's part of a training loop that somebody else has written.

    It gives the batches (`loader`: the method may balance them), the loss of each (`loss`), and does what the method
    does before the first step, at epochs' ends and after the last one (`epochs`). Everything else, optimizer,
    schedule, precision, logging, is the loop's.

    Args:
        model: a `PeftModel` with an AIFS adapter, before `accelerator.prepare`.
        train_dataset: map-style, examples are dictionaries with the model's inputs and a label.
        accelerator: of the loop; None makes a plain one.
        validation_dataset: for methods that fit on one.
        collate: list of examples to a batch; None stacks.
        batch_size: examples per process and forward pass.
        method: name of a training method; None takes the adapter's recipe's.
        seed: of every private draw.
        update_every: epochs between two mask updates.
        samples: examples whose latents are kept for an update; None takes the method's number.
        **settings: fields of `aifs_peft.methods.MethodSettings` (`alpha`, `method_options`, ...).

    Attributes:
        loader: batches of the training set for this process, in the order of the coming epoch.
        numbers: means of the terms of the loss over the last epoch, and what the method reported, for the loop's log.
        step: optimizer steps so far.

    Raises:
        HeadError: if the model has no AIFS adapter.
        InvalidConfigError: for settings that the method or the machine cannot work with.
        InvalidInputError: if the data cannot be trained on.

    Example:
        >>> import torch
        >>> from peft import get_peft_model
        >>> from aifs_peft.models import LatentClassifier, TabularEncoder
        >>> from aifs_peft.tuner import AIFSConfig
        >>> model = get_peft_model(LatentClassifier(TabularEncoder(4, 8), num_labels=2), AIFSConfig.paper())
        >>> data = [{"features": torch.randn(4), "label": i % 2} for i in range(8)]
        >>> accelerator = Accelerator(cpu=True)
        >>> hook = EpochHook(model, data, accelerator=accelerator, batch_size=4)
        >>> optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        >>> model, optimizer = accelerator.prepare(model, optimizer)
        >>> for epoch in hook.epochs(2):
        ...     for batch in hook.loader:
        ...         accelerator.backward(hook.loss(model, batch))
        ...         optimizer.step(); optimizer.zero_grad()
        >>> hook.numbers["mask_samples"], hook.step
        (8.0, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: Any,
        *,
        accelerator: Accelerator | None = None,
        validation_dataset: Any = None,
        collate: Callable[[list[Any]], dict[str, Any]] | None = None,
        batch_size: int = 8,
        method: str | None = None,
        seed: int = 0,
        update_every: int = 1,
        samples: int | None = None,
        **settings: Any,
    ) -> None:
        self.accelerator = Accelerator() if accelerator is None else accelerator
        refuse_sharding(self.accelerator)
        check_precision(self.accelerator.mixed_precision, self.accelerator.device)
        check_whole(model)
        adapted = require_peft(model).to(self.accelerator.device)
        self.layer = require_adapter(adapted)
        self.method = build_method(adapted, self.layer, method, seed=seed, **settings)
        with isolated_rng(seed):
            labels = read_labels(train_dataset)
        check_labels(labels, num_labels_of(self.layer))
        processes = processes_of(self.accelerator)
        collator = CarryingCollator(default_collate if collate is None else collate, seed=seed)
        loading = Loading(collator, batch_size, self.accelerator.device)
        train = Split(train_dataset, "training", {}, seed, labels)
        self._passes = EncodingPasses(adapted, self.layer, train, None, loading, processes, seed)
        self.runner = assemble(
            adapted, self.layer, self.method, TrainingData(train_dataset, labels, validation_dataset), loading,
            processes,
            batch_size=batch_size * processes.world_size, seed=seed, samples=samples, update_every=update_every,
        )  # fmt: skip
        self.loader: DataLoader[Any] = self.accelerator.prepare_data_loader(
            DataLoader(
                IndexedDataset(train_dataset, seed=seed),
                batch_size=batch_size,
                sampler=self.runner.sampler,
                collate_fn=collator,
            )
        )
        self._run = describe(
            self.method, labels, adapted.peft_config[self.layer.adapter].to_dict(),
            {"mask_update_every": update_every, "mask_samples": samples}, world_size=processes.world_size,
            batch_size=batch_size, accumulation=self.accelerator.gradient_accumulation_steps, seed=seed, data_seed=seed,
        )  # fmt: skip
        self.terms = LossTerms(processes)
        self.numbers: dict[str, float] = {}
        self.step, self._micro, self._steps, self._epoch = 0, 0, 1, 0

    def epochs(self, count: int, completed: int = 0) -> Iterator[int]:
        """The numbers of the epochs to train, with what the method does around each of them.

        To go on from a checkpoint that was written after `finish_epoch`, load the model, the optimizer and so on
        (`accelerator.load_state`), and say how many epochs were completed: order, noise and mask are then those of an
        uninterrupted run. With `accelerator.register_for_checkpointing(hook)`, before saving and before loading, a
        checkpoint of another method, of other numbers or of other data is refused as it is loaded. Leaving the loop
        early leaves out what the method does after training.

        Args:
            count: epochs of the whole training, those completed included.
            completed: epochs that a loaded checkpoint has behind it.

        Raises:
            InvalidConfigError: if the method cannot work with what there is.
            CheckpointMismatchError: if the loaded adapter lacks what the method had learnt by then.
        """
        per_epoch = max(-(-len(self.loader) // self.accelerator.gradient_accumulation_steps), 1)
        self.step, self._micro, self._steps, self._epoch = completed * per_epoch, 0, count * per_epoch, completed
        plan = TrainingPlan(self._steps, per_epoch, self.runner.update_every)
        self._passes.fit_blocks()
        self.numbers = self.runner.begin_training(plan, epoch=completed, fresh=completed == 0)
        for epoch in range(completed, count):
            self.runner.begin_epoch(epoch)
            if hasattr(self.loader, "set_epoch"):  # accelerate's own count starts at 0 in a run that goes on
                self.loader.set_epoch(epoch)
            yield epoch
            if self._epoch == epoch:
                self.finish_epoch()
        self.numbers = {**self.numbers, **self.runner.finish_training(count)}

    def state_dict(self) -> dict[str, Any]:
        """What this run is, for `accelerator.register_for_checkpointing(hook)`; the method's state is the model's."""
        return saved_run(self._run, step=self.step, epoch=self._epoch, resumable=True)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to go on from the checkpoint of another run.

        Args:
            state: of `state_dict`.

        Raises:
            CheckpointMismatchError: naming what differs (method, numbers, data, adapter), before and now.
        """
        check_same_run("the loaded state", state, self._run)

    def finish_epoch(self) -> dict[str, float]:
        """Let the method learn from the epoch; called after its last step where the loop has not done so.

        Call it to evaluate or save with what was learnt.

        Returns:
            `numbers`.
        """
        if self._micro:
            self.step, self._micro = self.step + 1, 0
        self._epoch += 1
        self.numbers = {**self.terms.drain(), **self.runner.finish_epoch(self._epoch)}
        return self.numbers

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Run the model on one batch of `loader` and give its mean loss.

        Args:
            model: as `accelerator.prepare` gave it; put into training mode here.
            batch: with labels and positions.

        Returns:
            A scalar with its graph, for `accelerator.backward`, which divides it by the number of accumulated batches.

        Raises:
            NonFiniteError: if latents or a term of the loss are not finite.
        """
        model.train()
        labels, inputs = label_of(batch), model_inputs(batch)
        where = Batch(labels, batch[INDEX], batch[OCCURRENCE], self.step, self._micro, self._steps)
        context = self.runner.contexts.step(where)
        wanted = {"output_hidden_states": True} if self.method.reads_tokens else {}
        with self.layer.intervening(self.method.intervention(context)):
            outputs = model(**inputs, **wanted)
        latent = self.layer.take_output()
        terms = self.method.loss(latent, labels, self.runner.with_tokens(context, inputs, outputs))
        loss = self.terms.add(terms, latent.z, self.step)
        self.runner.keep(context.index, latent.z, labels, self.step)
        self._micro += 1
        if self._micro == self.accelerator.gradient_accumulation_steps:
            self.step, self._micro = self.step + 1, 0
        return loss

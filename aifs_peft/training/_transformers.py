"""Every private name of `transformers.Trainer` that this package touches, and nothing else.

Written against transformers 5.20 to 5.x. `tests/training/test_training_transformers_contract.py` names each of them and
what is expected of it, so that a release of transformers that moves one fails there first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from accelerate.data_loader import prepare_data_loader
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from aifs_peft._hub import expecting_answers, reason_of
from aifs_peft.errors import PushFailedError
from aifs_peft.training.callbacks import export_callbacks
from aifs_peft.training.checkpoint_folders import require_whole, unfinished
from aifs_peft.training.checkpoints import load_adapter_strictly
from aifs_peft.training.columns import is_table
from aifs_peft.training.stream_parts import TrainingPart
from aifs_peft.tuner import find_aifs_layer

logger = logging.getLogger(__name__)
NO_REPOSITORY = (
    "the repository {repo!r} cannot be made or reached ({reason}), so training has not begun. Log in with "
    "`hf auth login`, choose another hub_model_id, or train with push_to_hub=False and push afterwards"
)

C = TypeVar("C", bound=type[Trainer])


class Resumable(Protocol):
    """What the loaders below need of a trainer."""

    model: Any
    state: TrainerState
    resumed_from: Path | None


def training_loader(trainer: Trainer, dataset: Any, sampler: Sampler[int]) -> DataLoader[Any]:
    """The loader of training batches as upstream builds it (columns, collator, workers, sharding), with a given order.

    Args:
        trainer: whose arguments and collator are used.
        dataset: map-style.
        sampler: positions in the order in which they are drawn.
    """
    return trainer._get_dataloader(
        dataset=dataset,
        description="Training",
        batch_size=trainer._train_batch_size,
        sampler_fn=lambda _: sampler,
        is_training=True,
    )


def streaming_loader(trainer: Trainer, part: TrainingPart) -> DataLoader[Any]:
    """The loader of a stream: as upstream builds one, but each process's part of the batches is taken already.

    Upstream would have one process read and send whole batches to the others, which cannot be put together where texts
    differ in length.

    Args:
        trainer: whose arguments and collator are used.
        part: of this process.
    """
    args = trainer.args
    loader: DataLoader[Any] = DataLoader(
        part,
        batch_size=part.batch_size,
        collate_fn=removing_collator(trainer),
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
    accelerator = trainer.accelerator
    prepared: DataLoader[Any] = prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=accelerator.device_placement,
        dispatch_batches=False, non_blocking=accelerator.non_blocking,
    )  # fmt: skip
    return prepared


def device_batch_size(trainer: Trainer) -> int:
    """Training examples per process and forward pass; `auto_find_batch_size` may have lowered it."""
    return int(trainer._train_batch_size)


def keep_columns(trainer: Trainer, names: Sequence[str]) -> None:
    """Let columns survive `remove_unused_columns` though the model does not take them.

    Args:
        trainer: whose data sets have them.
        names: of the columns.
    """
    trainer._set_signature_columns_if_needed()
    columns: list[str] = trainer._signature_columns or []
    columns += [name for name in names if name not in columns]


def without_unused_columns(trainer: Trainer, dataset: Any) -> Any:
    """Drop the columns of a `datasets.Dataset` that nobody reads, before they are decoded; other sets as they are.

    Args:
        trainer: whose arguments say whether columns are dropped.
        dataset: of any kind.
    """
    return trainer._remove_unused_columns(dataset) if is_table(dataset) else dataset


def removing_collator(trainer: Trainer) -> Callable[[list[Any]], dict[str, Any]]:
    """The trainer's collator, which first drops what nobody reads from examples that are dictionaries.

    Args:
        trainer: whose collator and arguments are used.
    """
    collator: Callable[[list[Any]], dict[str, Any]] = trainer._get_collator_with_removed_columns(trainer.data_collator)
    return collator


def apply_trial(trainer: Trainer, trial: Any) -> None:
    """Set the arguments that a trial of a hyperparameter search asks for.

    Args:
        trainer: that searches.
        trial: of its backend.
    """
    trainer._hp_search_setup(trial)


def rng_file(args: TrainingArguments) -> str:
    """Name of the file in a checkpoint that holds this process's generators."""
    return "rng_state.pth" if args.world_size <= 1 else f"rng_state_{args.process_index}.pth"


def loads_adapters_strictly(cls: C) -> C:
    """Class decorator: checkpoints and the best model are loaded whole, under any adapter name, or not at all.

    Upstream loads what it finds, at most warns about keys that are missing, and looks for an adapter at the top of
    the checkpoint only, where adapters with another name than "default" are not.

    Args:
        cls: a trainer of an AIFS adapter, with an attribute `resumed_from`.
    """
    cls._load_from_checkpoint = _load_from_checkpoint  # type: ignore[assignment, method-assign]
    cls._load_best_model = _load_best_model  # type: ignore[assignment, method-assign]
    return cls


def _load_from_checkpoint(self: Resumable, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
    del model  # only FSDP and SageMaker pass one, and both are refused
    self.resumed_from = Path(resume_from_checkpoint)
    _load_into(self.model, self.resumed_from)


def _load_best_model(self: Resumable) -> None:
    best = str(self.state.best_model_checkpoint)
    logger.info("loading the best model from %s (score: %s)", best, self.state.best_metric)
    require_whole(Path(best))
    _load_into(self.model, Path(best))


def _load_into(model: Any, checkpoint: Path) -> None:
    assert isinstance(model, PeftModel)  # noqa: S101 - `AIFSTrainer` refuses all others
    load_adapter_strictly(model, checkpoint, find_aifs_layer(model).adapter)


def pushes_without_pickles(cls: C) -> C:
    """Class decorator: what goes to the Hub after a checkpoint is adapter and card, without pickled arguments.

    Args:
        cls: a trainer.
    """
    cls._push_from_checkpoint = _push_from_checkpoint  # type: ignore[method-assign]
    cls.init_hf_repo = _init_hf_repo  # type: ignore[method-assign]
    return cls


def _init_hf_repo(self: Any, token: str | None = None, private: bool | None = None) -> None:
    try:
        with expecting_answers():
            Trainer.init_hf_repo(self, token, private)
    except Exception as error:
        # Of whatever kind: which library talks to the Hub, and raises, differs between releases of huggingface_hub.
        reason = reason_of(error)
        raise PushFailedError(NO_REPOSITORY.format(repo=self.args.hub_model_id, reason=reason)) from error


def _push_from_checkpoint(self: Any, checkpoint_folder: str) -> None:
    from transformers.utils.hub import PushInProgress

    from aifs_peft.report import push_checkpoint

    if self.saving_to is not None:
        self.push_due = True  # when the checkpoint is whole
        return
    if not self.is_world_process_zero():
        return
    running = self.push_in_progress
    if self.args.hub_always_push or running is None or running.is_done():
        self.push_in_progress = PushInProgress(push_checkpoint(self, checkpoint_folder))  # type: ignore[arg-type] # takes a list


def saves_whole_checkpoints(cls: C) -> C:
    """Class decorator: a checkpoint is written under another name, and renamed when every process has written its part.

    What is written stays upstream's. The trainer has attributes `saving_to` (None) and `push_due` (False), and
    `writing_checkpoint` and `publish_checkpoint`, see `AIFSTrainer`.

    Args:
        cls: a trainer.
    """
    cls._get_output_dir = _get_output_dir  # type: ignore[method-assign]
    cls._save_checkpoint = _save_checkpoint  # type: ignore[method-assign]
    return cls


def _get_output_dir(self: Any, trial: Any) -> str:
    return Trainer._get_output_dir(self, trial) if self.saving_to is None else str(self.saving_to)


def _save_checkpoint(self: Any, model: nn.Module, trial: Any) -> None:
    checkpoint = Path(Trainer._get_output_dir(self, trial)) / f"checkpoint-{self.state.global_step}"
    written = unfinished(checkpoint)
    export_callbacks([*self.callback_handler.callbacks, self.control], self.state)
    with self.writing_checkpoint(checkpoint):
        self.saving_to, self.push_due = written.parent, False
        try:
            Trainer._save_checkpoint(self, model, trial)
        finally:
            self.saving_to = None
        best = checkpoint.parent / f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step and (best == checkpoint or best.is_dir()):
            self.state.best_model_checkpoint = str(best)  # upstream has looked in the folder that is written
        if self.args.should_save:
            self.state.save_to_json(str(written / "trainer_state.json"))
        self.publish_checkpoint(checkpoint)
    if self.push_due:
        self._push_from_checkpoint(str(checkpoint))
    if self.args.should_save:
        rotate_checkpoints(
            output_dir=str(checkpoint.parent),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=True,
        )


def begins_no_epoch_when_stopped(cls: C) -> C:
    """Class decorator: a run that had stopped when its checkpoint was saved takes no further step.

    Args:
        cls: a trainer.
    """
    cls._run_epoch = _run_epoch  # type: ignore[method-assign]
    return cls


def _run_epoch(self: Any, *given: Any, **named: Any) -> None:
    if not self.control.should_training_stop:
        Trainer._run_epoch(self, *given, **named)

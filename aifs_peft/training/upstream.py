"""Every private name of `transformers.Trainer` that this package touches, and nothing else.

Written against transformers 5.20 to 5.x; the tests of this file fail first when upstream moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from aifs_peft.errors import CheckpointMismatchError, HeadError
from aifs_peft.training.batches import POSITION_COLUMNS

logger = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_model.safetensors"


def adapter_folder(checkpoint: Path, adapter: str) -> Path:
    """Where an adapter lies in a checkpoint: at the top, or in a folder of its name (PEFT's rule for other names).

    Raises:
        CheckpointMismatchError: if it is in neither.
    """
    for folder in (checkpoint / adapter, checkpoint):
        if (folder / ADAPTER_FILE).is_file():
            return folder
    raise CheckpointMismatchError(
        f"no {ADAPTER_FILE} in {checkpoint} or {checkpoint / adapter}; give the folder that AIFSTrainer saved "
        "(checkpoint-<step>), with the adapter under the name it was trained with"
    )


def load_adapter_strictly(model: PeftModel, checkpoint: Path, adapter: str) -> None:
    """Load an adapter's weights and state into a model that has it already; every key must be there.

    Args:
        model: with the adapter.
        checkpoint: folder.
        adapter: name.

    Raises:
        CheckpointMismatchError: naming missing and unknown keys.
    """
    folder = adapter_folder(checkpoint, adapter)
    saved = load_file(folder / ADAPTER_FILE)
    expected = set(get_peft_model_state_dict(model, adapter_name=adapter))
    missing, unknown = sorted(expected - set(saved)), sorted(set(saved) - expected)
    if missing or unknown:
        raise CheckpointMismatchError(
            f"{folder / ADAPTER_FILE} does not fit adapter {adapter!r}: missing {missing[:5]}, unknown {unknown[:5]}; "
            "resume with the configuration the checkpoint was trained with"
        )
    set_peft_model_state_dict(model, saved, adapter_name=adapter)


class UpstreamTrainer(Trainer):
    """`Trainer` with strict loading, kept columns and audible RNG restores."""

    resumed_from: Path | None = None

    def adapter_name(self) -> str:
        """Name of the adapter that is trained; given by the subclass."""
        raise NotImplementedError

    @property
    def adapted(self) -> PeftModel:
        """The model that is trained, not wrapped for distribution."""
        if not isinstance(self.model, PeftModel):
            raise HeadError(f"AIFSTrainer trains an adapter, its model is a {type(self.model).__name__} now")
        return self.model

    def extra_columns(self) -> list[str]:
        """Columns that must survive `remove_unused_columns`; given by the subclass."""
        return []

    def build_loader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler: Callable[[Any], Sampler[int]],
        is_training: bool = False,
    ) -> DataLoader[Any]:
        """A data loader as upstream builds it (columns, collator, workers, sharding), with a given sampler."""
        return self._get_dataloader(
            dataset=dataset,
            description=description,
            batch_size=batch_size,
            sampler_fn=sampler,
            is_training=is_training,
        )

    @property
    def device_batch_size(self) -> int:
        """Training examples per process and micro step."""
        return int(self._train_batch_size)

    def without_unused_columns(self, dataset: Any) -> Any:
        """Drop the columns of a `datasets.Dataset` that nobody reads, before they are decoded."""
        import datasets

        if isinstance(dataset, datasets.Dataset):
            return self._remove_unused_columns(dataset, description="training")
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns or []
        for name in (*POSITION_COLUMNS, *self.extra_columns()):
            if name not in columns:
                columns.append(name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.resumed_from = Path(resume_from_checkpoint)
        load_adapter_strictly(
            model if isinstance(model, PeftModel) else self.adapted, self.resumed_from, self.adapter_name()
        )

    def _load_best_model(self) -> None:
        # Upstream looks for an adapter at the top of the checkpoint only: another name than "default" is not found.
        best = str(self.state.best_model_checkpoint)
        logger.info("loading the best model from %s (score: %s)", best, self.state.best_metric)
        load_adapter_strictly(self.adapted, Path(best), self.adapter_name())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            name = "rng_state.pth" if self.args.world_size <= 1 else f"rng_state_{self.args.process_index}.pth"
            if not (Path(checkpoint) / name).is_file():
                logger.warning(
                    "no %s in %s (deleted, or saved with another number of processes): the resumed run draws other "
                    "random numbers than an uninterrupted one",
                    name,
                    checkpoint,
                )
        super()._load_rng_state(checkpoint)

"""Training: a `Trainer` that encodes once, intervenes on latents and selects models without group labels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aifs_peft.training.arguments import AIFSTrainingArguments
    from aifs_peft.training.epoch_hook import EpochHook
    from aifs_peft.training.latent_trainer import LatentFit, LatentSchedule, fit_on_latents
    from aifs_peft.training.retrieval import RetrievalTrainer
    from aifs_peft.training.trainer import AIFSTrainer

# Imported when first asked for: training on latents, which `AIFSClassifier` does, needs no transformers.
_LAZY = {
    "AIFSTrainer": "aifs_peft.training.trainer",
    "AIFSTrainingArguments": "aifs_peft.training.arguments",
    "EpochHook": "aifs_peft.training.epoch_hook",
    "LatentFit": "aifs_peft.training.latent_trainer",
    "LatentSchedule": "aifs_peft.training.latent_trainer",
    "RetrievalTrainer": "aifs_peft.training.retrieval",
    "fit_on_latents": "aifs_peft.training.latent_trainer",
}
__all__ = [
    "AIFSTrainer",
    "AIFSTrainingArguments",
    "EpochHook",
    "LatentFit",
    "LatentSchedule",
    "RetrievalTrainer",
    "fit_on_latents",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

"""Training: a `Trainer` that encodes once, intervenes on latents and selects models without group labels."""

from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.trainer import AIFSTrainer

__all__ = ["AIFSTrainer", "AIFSTrainingArguments"]

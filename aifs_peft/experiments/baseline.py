"""The plain counterpart of a run: what the same data, schedule and head give without the method.

`auto` trains a head plainly on latents that are there already: for a frozen encoder this is what `--method erm` gives;
for a tuned one the latents are those of the encoder before it was tuned, which is less than plain training of the whole
(`erm`) and costs next to nothing. The note says which of them it is.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from peft import get_peft_model
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from aifs_peft.experiments.build import make_trainer
from aifs_peft.experiments.toggling import LatentModel
from aifs_peft.models.latent_classifier import LatentClassifierConfig
from aifs_peft.training.adapter import head_on_latents
from aifs_peft.training.frozen import LatentDataset
from aifs_peft.tuner import AIFSConfig

if TYPE_CHECKING:
    from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
    from aifs_peft.tuner.layer import AIFSLayer

FROZEN, UNTUNED, ERM, NONE = "plain_head_on_cached_latents", "plain_head_on_untuned_latents", "erm", "none"
NOTES = {
    FROZEN: "the same head on the same frozen encoder, trained by plain cross-entropy (ERM), same schedule",
    UNTUNED: (
        "a head trained by plain cross-entropy (ERM), same schedule, on latents of the encoder before it was "
        "tuned; --baseline erm trains encoder and head plainly instead"
    ),
    ERM: "the same encoder, adapter and schedule, trained by plain cross-entropy (ERM)",
    NONE: "no plain counterpart was trained",
}
ITSELF = "this run is plain training (ERM) itself"
FOLDER = "plain"


@dataclass(frozen=True)
class Plain:
    """What plain training gave.

    Args:
        kind: which plain training, a key of `NOTES`.
        note: the same as a sentence.
        logits: on the test split, `(n, classes)`; None for "none".
        model: its head and latents, to ask it further questions; None where they are gone.
    """

    kind: str
    note: str
    logits: NDArray[Any] | None = None
    model: LatentModel | None = None


def nothing_plain(method: str) -> Plain:
    """No counterpart, and why.

    Args:
        method: of the run.
    """
    return Plain(NONE, ITSELF if method == "erm" else NOTES[NONE])


class HeadOnLatents(nn.Module):
    """A classifier whose input is latents: the base model of the plain head.

    Args:
        head: maps latents `(batch, dim)` to logits.
        num_labels: number of classes.
    """

    main_input_name = "latents"
    is_gradient_checkpointing = False
    accepts_loss_kwargs = False

    def __init__(self, head: nn.Module, num_labels: int) -> None:
        super().__init__()
        self.classifier = head
        self.config = LatentClassifierConfig(num_labels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Logits of `latents (batch, dim)`."""
        del labels
        return SequenceClassifierOutput(logits=self.classifier(latents))


def starting_head(layer: AIFSLayer) -> HeadOnLatents:
    """A copy of a run's head as it is now, for plain training; made before the run's own training begins.

    Args:
        layer: of the run.
    """
    return HeadOnLatents(copy.deepcopy(head_on_latents(layer)), layer.aifs_spec[layer.adapter].num_labels)


def train_plain_head(
    start: HeadOnLatents, latents: Mapping[str, Tensor], labels: Mapping[str, Tensor], args: AIFSTrainingArguments
) -> tuple[NDArray[np.float64], LatentModel]:
    """Train a head by plain cross-entropy with a run's schedule and selection rule.

    Args:
        start: see `starting_head`.
        latents: of the splits train, validation and test, each `(n, dim)`.
        labels: of the same splits, each `(n,)`.
        args: of the run; left as they are.

    Returns:
        Logits of the test split, `(n, classes)`, and the head with its latents.
    """
    plain = plain_arguments(args)
    sets = {name: LatentDataset(Z, labels[name], {}) for name, Z in latents.items()}
    model = get_peft_model(start, AIFSConfig(recipe="erm"))
    trainer = make_trainer(model, plain, sets["train"], sets["validation"], [])
    trainer.train()
    logits = np.asarray(trainer.predict(sets["test"]).predictions, dtype=np.float64)
    drop_checkpoints(trainer)
    return logits, LatentModel(head_on_latents(trainer.layer), lambda split: latents[split])


def plain_arguments(args: AIFSTrainingArguments) -> AIFSTrainingArguments:
    """A run's arguments for plain training in a folder of its own, without what is the method's alone.

    Args:
        args: of the run; left as they are.
    """
    plain = copy.copy(args)
    plain.output_dir = str(Path(args.output_dir or ".") / FOLDER)
    plain.method, plain.method_options, plain.discovery_options = "erm", None, None
    plain.alpha = plain.beta = plain.lambda_ = None
    plain.report_to, plain.push_to_hub, plain.resume_from_checkpoint = [], False, None
    plain.disable_tqdm = True
    return plain


def drop_checkpoints(trainer: AIFSTrainer) -> None:
    """Delete the checkpoints of plain training, which nobody keeps; called by every process.

    Args:
        trainer: with arguments of `plain_arguments`.
    """
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process and trainer.args.output_dir:
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)

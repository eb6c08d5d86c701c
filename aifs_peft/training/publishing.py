"""What a training tells others: an audit of its data, its card, what it pushes to the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aifs_peft.training.base import TrainerBase

if TYPE_CHECKING:
    from aifs_peft.audit import Audit
    from aifs_peft.training.trainer import AIFSTrainer


class PublishingTrainer(TrainerBase):
    """The part of `AIFSTrainer` that tells what was found and trained."""

    def audit(self, split: str = "train", **options: Any) -> Audit:
        """Is there a shortcut in the data, what is it, and does the trained model lean on it?

        Looked for in the latents of the encoder as it was before tuning; one or two passes over the data set.

        Args:
            split: "train", or "eval" for examples that the model was not trained on.
            **options: see `aifs_peft.audit.audit_trainer`.

        Returns:
            An `Audit`: print it, or write it with `to_html`.
        """
        from aifs_peft.audit import audit_trainer

        return audit_trainer(self, split=split, **options)

    def create_model_card(self, *given: Any, **metadata: Any) -> None:
        """Write the card into the output folder: what was found, before and after, supervision, limits, how to load.

        Args:
            *given: as for `Trainer.create_model_card`.
            **metadata: as for `Trainer.create_model_card`.
        """
        from aifs_peft.report import write_card

        write_card(cast("AIFSTrainer", self), *given, **metadata)

    def push_to_hub(self, *given: Any, **options: Any) -> Any:
        """Push adapter, processor, card and summary, and nothing else of the output folder.

        Args:
            *given: as for `Trainer.push_to_hub`.
            **options: as for `Trainer.push_to_hub`; see `aifs_peft.report.push_trainer`.
        """
        from aifs_peft.report import push_trainer

        return push_trainer(cast("AIFSTrainer", self), *given, **options)

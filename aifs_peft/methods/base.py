"""The interface of a training method: what it needs, what it does to a batch, what it learns between epochs.

The text of a method's module has its paragraphs in a fixed order: Paper, Formula, Supervision, Differs from the paper,
Cannot, Extra cost, Defaults, and Measured where something was. `docs/methods/` is made of them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.context import EpochContext, Latents, Sampling, Setup, StepContext, TrainingPlan
from aifs_peft.methods.settings import MethodSettings, NoOptions, read_options

Phase = Literal["none", "initial", "epoch", "both"]


class Method:
    """A training method. The base class is plain cross-entropy; subclasses override what differs.

    What a method learns goes into the adapter's buffers, so that checkpoints, other processes and the saved adapter
    have it. On itself it may keep only what `prepare` makes anew when a run is resumed.

    Args:
        settings: its numbers.

    Raises:
        InvalidConfigError: for options the method does not have, or out of range.

    Attributes:
        name: unique name in the registry.
        title: the method's name as papers write it.
        paper: where it comes from.
        differs: the most important difference from the paper, in a few words, or "nothing". The module's paragraph
            "Differs from the paper" begins with it.
        supervision: what it knows about spurious attributes: "none" (labels only), "hints" (environments, attribute
            vocabularies, ...), or "groups" (group labels: an oracle).
        needs: what it needs beside labels, in short phrases; empty when nothing.
        cost: what it costs beside plain training, in words.
        recipe: of `AIFSConfig`: "discovery", "paper", or "erm" for a method with neither an intervention nor a mask.
            Its numbers are the method's defaults (`MethodSettings.for_method`).
        Options: frozen dataclass of the method's own numbers.
        collects_latents: what `start` and `end_of_epoch` want: "none", "initial" (one pass of the encoder over the
            training set before the first epoch), "epoch" (latents seen in training) or "both".
        epoch_samples: how many examples' latents `end_of_epoch` is content with; None wants all.
        on_latents: whether the method is defined on precomputed latents (`AIFSClassifier(recipe=name)`).
        latent_head: the head it trains there: "linear", or "mlp" where a linear one is degenerate.
        auxiliary: a second head beside the trained one: "none", "linear" or "mlp".
        reads_tokens: whether `StepContext.tokens` is wanted.
        reads_unlabelled: whether `EpochContext.encode_unlabelled` is asked for.
        learns_first: names of the adapter's buffers that `prepare` or `start` fills before the first step, whatever it
            finds. A run that goes on from a checkpoint without them is refused.
        goes_on_from: names of the adapter's buffers that a new training starts from where they are filled, by an
            earlier training of this method or by the user. All others of an earlier training are let go of.
        redraws_held_out: whether the part of the training set that it holds out is drawn from the seed in every epoch
            and not kept. A run that goes on with another seed is refused: it would train on what was held out.
        draws: whether its `sampling` draws examples, which a streamed training set does not allow: "never", "balanced"
            (with `balance_groups` alone) or "always".
        without_draws: how it can be used on a streamed training set, as the beginning of a sentence; empty if not.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    differs: ClassVar[str] = ""
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "none"
    needs: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = "none"
    recipe: ClassVar[Literal["discovery", "paper", "erm"]] = "erm"
    Options: ClassVar[type[Any]] = NoOptions
    collects_latents: ClassVar[Phase] = "none"
    epoch_samples: ClassVar[int | None] = 2048
    on_latents: ClassVar[bool] = True
    latent_head: ClassVar[Literal["linear", "mlp"]] = "linear"
    auxiliary: ClassVar[Literal["none", "linear", "mlp"]] = "none"
    reads_tokens: ClassVar[bool] = False
    reads_unlabelled: ClassVar[bool] = False
    learns_first: ClassVar[tuple[str, ...]] = ()
    goes_on_from: ClassVar[tuple[str, ...]] = ()
    redraws_held_out: ClassVar[bool] = False
    draws: ClassVar[Literal["never", "balanced", "always"]] = "never"
    without_draws: ClassVar[str] = ""

    def __init__(self, settings: MethodSettings) -> None:
        self.settings = settings
        self.options: Any = read_options(self.Options, settings.method_options, self.name)

    @property
    def auxiliary_lr_scale(self) -> float:
        """Learning rate of the second head, as a multiple of the first one's."""
        return 1.0

    def samples_per_epoch(self, encoder_trains: bool) -> int | None:
        """How many examples' latents `end_of_epoch` is content with; None wants all.

        Args:
            encoder_trains: whether latents change between epochs.
        """
        del encoder_trains
        return self.epoch_samples

    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the training set that the method reads beside inputs and labels."""
        return ()

    def optional_columns(self) -> tuple[str, ...]:
        """Names of columns that the method reads where the training set has them, and does without where not."""
        return ()

    def validation_columns(self) -> tuple[str, ...]:
        """Names of the columns of the validation set that `finish` reads beside inputs and labels."""
        return ()

    def check(self, setup: Setup) -> None:
        """Refuse, before training, what the method cannot work with.

        Args:
            setup: what it was given.

        Raises:
            InvalidConfigError: saying what to pass instead.
        """
        if self.auxiliary != "none" and setup.auxiliary is None:
            raise InvalidConfigError(
                f"method {self.name!r} trains a second head beside the classifier; build the adapter with "
                f'AIFSConfig(auxiliary="{self.auxiliary}")'
            )
        if self.auxiliary == "none" and setup.auxiliary is not None:
            raise InvalidConfigError(
                f"method {self.name!r} has no use for a second head, which would get no gradient; build the adapter "
                'with AIFSConfig(auxiliary="none")'
            )
        if self.reads_tokens and not setup.tokens:
            raise InvalidConfigError(
                f"method {self.name!r} reads the encoder's patch or token features, which this model does not give; "
                "use a transformer of transformers whose output has hidden_states"
            )

    def idle(self, plan: TrainingPlan) -> str | None:
        """Why, under a plan, the method would be plain training; the user is warned before it begins.

        Args:
            plan: how long training is.

        Returns:
            The reason and the remedy, as the end of a sentence; None if the method will act.
        """
        del plan
        return None

    def prepare(self, context: EpochContext) -> None:
        """Called whenever training begins, resumed or not, before `start`: make what is not in the state.

        Args:
            context: the adapter's state and the processes.
        """
        del context

    def start(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Called once before the first epoch with the latents of the untrained model, if it collects "initial" ones.

        Args:
            latents: of the whole training set, in evaluation mode.
            context: the adapter's state and the processes.

        Returns:
            Numbers to log.
        """
        del latents, context
        return {}

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """How the coming epoch's examples are drawn; None for a plain permutation.

        Args:
            labels: of the training set, `(n,)` int64.
            context: state, columns, and `epoch`, the number of epochs completed.

        Returns:
            A function of seed, epoch, state and data alone, so that resumed runs and other processes repeat it.
        """
        del labels, context
        return None

    def draws_examples(self, *, encoder_trains: bool, num_labels: int) -> bool:
        """Whether `sampling` will draw some examples more often than others, or leave some out.

        Args:
            encoder_trains: whether latents change between epochs.
            num_labels: number of classes.
        """
        del encoder_trains, num_labels
        return self.draws == "always" or (self.draws == "balanced" and self.settings.balance_groups)

    def intervention(self, context: StepContext) -> Intervention | None:
        """What is done to the latents of this batch; None for nothing.

        Args:
            context: the batch.

        Returns:
            A map `z (batch, dim) -> z'` of the same shape, or None.
        """
        del context
        return None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """The terms of the loss, by name and already weighted; training minimises their sum.

        With several processes the gradients of their losses are averaged: a term that couples examples goes through
        `methods.common.whole_batch`, so that it sees the whole batch.

        Args:
            output: latents and logits of the one forward pass.
            labels: `(batch,)` int64.
            context: the batch.

        Returns:
            Scalars with their graph, among them "cross_entropy".
        """
        return {"cross_entropy": self.cross_entropy(output, labels, context)}

    def cross_entropy(self, output: LatentOutput, labels: Tensor, context: StepContext) -> Tensor:
        """The mean cross-entropy of a batch, or the user's loss in its place.

        Args:
            output: latents and logits of the one forward pass.
            labels: `(batch,)` int64.
            context: the batch.

        Returns:
            A scalar with its graph.
        """
        if context.given_loss is not None:
            return context.given_loss()
        return F.cross_entropy(output.logits.float(), labels, label_smoothing=self.settings.label_smoothing)

    def collects(self, state: AIFSState, encoder_trains: bool) -> bool:
        """Whether `end_of_epoch` will look at the latents of the coming epoch; they are not kept otherwise.

        Args:
            state: the adapter's buffers.
            encoder_trains: whether latents change between epochs.

        Returns:
            True when it collects latents of epochs; a subclass can say no when it knows better.
        """
        del state, encoder_trains
        return self.collects_latents in ("epoch", "both")

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Called after the last step of an epoch with the latents seen in it, if it collects those.

        Args:
            latents: of the examples of this epoch (see `AIFSTrainingArguments.mask_samples`).
            context: the adapter's state and the processes.

        Returns:
            Numbers to log.
        """
        del latents, context
        return {}

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Called once after training, on the model that was kept: the place of methods that refit the last layer.

        Args:
            context: with `encode` and, where there is a validation set, `encode_validation`; `context.head` is
                changed in place, under `torch.no_grad`, to the same weights on every process.

        Returns:
            Numbers to log.
        """
        del context
        return {}

"""The interface of a training method: what it does to a batch, what it costs, what it learns at an epoch's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner import AIFSState
from aifs_peft.tuner.layer import Intervention, LatentTap


@dataclass(frozen=True)
class ObjectiveSettings:
    """The numbers a method works with: the adapter's configuration, with the training arguments on top.

    Attributes:
        alpha: weight of the invariance term, at least 0.
        beta: weight of the sensitivity term, at least 0.
        lambda_: strength of the intervention, finite.
        noise: "gaussian", "l1", "l2" or "counterfactual".
        adversarial: ascend on the divergence instead of drawing the noise at random.
        mask_rule: see `aifs_peft.latent.mask_from_attribution`, as are the next three.
        mask_scale: "sum", "max" or "mean".
        gamma: sharpness of the mask.
        eps0: floor of the attribution.
        sensitivity_sign: -1 (published formula) or +1 (published text: penalise reliance).
        attribution: "ig", "lrp" or "gradient_x_input".
        attribution_steps: quadrature steps of integrated gradients.
        top_k: classes whose attributions are added up; None for all.
        ema_decay: weight of the previous scores in the running mean, in [0, 1).
        label_smoothing: in [0, 1), for the cross-entropy of training.
        directions: what happens to the discovered directions at an epoch's end when the encoder is trained:
            "refit" (from the groups found first), "rediscover" (one more pass of the encoder) or "keep".
        seed: of discovery and of every private draw.
        discovery: keyword arguments for `aifs_peft.discovery.discover`.
    """

    alpha: float = 1.0
    beta: float = 0.5
    lambda_: float = 0.5
    noise: str = "gaussian"
    adversarial: bool = False
    mask_rule: str = "inverse"
    mask_scale: str = "max"
    gamma: float = 1.0
    eps0: float = 0.1
    sensitivity_sign: int = -1
    attribution: str = "ig"
    attribution_steps: int = 32
    top_k: int | None = 1
    ema_decay: float = 0.0
    label_smoothing: float = 0.0
    directions: str = "refit"
    seed: int = 0
    discovery: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: object, **overrides: Any) -> ObjectiveSettings:
        """Read the fields that `config` (an `AIFSConfig`) has, then apply the overrides that are not None.

        Args:
            config: object with some of these fields as attributes.
            **overrides: fields of this class; None means "the configuration's".

        Returns:
            The settings.

        Raises:
            InvalidConfigError: for a negative weight.

        Example:
            >>> ObjectiveSettings.from_config(object(), alpha=0.25, beta=None).alpha
            0.25
        """
        values = {f.name: getattr(config, f.name) for f in fields(cls) if hasattr(config, f.name)}
        values |= {name: value for name, value in overrides.items() if value is not None}
        settings = cls(**values)
        for name in ("alpha", "beta"):
            if not getattr(settings, name) >= 0:
                raise InvalidConfigError(f"{name} must be at least 0, got {getattr(settings, name)}; 0 turns it off")
        if settings.directions not in ("refit", "rediscover", "keep"):
            raise InvalidConfigError(f'directions must be "refit", "rediscover" or "keep", got {settings.directions!r}')
        return settings


@dataclass(frozen=True)
class StepContext:
    """What a method may look at while one batch is trained on.

    Attributes:
        head: latents `(batch, dim)` to logits `(batch, classes)`.
        state: the adapter's buffers.
        labels: `(batch,)` int64.
        index: position of each example in the training set, `(batch,)` int64.
        generator: private source of randomness of this batch, seeded by (seed, step, micro step, rank).
        draw: `draw(width, kind)` gives noise `(batch, width)` that depends on (seed, step, example) alone: the same
            whatever the batch size, the accumulation and the number of processes.
        step: optimizer steps so far.
    """

    head: Callable[[Tensor], Tensor]
    state: AIFSState
    labels: Tensor
    index: Tensor
    generator: torch.Generator
    draw: Callable[[int, str], Tensor]
    step: int

    @property
    def groups(self) -> Tensor | None:
        """Inferred attribute values of this batch, `(batch,)` int64; None when nothing was inferred."""
        groups = self.state.groups
        return groups[self.index.to(groups.device)] if groups.numel() else None


@dataclass(frozen=True)
class Latents:
    """Detached latents of training examples, gathered over all processes, ordered by example.

    Attributes:
        z: `(m, dim)` float32, on the CPU.
        labels: `(m,)` int64.
        index: `(m,)` int64, strictly increasing positions in the training set.
        total: size of the training set.
    """

    z: Tensor
    labels: Tensor
    index: Tensor
    total: int


@dataclass(frozen=True)
class EpochContext:
    """What a method may use to update the adapter's state, called by every process at the same time.

    Attributes:
        head: latents to logits, on `device`.
        state: the adapter's buffers, to be changed with `state.update(...)`.
        num_labels: number of classes.
        encoder_trains: whether latents change between epochs.
        device: where head and state live.
        rank: of this process.
        world_size: number of processes.
        reduce_sum: sum of a tensor over all processes.
        on_main: `on_main(f)` runs `f` on one process and gives its result, or raises its error, on all of them.
        encode: one pass of the encoder over the whole training set in evaluation mode; None outside a trainer.
    """

    head: Callable[[Tensor], Tensor]
    state: AIFSState
    num_labels: int
    encoder_trains: bool
    device: torch.device
    rank: int = 0
    world_size: int = 1
    reduce_sum: Callable[[Tensor], Tensor] = lambda x: x
    on_main: Callable[[Callable[[], Any]], Any] = lambda f: f()
    encode: Callable[[], Latents] | None = None


class Objective:
    """A training method. The base class is plain cross-entropy; subclasses override what differs.

    An objective keeps no state of its own: everything it learns goes into the adapter's buffers, so that
    checkpoints, other processes and the saved adapter have it.

    Args:
        settings: its numbers.

    Attributes:
        name: unique name in the registry.
        supervision: "none" (labels only), "hints" or "groups": what it must be told about spurious attributes.
        needs: extra columns a batch must have.
        paper: where it comes from.
        latents: what `start` and `end_of_epoch` want: "none", "initial" (one pass of the encoder over the training
            set before the first epoch), "epoch" (latents seen in training) or "both".
        balanced: whether batches are balanced over inferred groups once `state.groups` is filled.
        epoch_samples: how many examples' latents `end_of_epoch` is content with; None wants all.
    """

    name: ClassVar[str] = ""
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "none"
    needs: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""
    latents: ClassVar[Literal["none", "initial", "epoch", "both"]] = "none"
    balanced: ClassVar[bool] = False
    epoch_samples: ClassVar[int | None] = 2048

    def __init__(self, settings: ObjectiveSettings) -> None:
        self.settings = settings

    def intervention(self, context: StepContext) -> Intervention | None:
        """What is done to the latents of this batch; None for nothing.

        Args:
            context: the batch.

        Returns:
            A map `z (batch, dim) -> z'` of the same shape, or None.
        """
        del context
        return None

    def loss(self, tap: LatentTap, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """The terms of the loss, by name and already weighted; training minimises their sum.

        Args:
            tap: latents and logits of the one forward pass.
            labels: `(batch,)` int64.
            context: the batch.

        Returns:
            Scalars with their graph, among them "cross_entropy".
        """
        del context
        return {
            "cross_entropy": F.cross_entropy(tap.logits.float(), labels, label_smoothing=self.settings.label_smoothing)
        }

    def collects(self, state: AIFSState, encoder_trains: bool) -> bool:
        """Whether `end_of_epoch` will look at the latents of the coming epoch; they are not kept otherwise.

        Args:
            state: the adapter's buffers.
            encoder_trains: whether latents change between epochs.

        Returns:
            True when `latents` is "epoch" or "both"; a subclass can say no when it knows better.
        """
        del state, encoder_trains
        return self.latents in ("epoch", "both")

    def start(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Called once before the first epoch with the latents of the untrained model, if `latents` asks for it.

        Args:
            latents: of the whole training set, in evaluation mode.
            context: the adapter's state and the processes.

        Returns:
            Numbers to log.
        """
        del latents, context
        return {}

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Called after the last step of an epoch with the latents seen in it, if `latents` asks for it.

        Args:
            latents: of the examples of this epoch (see `AIFSTrainingArguments.mask_samples`).
            context: the adapter's state and the processes.

        Returns:
            Numbers to log.
        """
        del latents, context
        return {}

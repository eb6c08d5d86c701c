"""The slow loop around the steps: what a method does before the first one, at epochs' ends and after the last one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.methods import EpochContext, Sampling, StepContext, TrainingPlan
from aifs_peft.training.contexts import Contexts
from aifs_peft.training.latents import LatentStore
from aifs_peft.training.sampling import EpochSampler
from aifs_peft.training.stream_parts import StreamOrder

logger = logging.getLogger(__name__)

# Buffers of the adapter that hold something of each training example, or from step to step; `prepare` fills them.
_OF_EXAMPLES = ("groups", "weights", "memory")


class ReadsTokens(Protocol):
    """What a method that reads tokens needs of an encoder; see `EncodingPasses`."""

    def resolve_tokens(self) -> None:
        """Find out how this model's tokens become its latents."""

    def with_tokens(self, context: StepContext, inputs: dict[str, Any], outputs: Any) -> StepContext:
        """A batch's context with its token features."""


class EpochRunner:
    """Runs a method's part of the training that is not a step.

    A plain object: a training loop holds it and calls, in this order, `begin_training`, then for every epoch
    `begin_epoch`, `keep` in each step and `finish_epoch` after the last one, then `finish_training`. What a method
    learns goes into the adapter's buffers, the same on every process; numbers to log are returned.

    Args:
        contexts: what the method is given.
        store: where latents are kept from step to step.
        tokens: of the encoder, where there is one.
        order_seed: of the order of examples.
        update_every: epochs between two looks at the latents of an epoch.
        streamed: whether the training set is a stream, whose examples cannot be drawn.
    """

    def __init__(
        self,
        contexts: Contexts,
        store: LatentStore,
        tokens: ReadsTokens | None = None,
        *,
        order_seed: int,
        update_every: int = 1,
        streamed: bool = False,
    ) -> None:
        self.contexts, self.method, self.store, self._tokens = contexts, contexts.method, store, tokens
        self.update_every = update_every
        self._prepared = False
        self.order: EpochSampler | StreamOrder
        if streamed:
            self.order = StreamOrder(self.method, self._sampling)
        else:
            repeats = self.method.settings.max_repeats
            self.order = EpochSampler(len(contexts.labels), self._sampling, order_seed, repeats)

    def begin_training(
        self, plan: TrainingPlan, *, epoch: float = 0, fresh: bool = True, resumed_from: Path | None = None
    ) -> dict[str, float]:
        """Before the first step, or right after a checkpoint was loaded.

        Args:
            plan: how long training is.
            epoch: epochs completed, not whole in mid-epoch.
            fresh: whether training begins at its first step.
            resumed_from: folder of the checkpoint that training goes on from.

        Returns:
            Numbers to log.

        Raises:
            InvalidConfigError: if the method cannot work with what there is.
            CheckpointMismatchError: if the checkpoint is not one of this method and training set.
        """
        reason = self.method.idle(plan)
        if reason is not None:
            logger.warning("method %r will be plain training: %s", self.method.name, reason)
        self._prepare(fresh=fresh, epoch=int(epoch))
        if fresh:
            self._let_go()
        self.store.clear()
        if not fresh:
            if resumed_from is not None and not float(epoch).is_integer() and self.collects:
                self.store.load(resumed_from, self.contexts.processes)
            return {}
        if self.method.collects_latents not in ("initial", "both"):
            return {}
        encode = self.contexts.offered.encode
        assert encode is not None  # noqa: S101 - every loop offers it
        return self._update(lambda context: self.method.start(encode(), context), int(epoch))

    def begin_epoch(self, epoch: int) -> None:
        """Before the order of an epoch is drawn.

        Args:
            epoch: epochs completed so far.
        """
        self.order.set_epoch(epoch)

    @property
    def sampler(self) -> EpochSampler:
        """Positions in the order of the coming epoch; a stream has none."""
        assert isinstance(self.order, EpochSampler)  # noqa: S101 - loaders of streams do not ask
        return self.order

    def with_tokens(self, context: StepContext, inputs: dict[str, Any], outputs: Any) -> StepContext:
        """A batch's context, with the encoder's token features for a method that reads them.

        Args:
            context: of the batch.
            inputs: of the model.
            outputs: of the model.
        """
        if not self.method.reads_tokens or self._tokens is None:
            return context
        return self._tokens.with_tokens(context, inputs, outputs)

    def keep(self, index: Tensor, z: Tensor, labels: Tensor, step: int) -> None:
        """Keep a detached copy of a batch's latents, where they will be looked at.

        Args:
            index: positions in the training set, `(batch,)` int64.
            z: latents `(batch, dim)`.
            labels: `(batch,)` int64.
            step: optimizer steps so far.

        Raises:
            InvalidConfigError: if the encoder is to be trained and these latents have no gradient.
        """
        if self.contexts.encoder_trains and not z.requires_grad:
            raise InvalidConfigError(
                "the encoder has parameters to train, and no gradient reaches them: the latents of this batch do not "
                "depend on them. A torch.no_grad() around the encoder does that, torch.utils.checkpoint with "
                "use_reentrant=True (use_reentrant=False does not), or an adapter on layers that do not lead to the "
                "head"
            )
        if self.collects:
            self.store.add(index, z, labels, step)

    @property
    def collects(self) -> bool:
        """Whether the latents of this epoch will be looked at."""
        return self.method.collects(self.contexts.state, self.contexts.encoder_trains)

    def finish_epoch(self, epoch: int) -> dict[str, float]:
        """On an epoch's last step, before it is logged, evaluated and saved.

        Args:
            epoch: epochs completed now.

        Returns:
            Numbers to log.
        """
        numbers: dict[str, float] = {}
        if self.method.collects_latents in ("epoch", "both") and epoch % self.update_every == 0:
            latents = self.store.gather(self.contexts.processes, self.contexts.state.dim)
            numbers = self._update(lambda context: self.method.end_of_epoch(latents, context), epoch)
        self.store.clear()
        return numbers

    def finish_training(self, epoch: int) -> dict[str, float]:
        """After the last epoch, on the model that was kept.

        Args:
            epoch: epochs completed.

        Returns:
            Numbers to log.
        """
        return self._update(self.method.finish, epoch)

    def _prepare(self, *, fresh: bool, epoch: int) -> None:
        """Refuse what the method cannot work with, and let it make what is not in the state."""
        self.method.check(self.contexts.setup())
        if fresh:
            self._forget()
        else:
            self._require_state()
        if self.method.reads_tokens and self._tokens is not None:
            self._tokens.resolve_tokens()
        self.method.prepare(self.contexts.epoch(epoch, fresh=fresh))
        self._prepared = True

    def _forget(self) -> None:
        """Let go of what an earlier training, by whatever method, kept of its examples and from step to step."""
        empty = self.contexts.state.mask.new_zeros(0)
        self.contexts.state.update(count=False, **dict.fromkeys(_OF_EXAMPLES, empty))

    def _let_go(self) -> None:
        """Let go of what an earlier training, by whatever method, found in the latents, but for what this one reads.

        The saved adapter and its card would otherwise claim it for this training. Not done where a loader is only
        looked at: the model may be evaluated before it is trained.
        """
        self.contexts.state.reset(keep={*_OF_EXAMPLES, *self.method.goes_on_from})

    def _require_state(self) -> None:
        """Refuse a checkpoint that does not hold what this method has learnt by then, or of other data."""
        state, size = self.contexts.state, len(self.contexts.labels)
        absent = [name for name in self.method.learns_first if not _is_filled(getattr(state, name))]
        if absent:
            raise CheckpointMismatchError(
                f"method {self.method.name!r} goes on from what it learnt before its first step ({', '.join(absent)}), "
                "and the checkpoint does not hold it, so it was not written by this method; resume with the method "
                "the run was started with"
            )
        for held in (state.groups, state.weights):
            if held.numel() and len(held) != size:
                raise CheckpointMismatchError(
                    f"the checkpoint holds what was inferred of {len(held)} examples, the training set has {size}; "
                    "resume with the training set the run was started with"
                )

    def _sampling(self, epoch: int) -> Sampling | None:
        # A loader may be looked at before training; its order is then that of a training that begins.
        if not self._prepared:
            self._prepare(fresh=True, epoch=0)
        return self.method.sampling(self.contexts.labels, self.contexts.epoch(epoch))

    def _update(self, change: Callable[[EpochContext], dict[str, float]], epoch: int) -> dict[str, float]:
        """Let the method change the adapter's state, and give the result to every process."""
        numbers = change(self.contexts.epoch(epoch))
        self.contexts.processes.share_state(self.contexts.state)
        return numbers


def _is_filled(buffer: Tensor) -> bool:
    """Whether a buffer holds something; a counter does when it is above zero."""
    return bool(buffer > 0) if buffer.ndim == 0 else buffer.numel() > 0

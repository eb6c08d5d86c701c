"""The module that stands where the classification head stood: pools the latent, intervenes, classifies."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError
from aifs_peft.latent.blocks import ScaledBlocks
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.latent.pooling import PooledHead, pool_latent
from aifs_peft.tuner._peft import check_adapters_to_merge
from aifs_peft.tuner.adapter_parts import AdapterParts
from aifs_peft.tuner.block_reader import NOT_RUN
from aifs_peft.tuner.last_token import LastToken
from aifs_peft.tuner.rows import by_row

if TYPE_CHECKING:
    from aifs_peft.tuner.config import AIFSConfig


class AIFSLayer(AdapterParts):
    """A classification head under AIFS: the base head, and one trained head and state per adapter.

    Args:
        base_layer: the head of the base model.
        adapter_name: name of the first adapter.
        config: its configuration, with `num_labels` already resolved.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: AIFSConfig) -> None:
        super().__init__(base_layer)
        self._last: LastToken | None = None
        self._per_token = False  # whether the base model pools after its head
        self._output: LatentOutput | None = None
        self._intervention: Intervention | None = None
        self._keeps_graph = False
        self.set_adapter(adapter_name)
        self.update_layer(adapter_name, config)

    @property
    def block_names(self) -> list[str]:
        """Full names of the blocks that are read."""
        return [] if self._reader is None else list(self._reader.names)

    def read_blocks(self, model: nn.Module) -> None:
        """Listen to the blocks that an adapter reads, or no more where none does.

        Args:
            model: the base model with its adapters.
        """
        if self._reader is not None and len(self.aifs_blocks):
            self._reader.attach(model)
        else:
            self._stop_reading_blocks()

    def pick_last_token(self, decoder: nn.Module) -> None:
        """Take the last token that is no padding for the latent, as a decoder does after its head.

        Args:
            decoder: the base model.
        """
        self._last, self._per_token = LastToken(decoder), True

    def stop_reading(self) -> None:
        """Listen to no block and no tokens any more, before the adapters are taken off."""
        if self._last is not None:
            self._last.detach()
            self._last = None
        self._stop_reading_blocks()

    def _stop_reading_blocks(self) -> None:
        if self._reader is not None:
            self._reader.detach()
            self._reader = None

    @property
    def armed(self) -> bool:
        """Whether an intervention will be applied to the next forward passes in training mode."""
        return self._intervention is not None

    @property
    def has_output(self) -> bool:
        """Whether `take_output` has something to give."""
        return self._output is not None

    def arm(self, intervention: Intervention | None) -> None:
        """Intervene on the latents of the next forward passes in training mode, until disarmed.

        Args:
            intervention: maps `z (batch, dim)` to `z'` of the same shape; None disarms.
        """
        self._intervention, self._keeps_graph = intervention, intervention is not None

    @contextmanager
    def intervening(self, intervention: Intervention | None) -> Iterator[None]:
        """For a block: intervene on latents in training mode, and leave latent outputs with their graph.

        Args:
            intervention: maps `z (batch, dim)` to `z'` of the same shape; None leaves the latents alone.

        Example:
            >>> from peft import get_peft_model
            >>> from aifs_peft.models import LatentClassifier, TabularEncoder
            >>> from aifs_peft.tuner import AIFSConfig, find_aifs_layer
            >>> model = get_peft_model(LatentClassifier(TabularEncoder(4, 8), num_labels=2), AIFSConfig()).train()
            >>> layer = find_aifs_layer(model)
            >>> with layer.intervening(lambda z: z + 1):
            ...     _ = model(torch.zeros(3, 4))
            >>> output = layer.take_output()
            >>> torch.equal(output.intervened, output.z + 1), output.logits.requires_grad
            (True, True)
        """
        self._intervention, self._keeps_graph = intervention, True
        try:
            yield
        finally:
            self._intervention, self._keeps_graph = None, False

    def take_output(self) -> LatentOutput:
        """Latents and logits of the last forward pass; each can be taken once, which frees its graph.

        They have a graph where the layer was armed or `intervening`. After any other forward pass they are detached: an
        output that nobody takes must not keep a batch's graph alive.

        Raises:
            HeadError: if no forward pass has run since the last call.
        """
        output, self._output = self._output, None
        if output is None:
            raise HeadError(
                "no latent to take: each forward pass leaves one, and it can be taken once. Run the model first; "
                "with the adapter disabled or merged nothing is kept."
            )
        return output

    def pool(self, x: Tensor, adapter: str | None = None) -> Tensor:
        """The latent `z (batch, dim)`, at least float32, in what the base model feeds its head.

        Args:
            x: see `pool_latent`.
            adapter: whose pooling; None takes the active adapter's.

        Raises:
            HeadError: if a linear head is fed one vector per token and `pool` is `"auto"`.
        """
        spec = self.aifs_spec[adapter or self.adapter]
        base = self._stash[0] if self._stash else self.base_layer
        if x.dim() == 3 and self._last is not None:
            x = self._last.pick(x)
        if x.dim() == 3 and spec.pool == "auto" and isinstance(base, nn.Linear):
            raise HeadError(
                f"this head sees {x.shape[1]} vectors per example and no pooled latent (a token classifier, or a "
                "decoder that pools after its head). Use a model that pools first, LatentClassifier, or say how to "
                'pool: AIFSConfig(pool="cls", "mean" or "last").'
            )
        z = pool_latent(x, spec.pool)
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        blocks = self.blocks_of(adapter or self.adapter)
        return z if blocks is None else self._joined(blocks, z)

    def _joined(self, blocks: ScaledBlocks, z: Tensor) -> Tensor:
        """The blocks' latents and the last one, `z`; as it is where the joined latents were given themselves."""
        read = self._reader.pooled if self._reader is not None else {}
        names = self._reader.names if self._reader is not None else []
        if not read and z.shape[1] == blocks.dim:
            return z
        if any(name not in read or len(read[name]) != len(z) for name in names):
            raise HeadError(NOT_RUN.format(names=", ".join(names), dim=blocks.dim))
        joined: Tensor = blocks([*(read[name].to(z.device) for name in names), z])
        return joined

    def classify(self, z: Tensor, adapter: str | None = None) -> Tensor:
        """Logits `(batch, classes)`, at least float32, of latents `z (batch, dim)` by one head.

        Args:
            z: latents.
            adapter: whose head; None takes the active adapter's.
        """
        name = adapter or self.adapter
        head, spec = self.aifs_head[name], self.aifs_spec[name]
        z = z.to(next(head.parameters()).dtype)
        logits: Tensor = head(z.unsqueeze(1) if spec.sequence else z)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Logits `(batch, classes)` of the clean latents; leaves a `LatentOutput`.

        The head runs once, on `[z; z']` when an intervention is armed, so DDP sees one forward pass.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged or not self.active_adapters:
            self._forget_blocks()
            return self._base_logits(x, *args, **kwargs)
        if self._last is not None and x.dim() == 3:
            # One row of logits per token, all alike: the base model takes one of them.
            logits = self._pooled_logits(self._last.pick(x), *args, **kwargs)
            return logits.unsqueeze(1).expand(-1, x.shape[1], -1)
        return self._pooled_logits(x, *args, **kwargs)

    def _pooled_logits(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Logits of clean latents, one row per example."""
        if self.rows is not None:
            self._output = None  # latents of several adapters are no one's latent output
            return by_row(self.rows, x, lambda name, part: self._logits_of(name, part, *args, **kwargs))
        z = self.pool(x)
        self._forget_blocks()
        if not (self.training and self._intervention is not None):
            logits = self.classify(z)
            # Copied, not only detached: latents are often a view of all hidden states, which it would keep alive.
            kept = (z, logits) if self._keeps_graph else (z.detach().clone(), logits.detach())
            self._output = LatentOutput(*kept)
            return logits
        clean: Tensor = self._intervened_logits(z, self._intervention)
        return clean

    # Left as it is by `torch.compile`, which compiles the encoder before it in one piece: an intervention looks at the
    # values of its tensors and may draw, which would break a compiled graph in a dozen places for so little work.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _intervened_logits(self, z: Tensor, intervention: Intervention) -> Tensor:
        """Logits of the clean latents, after one pass of the head over clean and intervened ones."""
        intervened = intervention(z)
        if intervened.shape != z.shape:
            raise HeadError(f"the intervention must keep the shape {tuple(z.shape)}, got {tuple(intervened.shape)}.")
        logits, intervened_logits = self.classify(torch.cat([z, intervened])).chunk(2)
        self._output = LatentOutput(z, logits, intervened, intervened_logits)
        return logits

    def _forget_blocks(self) -> None:
        if self._reader is not None:
            self._reader.clear()

    def _base_logits(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits: Tensor = self.base_layer(x, *args, **kwargs)
        return logits

    def _logits_of(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Logits by one adapter's head, or by the base head."""
        if name not in self.aifs_head:
            return self._base_logits(x, *args, **kwargs)
        return self.classify(self.pool(x, name), name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the trained head in the base head's place, in the base model's precision.

        Args:
            safe_merge: refuse a head with weights that are not finite.
            adapter_names: the adapter to merge; None takes the active one.

        Raises:
            HeadError: for several adapters, or with `safe_merge` for a head that is not finite.
        """
        names = check_adapters_to_merge(self, adapter_names)
        names = [name for name in names if name in self.aifs_head]
        if not names:
            return
        if len(names) > 1 or self.merged:
            raise HeadError(f"heads cannot be added up: merge one adapter, got {[*self.merged_adapters, *names]}.")
        head, spec = copy.deepcopy(self.aifs_head[names[0]]), self.aifs_spec[names[0]]
        if safe_merge and not all(bool(p.isfinite().all()) for p in head.parameters()):
            raise HeadError(f"the head of adapter {names[0]!r} has weights that are not finite; it was not merged.")
        weight = next(self.base_layer.parameters())
        dtype = weight.dtype if weight.is_floating_point() else getattr(self.base_layer, "compute_dtype", None)
        # A head that takes what the base model feeds it goes in as it is, so that the merged model keeps its class.
        takes_it = spec.copied or isinstance(self.base_layer, nn.Linear)
        as_is = spec.sequence or self._per_token or (spec.pool == "auto" and takes_it)
        if not as_is:
            head = PooledHead(head, spec.pool)
        self._stash = [self.base_layer]
        self.base_layer = head.to(weight.device, dtype).requires_grad_(requires_grad=False)
        self.base_layer.train(self.training)
        self.merged_adapters.append(names[0])

    def unmerge(self) -> None:
        """Put the base head back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        device = next(self.base_layer.parameters()).device
        self.base_layer = self._stash.pop().to(device)
        self.merged_adapters.clear()

    def __getstate__(self) -> dict[str, Any]:
        # A pending output is no leaf, which deepcopy refuses; an armed intervention belongs to one training loop.
        return {**self.__dict__, "_output": None, "_intervention": None, "_keeps_graph": False, "_unread": {}}

    def __repr__(self) -> str:
        return "aifs." + super().__repr__()


def find_aifs_layer(model: nn.Module) -> AIFSLayer:
    """The one AIFS layer in a model (wrapped by PEFT, DDP or not).

    Raises:
        HeadError: if there is none.

    Example:
        >>> find_aifs_layer(nn.Linear(2, 2))
        Traceback (most recent call last):
        aifs_peft.errors.HeadError: no AIFS layer in this Linear; wrap it: get_peft_model(model, AIFSConfig()).
    """
    for module in model.modules():
        if isinstance(module, AIFSLayer):
            return module
    raise HeadError(f"no AIFS layer in this {type(model).__name__}; wrap it: get_peft_model(model, AIFSConfig()).")

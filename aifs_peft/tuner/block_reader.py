"""Reads what blocks inside an encoder give, each time it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aifs_peft.errors import HeadError
from aifs_peft.latent.pooling import mean_of_positions
from aifs_peft.tuner.calls import argument

NO_TENSOR = "block {name!r} gives {what}, not one or more vectors per example, batch first"
NOT_RUN = (
    'AIFSConfig(latents="multi") reads the blocks {names}, and they have not run in this forward pass; give the model '
    "its own inputs, or the joined latents of width {dim}."
)


class BlockReader:
    """Keeps the pooled output of each of some blocks, from one run of the encoder to the next.

    Args:
        names: full names of the blocks, in order.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.pooled: dict[str, Tensor] = {}
        self.mask: Tensor | None = None
        self._depth, self._open = math.inf, False
        self._handles: list[RemovableHandle] = []

    def attach(self, model: nn.Module) -> None:
        """Listen to the blocks of a model, to whatever wraps them now, and to the modules around them.

        Args:
            model: that holds the blocks.
        """
        self.detach()
        for depth, path in enumerate(around(self.names)):
            hook = _Begin(self, depth)
            self._handles.append(model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))
        for name in self.names:
            self._handles.append(model.get_submodule(name).register_forward_hook(_Note(self, name)))

    def detach(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Forget what was read; blocks that are computed again for their gradients leave nothing."""
        self.pooled, self.mask, self._depth, self._open = {}, None, math.inf, False

    def begin(self, depth: int, mask: Tensor | None) -> None:
        """A module around the blocks starts.

        Args:
            depth: how many others are around it.
            mask: attention mask `(batch, tokens)` that it was handed.
        """
        if depth <= self._depth:  # not inside the module that began last: another run of the encoder
            self.clear()
        self._depth, self._open = depth, True
        self.mask = mask if mask is not None else self.mask

    def note(self, name: str, output: Any) -> None:
        """A block has run.

        Args:
            name: of the block.
            output: of the block.
        """
        hidden = tensor_in(output)
        if hidden is None:
            raise HeadError(NO_TENSOR.format(name=name, what=type(output).__name__))
        pooled = mean_of_positions(hidden, self.mask)
        if self._open:
            self.pooled[name] = pooled

    def __getstate__(self) -> dict[str, Any]:
        # What was read is no leaf, which deepcopy refuses.
        return {**self.__dict__, "pooled": {}, "mask": None, "_depth": math.inf, "_open": False}


class _Begin:
    """Forward pre-hook of a module around the blocks; a class, so that it is copied with the model."""

    def __init__(self, reader: BlockReader, depth: int) -> None:
        self.reader, self.depth = reader, depth

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.reader.begin(self.depth, mask_in(module, args, kwargs))


class _Note:
    """Forward hook of a block."""

    def __init__(self, reader: BlockReader, name: str) -> None:
        self.reader, self.name = reader, name

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self.reader.note(self.name, output)


def around(names: list[str]) -> list[str]:
    """Full names of the modules around all of the blocks, the outermost first; the model itself is never called."""
    parts = [name.split(".")[:-1] for name in names]
    common = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    return [".".join(common[:i]) for i in range(1, len(common) + 1)]


def tensor_in(output: Any) -> Tensor | None:
    """The hidden states in what a block returns."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    first = output[0] if isinstance(output, tuple | list) and output else None
    return first if isinstance(first, Tensor) else None


def mask_in(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The attention mask `(batch, tokens)` among a module's arguments."""
    mask = argument(module, args, kwargs, "attention_mask")
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None

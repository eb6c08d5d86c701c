"""Reads what blocks inside an encoder give, for `AIFSConfig(latents="multi")`.

An attribute that hardly shows in the last latent (a mark in a corner, a stamp) is often plain in the middle of the
encoder, which had no reason yet to drop it. So the outputs of the blocks at a quarter, half and three quarters of the
depth are averaged over their positions (padding left out) and stand beside the last latent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aifs_peft.errors import HeadError
from aifs_peft.latent.pooling import mean_of_positions
from aifs_peft.tuner._peft import without_adapters
from aifs_peft.tuner.calls import argument
from aifs_peft.tuner.trial import Trial, trial_of

DEPTHS = (0.25, 0.5, 0.75)
LAST, MULTI = "last", "multi"
_CANNOT = 'latents="multi" does not know the blocks of this {model}: {why}. Leave latents at "last".'
_NO_TRIAL = (
    "it takes other inputs than pixel_values or input_ids, or its weights are quantised, sharded or not loaded, so "
    "that no trial shows what its blocks give"
)
_NO_LIST = "no list of at least two blocks (nn.ModuleList or nn.Sequential) runs once per example"
_TIE = "it has several lists of blocks of the same length ({names}), as an encoder with a decoder has"
_NO_TENSOR = "block {name!r} gives {what}, not one or more vectors per example, batch first"
_NO_MASK = "no module around its blocks is handed the attention mask, so that padding would be averaged in"
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
        for depth, path in enumerate(_around(self.names)):
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
        hidden = _tensor_in(output)
        if hidden is None:
            raise HeadError(_NO_TENSOR.format(name=name, what=type(output).__name__))
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
        self.reader.begin(self.depth, _mask_in(module, args, kwargs))


class _Note:
    """Forward hook of a block."""

    def __init__(self, reader: BlockReader, name: str) -> None:
        self.reader, self.name = reader, name

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self.reader.note(self.name, output)


def find_blocks(model: nn.Module) -> list[tuple[str, int]]:
    """Full names and widths of the blocks that are read, found by a trial run.

    Args:
        model: the base model, which may hold adapters already.

    Returns:
        At most three, in order: those at a quarter, half and three quarters of the depth.

    Raises:
        HeadError: if no trial works, or the model has no such blocks; nothing is changed.
    """

    def refused(why: str) -> HeadError:
        return HeadError(_CANNOT.format(model=type(model).__name__, why=why))

    lists = dict(_lists(model))
    calls = trial_of(model, [f"{name}.{i}" for name, count in lists.items() for i in range(count)])
    if calls is None:
        raise refused(_NO_TRIAL)
    ran = {n: k for n, k in lists.items() if all(len(calls.outputs[f"{n}.{i}"]) == 1 for i in range(k))}
    # Blocks inside blocks are parts of these.
    outer = {name: k for name, k in ran.items() if not any(name.startswith(f"{other}.") for other in ran)}
    longest = [name for name, k in outer.items() if k == max(outer.values())]
    if not longest:
        raise refused(_NO_LIST)
    if len(longest) > 1:
        raise refused(_TIE.format(names=", ".join(longest)))
    names = [f"{longest[0]}.{i}" for i in at_depths(outer[longest[0]])]
    return [(name, _width(name, calls, refused)) for name in names]


def at_depths(count: int) -> list[int]:
    """Which of `count` blocks are read.

    Example:
        >>> at_depths(12), at_depths(4), at_depths(2)
        ([2, 5, 8], [0, 1, 2], [0, 1])
    """
    return sorted({max(0, math.ceil(count * depth) - 1) for depth in DEPTHS})


def check_blocks(model: nn.Module, names: list[str]) -> None:
    """Refuse a saved adapter whose blocks another model does not have.

    Raises:
        HeadError: naming them.
    """
    here = {name for name, _ in without_adapters(model)}
    missing = [name for name in names if name not in here]
    if missing:
        raise HeadError(
            f"this adapter reads the blocks {missing}, which this {type(model).__name__} does not have; load it onto "
            "the base model it was trained with."
        )


def _width(name: str, calls: Trial, refused: Any) -> int:
    """Of what one block gave in the trial, pooled."""
    output = calls.outputs[name][0]
    hidden = _tensor_in(output)
    if hidden is None or hidden.dim() not in (2, 3, 4) or len(hidden) != calls.rows:
        what = type(output).__name__ if hidden is None else f"the shape {tuple(hidden.shape)} for {calls.rows} examples"
        raise refused(_NO_TENSOR.format(name=name, what=what))
    if calls.has_mask and not any(_mask_in(*call) is not None for path in _around([name]) for call in calls.at(path)):
        raise refused(_NO_MASK)
    return int(mean_of_positions(hidden, None).shape[1])


def _lists(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Lists of blocks: full names and lengths."""
    for name, module in without_adapters(model):
        if name and isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
            yield name, len(module)


def _around(names: list[str]) -> list[str]:
    """Full names of the modules around all of the blocks, the outermost first; the model itself is never called."""
    parts = [name.split(".")[:-1] for name in names]
    common = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    return [".".join(common[:i]) for i in range(1, len(common) + 1)]


def _tensor_in(output: Any) -> Tensor | None:
    """The hidden states in what a block returns."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    first = output[0] if isinstance(output, tuple | list) and output else None
    return first if isinstance(first, Tensor) else None


def _mask_in(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The attention mask `(batch, tokens)` among a module's arguments."""
    mask = argument(module, args, kwargs, "attention_mask")
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None

"""Which blocks of an encoder `AIFSConfig(latents="multi")` reads, found by a trial run.

An attribute that hardly shows in the last latent (a mark in a corner, a stamp) is often plain in the middle of the
encoder, which had no reason yet to drop it. So the outputs of the blocks at a quarter, half and three quarters of the
depth are averaged over their positions (padding left out) and stand beside the last latent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from aifs_peft.errors import HeadError
from aifs_peft.latent.pooling import mean_of_positions
from aifs_peft.tuner._peft import without_adapters
from aifs_peft.tuner.block_reader import NO_TENSOR, around, mask_in, tensor_in
from aifs_peft.tuner.trial import Trial, trial_of
from aifs_peft.tuner.whole_layers import is_inside

DEPTHS = (0.25, 0.5, 0.75)
LAST, MULTI = "last", "multi"
_CANNOT = 'latents="multi" does not know the blocks of this {model}: {why}. Leave latents at "last".'
_NO_TRIAL = (
    "it takes other inputs than pixel_values or input_ids, or its weights are sharded or not loaded, so that no trial "
    "shows what its blocks give"
)
_NO_LIST = "no list of at least two blocks (nn.ModuleList or nn.Sequential) runs once per example"
_TIE = "it has several lists of blocks of the same length ({names}), as an encoder with a decoder has"
_NO_MASK = "no module around its blocks is handed the attention mask, so that padding would be averaged in"


def find_blocks(model: nn.Module, head: str = "", inputs: dict[str, Any] | None = None) -> list[tuple[str, int]]:
    """Full names and widths of the blocks that are read, found by a trial run.

    Args:
        model: the base model, which may hold adapters already.
        head: full name of its head, whose layers are no blocks of the encoder.
        inputs: of the model, some examples to try; None makes one up.

    Returns:
        At most three, in order: those at a quarter, half and three quarters of the depth.

    Raises:
        HeadError: if no trial works, or the model has no such blocks; nothing is changed.
    """

    def refused(why: str) -> HeadError:
        return HeadError(_CANNOT.format(model=type(model).__name__, why=why))

    lists = {name: count for name, count in _lists(model) if not (head and is_inside(name, [head]))}
    calls = trial_of(model, [f"{name}.{i}" for name, count in lists.items() for i in range(count)], inputs)
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
    hidden = tensor_in(output)
    if hidden is None or hidden.dim() not in (2, 3, 4) or len(hidden) != calls.rows:
        what = type(output).__name__ if hidden is None else f"the shape {tuple(hidden.shape)} for {calls.rows} examples"
        raise refused(NO_TENSOR.format(name=name, what=what))
    if calls.has_mask and not any(mask_in(*call) is not None for path in around([name]) for call in calls.at(path)):
        raise refused(_NO_MASK)
    return int(mean_of_positions(hidden, None).shape[1])


def _lists(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Lists of blocks: full names and lengths."""
    for name, module in without_adapters(model):
        if not name or not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        # Steps with names of their own (open_clip's `c_fc`, `gelu`, `c_proj`) are no list of like blocks, and a pool
        # and a flattening hold no weights.
        numbered = [child for child, _ in module.named_children()] == [str(i) for i in range(len(module))]
        if len(module) > 1 and numbered and next(module.parameters(), None) is not None:
            yield name, len(module)

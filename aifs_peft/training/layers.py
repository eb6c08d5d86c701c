"""One pass of the encoder that reads several of its layers, for a search that the last latent has no answer to."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from aifs_peft.errors import HeadError
from aifs_peft.latent.blocks import ScaledBlocks
from aifs_peft.methods import Latents
from aifs_peft.training.encoding import EncodingPasses
from aifs_peft.training.latents import LatentStore
from aifs_peft.training.sharded import is_sharded
from aifs_peft.tuner.block_reader import BlockReader
from aifs_peft.tuner.blocks import find_blocks

logger = logging.getLogger(__name__)


def encode_layers(passes: EncodingPasses) -> Latents | None:
    """Latents of the training set with blocks inside the encoder beside them, by the model as it is.

    The same blocks as of `AIFSConfig(latents="multi")`, found on two training examples and listened to for this pass
    alone.

    Args:
        passes: over the training set.

    Returns:
        The joined latents, each layer centred and scaled to the same total variance; None where it is not known which
        blocks to read, which is logged with its reason.

    Raises:
        NonFiniteError: if a latent is NaN or infinite.
    """
    blocks = _blocks_of(passes)
    if not blocks:
        return None
    labels, reader = passes.train.labels, BlockReader([name for name, _ in blocks])
    store, scaled = (
        LatentStore(len(labels), None, passes.seed),
        ScaledBlocks([*(w for _, w in blocks), passes.layer.state.dim]),
    )

    def keep(rows: Tensor, _inputs: dict[str, Any], _outputs: Any) -> None:
        z = passes.layer.take_output().z
        parts = [*(reader.pooled[name].to(z.device) for name in reader.names), z]
        store.add(rows, scaled(parts), labels[rows], step=0)  # joined as they are, so far

    reader.attach(passes.model.get_base_model())
    try:
        passes.pass_over(passes.train.dataset, range(len(labels)), keep)
    finally:
        reader.detach()
    latents = store.gather(passes.processes, scaled.dim)
    scaled.fit(latents.z)
    return Latents(scaled(torch.split(latents.z, scaled.widths, 1)), latents.labels, latents.index, latents.total)


def _blocks_of(passes: EncodingPasses) -> list[tuple[str, int]]:
    """Full names and widths of the blocks to read; none where that is not known."""
    if is_sharded(passes.model):
        logger.info("the blocks of an encoder that is split over processes are not searched")
        return []
    base, seen = passes.model.get_base_model(), list[dict[str, Any]]()
    passes.look_at_two(lambda _rows, inputs, _outputs: seen.append(inputs))
    head = next(name for name, module in base.named_modules() if module is passes.layer)
    try:
        return find_blocks(base, head, seen[0])
    except HeadError as error:
        logger.info("the blocks of the encoder are not searched: %s", error)
        return []
    finally:
        passes.layer.take_output()

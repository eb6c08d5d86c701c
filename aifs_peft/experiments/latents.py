"""Latents of whole data sets: made once, kept, and fed to the adapter in place of the encoder's inputs.

A frozen encoder in evaluation mode gives the same latents in every epoch. A run with such an encoder therefore encodes
each split once and trains the very same adapter on what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.experiments.latent_cache import LatentCache
from aifs_peft.experiments.prepare import PreparedDataset, make_encoder, modality_of
from aifs_peft.experiments.streamed import CACHED, Prepared, PreparedStream
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.pooling import pool_latent
from aifs_peft.training.parallel import gather_rows
from aifs_peft.tuner import AIFSConfig
from aifs_peft.tuner.last_token import LastToken, picks_last_token
from aifs_peft.tuner.layer import AIFSLayer
from aifs_peft.tuner.targets import find_head

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

BATCH = 64
INPUTS = ("image", "text", "features")
NOT_FINITE = (
    "latents of {count} of {total} examples are NaN or infinite (first: row {first}); check its input and the "
    "encoder's weights."
)
NO_PROCESSOR = (
    "encode needs the image processor or tokenizer that belongs to the model, because the data hold {modality} input: "
    "encode(model, data, processor=AutoImageProcessor.from_pretrained(...)); or give the model by its name."
)


def encode(
    model: nn.Module | str,
    data: Any,
    *,
    processor: Any = None,
    revision: str | None = None,
    batch_size: int = BATCH,
    max_length: int = 128,
    cache_dir: str | Path | None = None,
) -> Any:
    """Latents of a data set, for use with `discover`, `audit`, `AIFSClassifier`, or a later run on latents.

    The latent is what the model feeds its classification head, in evaluation mode; the model is left as it was.

    Args:
        model: a classifier with a head, with or without an AIFS adapter; or the name of one (a Hub name, a folder,
            `"tiny_clip"`), whose processor is then found, too.
        data: a `datasets.Dataset` or `DatasetDict` with a column `image`, `text` or `features`.
        processor: image processor or tokenizer of the model; not needed for features, or with a model's name.
        revision: branch, tag or commit on the Hub of a model given by name.
        batch_size: examples per forward pass.
        max_length: tokens per text.
        cache_dir: folder that keeps the latents, so that a later call with the same weights and data reads them.

    Returns:
        The same rows with a column `features`, the latents `(n, dim)` float32, in place of the input; every other
        column stays. Write them with `.to_parquet(...)` (or `.save_to_disk(...)`) for reuse.

    Raises:
        InvalidInputError: a data set without such a column, or a processor that is missing.
        HeadError: a model without a classification head.
        NonFiniteError: latents that are not finite.

    Example:
        >>> from aifs_peft.data import load
        >>> scenes = load("spurious_scenes", n_train=20, n_validation=10, n_test=10, image_size=16)
        >>> latents = encode("tiny_clip", scenes)
        >>> "image" in latents["train"].column_names, len(latents["train"]["features"][0])
        (False, 160)
    """
    from datasets import DatasetDict

    splits = data if isinstance(data, Mapping) else {"data": data}
    first = next(iter(splits.values()))
    modality = modality_of(first)
    if isinstance(model, str):
        from aifs_peft.models.loading import load_model, load_processor

        processor = processor or load_processor(model, modality=modality, revision=revision)
        with _unsaid():
            model = load_model(model, modality=modality, label_names=["0", "1"], revision=revision)
    if processor is None and modality != "features":
        raise InvalidInputError(NO_PROCESSOR.format(modality=modality))
    convert = make_encoder(processor, modality, max_length=max_length, model=model)
    encoded = {}
    for name, rows in splits.items():
        prepared = PreparedDataset(rows.select_columns([modality]), convert, cache_bytes=0, column=modality)
        Z = latents_of(model, prepared, batch_size=batch_size, cache_dir=cache_dir)
        encoded[name] = _with_latents(rows, Z)
    return DatasetDict(encoded) if isinstance(data, Mapping) else encoded["data"]


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without transformers' table of weights that are made anew: of the head only the input is read here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _with_latents(rows: Dataset, Z: Tensor) -> Dataset:
    from datasets import Dataset

    kept = [name for name in rows.column_names if name not in INPUTS]
    if not kept:
        return Dataset.from_dict({"features": list(Z.numpy())})
    return rows.select_columns(kept).add_column("features", list(Z.numpy()))  # type: ignore[call-arg, unused-ignore]


def latents_of(
    model: nn.Module,
    data: Prepared,
    *,
    batch_size: int = BATCH,
    accelerator: Accelerator | None = None,
    cache_dir: str | Path | None = None,
) -> Tensor:
    """Latents of a data set in evaluation mode; the model's modes are put back, generators are not touched.

    Args:
        model: a classifier with a head, or with an AIFS adapter.
        data: as the model takes it.
        batch_size: examples per forward pass.
        accelerator: of a run with several processes, among which the work is divided.
        cache_dir: folder that keeps the latents for later calls, see `LatentCache`; None keeps none.

    Returns:
        `(n, dim)` float32 on the CPU, the same on every process.

    Raises:
        HeadError: if the model has no head, or its forward pass does not use it.
        NonFiniteError: if a latent is NaN or infinite.
        InvalidInputError: the folder of the cache cannot be written.
    """
    head = "" if any(isinstance(module, AIFSLayer) for module in model.modules()) else find_head(model, AIFSConfig())

    def encode() -> Tensor:
        return _encoded(model, head, data, batch_size, accelerator)

    if cache_dir is None:
        return encode()
    if isinstance(data, PreparedStream):
        raise InvalidConfigError(CACHED)
    return LatentCache(Path(cache_dir)).get(model, data, encode, accelerator, head)


@torch.no_grad()
def _encoded(model: nn.Module, head: str, data: Prepared, batch_size: int, accelerator: Accelerator | None) -> Tensor:
    """The pass of the encoder; latents are what its AIFS layer pools, or what its head is fed."""
    layers = [module for module in model.modules() if isinstance(module, AIFSLayer)]
    reader = layers[0] if layers else model.get_submodule(head)
    seen: list[Tensor] = []

    last = LastToken(model) if not layers and picks_last_token(model, head) else None

    def note(_module: nn.Module, args: tuple[Any, ...]) -> None:
        fed = args[0] if last is None or args[0].dim() != 3 else last.pick(args[0])
        z = layers[0].pool(fed) if layers else pool_latent(fed)
        seen.append(z.detach().to("cpu", torch.float32))

    hook = reader.register_forward_pre_hook(note)
    device = next(model.parameters()).device
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator is not None else (1, 0)
    starts = range(rank * batch_size, len(data), world * batch_size)
    try:
        with evaluating(model):
            for start in starts:
                batch = data.batch(start, min(start + batch_size, len(data)))
                model(**{name: value.to(device) for name, value in batch.items()})
                if layers and layers[0].has_output:
                    layers[0].take_output()
    finally:
        hook.remove()
        if last is not None:
            last.detach()
    if len(seen) != len(starts):
        raise HeadError(
            f"the forward pass of this {type(model).__name__} does not use its head {type(reader).__name__}"
        )
    Z = _gathered(seen, starts, batch_size, len(data), accelerator)
    bad = ~Z.isfinite().all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise NonFiniteError(NOT_FINITE.format(count=int(bad.sum()), total=len(Z), first=first))
    return Z


def _gathered(seen: list[Tensor], starts: range, size: int, total: int, accelerator: Accelerator | None) -> Tensor:
    """The latents of all processes in the order of the examples."""
    if accelerator is None or accelerator.num_processes == 1:
        return torch.cat(seen)
    width = gather_rows(accelerator, torch.tensor([seen[0].shape[1] if seen else 0])).max()
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *(torch.arange(s, min(s + size, total)) for s in starts)])
    mine = torch.cat([torch.zeros(0, int(width)), *seen])
    rows, places = gather_rows(accelerator, mine), gather_rows(accelerator, index)
    return rows[places.argsort()]

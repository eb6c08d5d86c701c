"""One draw of a data set as latents: what every method of a seed is fitted to, chosen by and tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.bench import sets
from aifs_peft.bench.experiment import DataEntry, Encoder, where
from aifs_peft.data.groups import group_array, spec_of
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments.latent_cache import LatentCache, input_bytes
from aifs_peft.experiments.latents import latents_of
from aifs_peft.experiments.prepare import ImageEncoder, PreparedDataset, label_names, make_encoder, modality_of
from aifs_peft.methods.common.twins import TwinOptions, fit_twins

if TYPE_CHECKING:
    from datasets import DatasetDict

SPLITS = ("train", "validation", "test")
BATCH = 64
# Numbers of components in which XRM's twins are fitted.
_TWIN_COMPONENTS = 256


@dataclass(frozen=True)
class Part:
    """One split.

    Args:
        Z: latents `(n, d)` float32.
        y: labels `(n,)`.
        a: true attribute values `(n,)`; oracles and tests alone look at them.
        groups: `(n,)`, label x attribute.
    """

    Z: NDArray[np.float32]
    y: NDArray[np.int64]
    a: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """The three splits of one seed.

    Args:
        splits: as they were loaded.
        parts: the same as latents.
        seed: of the draw.
        checksum: of inputs, labels and groups of all splits.
    """

    splits: DatasetDict
    parts: dict[str, Part]
    seed: int
    checksum: str

    @cached_property
    def inferred(self) -> NDArray[np.int64]:
        """The bit of XRM's twins for each validation example `(n,)`: groups that no method of ours inferred."""
        train, held = self.parts["train"], self.parts["validation"]
        reduction = principal_components(train.Z, _TWIN_COMPONENTS, rng=np.random.default_rng(self.seed))
        first, second = (torch.as_tensor(reduction.transform(part.Z), dtype=torch.float32) for part in (train, held))
        classes = len(label_names(self.splits["train"]))
        twins = fit_twins(first, torch.as_tensor(train.y), classes, TwinOptions(), self.seed)
        return np.asarray(twins.mistakes(second, torch.as_tensor(held.y)).numpy(), dtype=np.int64)


def load_draw(entry: DataEntry, seed: int, cache_dir: str | Path | None = None) -> Draw:
    """Load a data set and encode it.

    Args:
        entry: which data, and by which encoder.
        seed: of the draw.
        cache_dir: folder that keeps latents for later calls; None keeps none.

    Raises:
        AIFSError: what loading and encoding raise; `InvalidInputError` for groups that overlap.
    """
    splits = sets.load(entry, seed)
    modality = modality_of(splits["train"])
    if spec_of(splits).overlapping:
        raise InvalidInputError(f"data set {entry.name!r}: its groups overlap, and here each example has one")
    encode = _encoder(entry.encoder, modality, label_names(splits["train"]), cache_dir)
    digest = blake2b(digest_size=16)
    parts = {}
    for name in SPLITS:
        rows = splits[name]
        groups = np.asarray(group_array(rows), dtype=np.int64)
        attribute = np.asarray(spec_of(rows).attribute_of(groups))
        if (groups < 0).any():
            raise InvalidInputError(f"data set {entry.name!r}: the attribute of some {name} examples is missing")
        y = np.asarray(rows["label"][:], dtype=np.int64)
        for piece in (name.encode(), y.tobytes(), groups.tobytes(), *input_bytes(rows, modality)):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
        parts[name] = Part(encode(rows), y, attribute, groups)
    return Draw(splits, parts, seed, digest.hexdigest())


def _encoder(
    encoder: Encoder, modality: str, classes: list[str], cache_dir: str | Path | None
) -> Callable[[Any], NDArray[np.float32]]:
    """The function from rows of a split to latents."""
    if encoder.model is None:
        if modality != "features":
            raise InvalidInputError(f"the data hold {modality} input: name the model that encodes it")
        return lambda rows: np.asarray(rows.with_format("numpy")["features"][:], dtype=np.float32)
    model, convert = _model(encoder, modality, classes)

    def encode(rows: Any) -> NDArray[np.float32]:
        prepared = PreparedDataset(rows, convert, cache_bytes=0, column=modality)
        if encoder.pooling == "head":
            return np.asarray(latents_of(model, prepared, batch_size=BATCH, cache_dir=cache_dir).numpy())
        work = lambda: mean_of_tokens(model, prepared)  # noqa: E731 - one expression
        Z = work() if cache_dir is None else LatentCache(Path(cache_dir)).get(model, prepared, work)
        return np.asarray(Z.numpy())

    return encode


def _model(encoder: Encoder, modality: str, classes: list[str]) -> tuple[Any, Callable[[list[Any]], dict[str, Tensor]]]:
    """The model in evaluation mode, and what makes its inputs."""
    from aifs_peft.models.loading import load_model, load_processor

    name = where(encoder.model or "")
    processor = load_processor(name, modality=modality, revision=encoder.revision)
    if encoder.pooling == "mean":
        if modality != "text":
            raise InvalidInputError(f"pooling 'mean' is of tokens, and the data hold {modality} input")
        from transformers import AutoModel

        model: Any = AutoModel.from_pretrained(name, revision=encoder.revision).eval()
    else:
        model = load_model(name, modality=modality, label_names=classes, revision=encoder.revision).eval()
    convert = make_encoder(processor, modality, max_length=encoder.max_length, model=model)
    if isinstance(convert, ImageEncoder) and encoder.image_size is not None:
        resize(convert.processor, encoder.image_size)
    return model, convert


def resize(processor: Any, side: int) -> None:
    """Let an image processor give pictures of another size.

    Args:
        processor: of transformers; changed in place.
        side: in pixels.
    """
    shape = {"height": side, "width": side}
    processor.size = shape
    if getattr(processor, "crop_size", None) is not None:
        processor.crop_size = shape


@torch.no_grad()
def mean_of_tokens(model: Any, data: PreparedDataset) -> Tensor:
    """Mean of the last block's tokens, `(n, d)` float32 on the CPU.

    Args:
        model: a text encoder of transformers.
        data: tokens and their mask.
    """
    device, parts = next(model.parameters()).device, []
    for start in range(0, len(data), BATCH):
        batch = {name: values.to(device) for name, values in data.batch(start, min(start + BATCH, len(data))).items()}
        longest = int(batch["attention_mask"].sum(1).max())  # padding on the right is cut
        if bool(batch["attention_mask"][:, 0].all()):
            batch = {name: values[:, :longest] for name, values in batch.items()}
        mask = batch["attention_mask"][..., None].float()
        hidden = model(**batch).last_hidden_state.float()
        parts.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(parts)

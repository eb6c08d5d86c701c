"""Turn a data set of images, texts or features into what a model's forward takes, without losing its groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from torch import Tensor, nn

from aifs_peft.data.images import read_images, to_rgb, undecoded
from aifs_peft.errors import InvalidInputError
from aifs_peft.training.inputs import count_cut, longest_text, tell_cut

# Up to this many bytes of processed pixels are kept in memory; beyond it images are decoded when asked for.
CACHE_BYTES = 1 << 30
NO_INPUT = (
    "The data set has the columns {columns}; needed is one of {needed}. "
    "Rename the input column, or pass a data set of images, texts or feature vectors."
)
MODALITIES = ("image", "text", "features")


def modality_of(dataset: Dataset, known: tuple[str, ...] = MODALITIES) -> str:
    """`"image"`, `"text"` or `"features"`: the first of the input columns that the data set has.

    Args:
        dataset: a split.
        known: columns to look for, in this order.

    Raises:
        InvalidInputError: it has none of them.
    """
    for name in known:
        if name in dataset.column_names:
            return name
    needed = ", ".join(map(repr, known))
    raise InvalidInputError(NO_INPUT.format(columns=dataset.column_names, needed=needed))


def label_names(dataset: Dataset) -> list[str]:
    """Class names in label order, from the feature when it is a `ClassLabel`, else from the labels found."""
    return _names(dataset, "label", prefix="")


def group_names(dataset: Dataset) -> list[str]:
    """Group names in group order; empty when the data set has no `group` column."""
    return _names(dataset, "group", prefix="group ") if "group" in dataset.column_names else []


def _names(dataset: Dataset, column: str, *, prefix: str) -> list[str]:
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    values = np.asarray(dataset[column][:])
    number = values.shape[1] if values.ndim == 2 else int(values.max()) + 1  # overlapping groups: one column each
    return [f"{prefix}{i}" for i in range(number)]


class PreparedDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A map-style data set of `{input tensors, "labels"}`; groups stay outside the model's reach.

    Args:
        source: rows with an `image`, `text` or `features` column and a `label` column of integers; without it every
            label is -1.
        encode: maps a list of inputs to a dict of tensors with the batch first.
        cache_bytes: encoded inputs are kept in memory when they need no more than this.
        column: which input column; `None` takes the first of those three that is there.
        keep: names of integer columns that a training method reads; where present they are in `columns`, and never
            in an example.
        split: name of the split, for messages about damaged pictures.
        beside: columns of a table that the model reads beside each input, `(n, d)`, its `features`; None without.

    Raises:
        InvalidInputError: no input column, or a picture that cannot be read.

    Example:
        >>> rows = Dataset.from_dict({"text": ["a", "bb"], "label": [0, 1]})
        >>> encode = lambda texts: {"input_ids": torch.tensor([[len(t)] for t in texts])}
        >>> PreparedDataset(rows, encode)[1]
        {'input_ids': tensor([2]), 'labels': tensor(1)}
    """

    def __init__(
        self,
        source: Dataset,
        encode: Callable[[list[Any]], dict[str, Tensor]],
        cache_bytes: int = CACHE_BYTES,
        column: str | None = None,
        keep: Sequence[str] = (),
        split: str = "",
        beside: Tensor | None = None,
    ) -> None:
        self.column = modality_of(source, (column,) if column else MODALITIES)
        self.columns = {name: np.asarray(source[name][:]) for name in keep if name in source.column_names}
        self.source = undecoded(source, self.column) if self.column == "image" else source
        self.encode, self.split, self.beside = encode, split, beside
        if isinstance(encode, TextEncoder):
            encode.tell_cut(source[self.column][:])
        labels = source["label"][:] if "label" in source.column_names else [-1] * len(source)
        self.labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)
        self._cache: dict[str, Tensor] | None = None
        if len(source) and cache_bytes > 0:
            first = self._encoded(range(1))
            size = sum(t.numel() * t.element_size() for t in first.values()) * len(source)
            if size <= cache_bytes:
                self._cache = self._encode_all()

    def _inputs(self, rows: range) -> list[Any]:
        if self.column == "image":
            return list(read_images(self.source, rows, split=self.split))
        return list(self.source[rows.start : rows.stop][self.column])

    def _encoded(self, rows: range) -> dict[str, Tensor]:
        tensors = self.encode(self._inputs(rows))
        return tensors if self.beside is None else {**tensors, "features": self.beside[rows.start : rows.stop]}

    def _encode_all(self, chunk: int = 256) -> dict[str, Tensor]:
        size = len(self.source)
        parts = [self.batch(start, min(start + chunk, size)) for start in range(0, size, chunk)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def batch(self, start: int, stop: int) -> dict[str, Tensor]:
        """Inputs of the rows from `start` up to `stop`, without their labels; nothing is kept.

        Args:
            start: first row.
            stop: one after the last.
        """
        if self._cache is not None:
            return {name: values[start:stop] for name, values in self._cache.items()}
        return self._encoded(range(start, stop))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self._cache is not None:
            row = {name: values[index] for name, values in self._cache.items()}
        else:
            encoded = self._encoded(range(int(index), int(index) + 1))
            row = {name: values[0] for name, values in encoded.items()}
        return {**row, "labels": self.labels[index]}


@dataclass(frozen=True)
class TextEncoder:
    """Texts to model inputs of one length.

    Args:
        tokenizer: of the model.
        max_length: tokens per text; longer texts are cut.
        positions: tokens that the model could take; None where that is not known.
    """

    tokenizer: Any
    max_length: int
    positions: int | None = None

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens and their mask, each `(texts, max_length)`."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}

    def tell_cut(self, texts: Sequence[str]) -> None:
        """Warn of texts that are cut, with their number."""
        tell_cut(count_cut(self.tokenizer, texts, self.max_length), len(texts), self.max_length, self.positions)


@dataclass(frozen=True)
class ImageEncoder:
    """Pictures to the pixels that a model takes.

    Args:
        processor: of the model.
    """

    processor: Any

    def __call__(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Pixels, `(images, channels, height, width)`."""
        pixels = self.processor(images=[to_rgb(image) for image in images], return_tensors="pt")
        return {"pixel_values": pixels["pixel_values"]}


def encode_features(rows: Sequence[Any]) -> dict[str, Tensor]:
    """Feature vectors as they are, `(rows, dim)`."""
    return {"features": torch.as_tensor(np.asarray(rows, dtype=np.float32))}


def make_encoder(
    processor: Any, modality: str, *, max_length: int = 128, model: nn.Module | None = None
) -> Callable[[list[Any]], dict[str, Tensor]]:
    """The function that turns a list of images, texts or feature vectors into model inputs of fixed shape.

    Args:
        processor: image processor or tokenizer; None for features.
        modality: `"image"`, `"text"` or `"features"`.
        max_length: tokens per text.
        model: whose positions limit that; None where nothing does.
    """
    if modality == "text":
        positions = None if model is None else longest_text(model, processor)
        return TextEncoder(processor, max_length if positions is None else min(max_length, positions), positions)
    return ImageEncoder(processor) if modality == "image" else encode_features

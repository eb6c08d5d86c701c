"""Plain data sets as they are: images and texts are processed, string labels encoded, for any model and processor.

`AIFSTrainer` takes what `datasets.load_dataset` gives. A column of images or texts is turned into the model's inputs by
the trainer's `processing_class`; data sets that hold the model's inputs already pass through as they are.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from aifs_peft.data.images import read_images, undecoded
from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import LABEL_NAMES, read_labels
from aifs_peft.training.stream_inputs import ProcessedStream, label_encoder, stream_column

# Column -> what it holds, in the order in which they are looked for.
IMAGE_COLUMNS = ("image", "img", "images")
TEXT_COLUMNS = ("text", "sentence", "texts")
# What a model takes: a data set with one of these was processed before.
# Tables of absolute positions of a text, by the last part of a module's name, and what is none.
_POSITIONS = re.compile(r"(^|[._])(positions?|pos)(_[a-z]+)?$|(^|\.)wpe$")
_OTHER_POSITIONS = re.compile(r"vision|visual|image|relative|rel_|(^|\.)[xyhw]_position|2d")
MODEL_INPUTS = ("pixel_values", "input_ids", "inputs_embeds", "features")
# Texts that are tokenised at a time to see how long they are.
_CHUNK = 1000


class ProcessedDataset(Dataset[dict[str, Any]]):
    """A `datasets.Dataset` of images or texts as the model takes it.

    Texts are tokenised once, here; images are decoded and processed when they are asked for.

    Args:
        source: rows with an image or a text column, and labels.
        column: the input column.
        processor: image processor or tokenizer.
        labels: encoded labels, `(n,)` int64.
        max_length: most tokens of a text; longer ones are cut. None for no limit.
        keep: names of the other columns that go into each example, for metrics.
        what: which set, for messages.

    Attributes:
        labels: as given.
        columns: the other columns that hold integers or booleans, by name: what a training method or an evaluation may
            read.
    """

    def __init__(
        self,
        source: datasets.Dataset,
        column: str,
        processor: Any,
        labels: Tensor | None,
        max_length: int | None = None,
        keep: Sequence[str] = (),
        what: str = "data",
    ) -> None:
        self.source, self.column, self.processor, self.labels = source.with_format(None), column, processor, labels
        self.what = what
        if isinstance(source.features[column], datasets.Image):
            self.source = undecoded(self.source, column)
        self.columns = {
            name: np.asarray(self.source[name][:])
            for name, feature in source.features.items()
            if name not in (column, *LABEL_NAMES) and _holds_integers(feature)
        }
        self._kept = [name for name in keep if name in self.columns]
        self._tokens = self._tokenise(max_length) if isinstance(processor, PreTrainedTokenizerBase) else None

    def _tokenise(self, max_length: int | None) -> Mapping[str, Any]:
        texts = [_text(value, self.column, row) for row, value in enumerate(self.source[self.column])]
        tokens: Mapping[str, Any] = self.processor(texts, truncation=max_length is not None, max_length=max_length)
        full = [] if max_length is None else [i for i, ids in enumerate(tokens["input_ids"]) if len(ids) >= max_length]
        if full and max_length is not None:
            whole = self.processor([texts[i] for i in full], verbose=False)["input_ids"]
            cut = sum(len(ids) > len(tokens["input_ids"][i]) for ids, i in zip(whole, full, strict=True))
            tell_cut(cut, len(texts), max_length, max_length)
        return tokens

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([int(position)])[0]

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        """Several examples at once: an image processor is faster on a batch."""
        if self._tokens is not None:
            rows = [{name: values[i] for name, values in self._tokens.items()} for i in positions]
        else:
            images = read_images(self.source, positions, column=self.column, split=self.what)
            batch = self.processor(images=images, return_tensors="pt")
            rows = [{name: values[k] for name, values in batch.items()} for k in range(len(images))]
        for row, i in zip(rows, positions, strict=True):
            if self.labels is not None:
                row["labels"] = self.labels[i]
            row.update({name: self.columns[name][i] for name in self._kept})
        return rows


def processed(dataset: Any, processor: Any, model: nn.Module, what: str, keep: Sequence[str] = ()) -> Any:
    """The data set as the model takes it: unchanged where it holds the model's inputs already.

    Args:
        dataset: anything `AIFSTrainer` takes; only a `datasets.Dataset` with a column of images or texts is processed.
        processor: the trainer's `processing_class`: an image processor, a tokenizer, or None.
        model: its configuration gives class names, its position table the longest text.
        what: "training" or "evaluation", for messages.
        keep: names of other columns that go into each example.

    Returns:
        A `ProcessedDataset`, or `dataset` itself.

    Raises:
        InvalidInputError: if there are images or texts and nothing to process them with, or labels that the model has
            no class for.
    """
    if isinstance(dataset, datasets.DatasetDict):
        raise InvalidInputError(
            f"the {what} set is a DatasetDict with the splits {', '.join(dataset)}; pass one of them, such as "
            f"data[{next(iter(dataset), 'train')!r}]"
        )
    if isinstance(dataset, datasets.IterableDataset):
        return _processed_stream(dataset, processor, model, what, keep)
    if not isinstance(dataset, datasets.Dataset) or any(name in dataset.column_names for name in MODEL_INPUTS):
        return dataset
    column = input_column(dataset)
    if column is None:
        return dataset
    limit = _limit(processor, column, isinstance(dataset.features[column], datasets.Image), model, what)
    return ProcessedDataset(dataset, column, processor, encode_labels(dataset, model, what), limit, keep, what)


def _processed_stream(
    dataset: datasets.IterableDataset, processor: Any, model: nn.Module, what: str, keep: Sequence[str]
) -> Any:
    """A streamed set as the model takes it: unchanged where it holds the model's inputs already."""
    if any(name in (dataset.column_names or ()) for name in MODEL_INPUTS):
        return dataset
    column = stream_column(dataset, (*IMAGE_COLUMNS, *TEXT_COLUMNS))
    if column is None:
        return dataset
    image = isinstance((dataset.features or {}).get(column), datasets.Image) or column in IMAGE_COLUMNS
    limit = _limit(processor, column, image, model, what)
    known = dict(getattr(getattr(model, "config", None), "label2id", None) or {})
    return ProcessedStream(dataset, column, processor, label_encoder(known, what), limit, keep, what)


def _limit(processor: Any, column: str, image: bool, model: nn.Module, what: str) -> int | None:
    """Most tokens of a text, None for pictures; refuses a processor that does not go with the column."""
    if processor is None:
        raise InvalidInputError(
            f"the {what} set has a column {column!r} and no model inputs; pass processing_class= (the image processor "
            "or tokenizer of the model), or process the data set yourself"
        )
    tokenizer = isinstance(processor, PreTrainedTokenizerBase)
    if tokenizer == image:
        raise InvalidInputError(
            f"the column {column!r} of the {what} set does not go with processing_class={type(processor).__name__}; "
            "images need an image processor, texts a tokenizer"
        )
    return longest_text(model, processor) if tokenizer else None


def input_column(dataset: datasets.Dataset) -> str | None:
    """The column of images or texts, by its type first and its usual name second; None when there is none.

    Args:
        dataset: a split.

    Example:
        >>> input_column(datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
        'text'
    """
    images = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    named = [name for name in (*IMAGE_COLUMNS, *TEXT_COLUMNS) if name in dataset.column_names]
    for name in (*images, *named):
        feature = dataset.features[name]
        if name in images or (name in TEXT_COLUMNS and getattr(feature, "dtype", None) in ("string", "large_string")):
            return str(name)
    return None


def encode_labels(dataset: datasets.Dataset, model: nn.Module, what: str) -> Tensor | None:
    """The labels as class indices; names are looked up in the model's `label2id`.

    Args:
        dataset: with a label column of integers or strings.
        model: its configuration has `label2id`.
        what: which set, for the message.

    Returns:
        `(n,)` int64; None when there is no label column.

    Raises:
        InvalidInputError: for names the model does not know.
    """
    name = next((name for name in LABEL_NAMES if name in dataset.column_names), None)
    if name is None:
        return None
    values = dataset.with_format(None)[name][:]
    if not any(isinstance(value, str) for value in values):
        return read_labels(dataset)
    known = dict(getattr(getattr(model, "config", None), "label2id", None) or {})
    unknown = sorted({str(value) for value in values if value not in known})
    if unknown:
        names = sorted({str(value) for value in values})[:8]
        raise InvalidInputError(
            f"the {what} set has the labels {', '.join(map(repr, names))} in column {name!r}, and the model's classes "
            f"are {', '.join(map(repr, list(known)[:8]))}; load the model with id2label={dict(enumerate(names))} (and "
            "label2id the other way round)"
        )
    return torch.tensor([int(known[value]) for value in values], dtype=torch.int64)


def longest_text(model: nn.Module, tokenizer: Any) -> int | None:
    """Tokens that fit into the model: its table of positions, and what its tokenizer says.

    Args:
        model: any.
        tokenizer: its `model_max_length` counts where it is a real limit.

    Returns:
        The smaller of the two; None when neither gives a limit.

    Example:
        >>> from transformers import RobertaConfig, RobertaForSequenceClassification
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
        >>> longest_text(RobertaForSequenceClassification(RobertaConfig(max_position_embeddings=20, **sizes)), None)
        18
    """
    limits = []
    for name, module in model.named_modules():
        table = getattr(module, "weight", None)
        if not isinstance(table, Tensor) or table.ndim != 2 or not hasattr(module, "padding_idx"):
            continue
        if _POSITIONS.search(name) and not _OTHER_POSITIONS.search(name):
            # RoBERTa counts positions from behind its padding index.
            used = 0 if module.padding_idx is None else int(module.padding_idx) + 1
            limits.append(len(table) - used)
    config = getattr(model, "config", None)
    if limits:  # BART, Nystromformer and their like have a table with two rows more than there are positions
        named = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
        limits += [named] if isinstance(named, int) and named > 0 else []
    if hasattr(config, "axial_pos_shape"):
        limits.append(_reformer_positions(config))
    declared = getattr(tokenizer, "model_max_length", None)
    if declared is not None and declared < 10**6:  # transformers writes 10^30 for "no limit known"
        limits.append(int(declared))
    return min(limits, default=None)


def _reformer_positions(config: Any) -> int:
    """Positions of a Reformer, in a grid or a table of its own kind, and in whole chunks: texts are padded to these."""
    places = config.max_position_embeddings
    if config.axial_pos_embds:
        places = min(places, math.prod(config.axial_pos_shape))
    chunk = math.lcm(*(getattr(config, f"{kind}_attn_chunk_length") for kind in set(config.attn_layers)))
    return int(places // chunk * chunk or places)


def count_cut(tokenizer: Any, texts: Sequence[str], limit: int) -> int:
    """How many texts have more tokens than a limit.

    Args:
        tokenizer: of the model.
        texts: any number.
        limit: tokens, with the special ones.
    """
    cut = 0
    for start in range(0, len(texts), _CHUNK):
        ids = tokenizer(list(texts[start : start + _CHUNK]), truncation=False, verbose=False)["input_ids"]
        cut += sum(len(tokens) > limit for tokens in ids)
    return cut


def tell_cut(cut: int, total: int, limit: int, positions: int | None) -> None:
    """Warn of texts that are cut, with their number; nothing where none is.

    Args:
        cut: how many are.
        total: of how many.
        limit: tokens that are left of each.
        positions: tokens that the model could take; None where that is not known.

    Example:
        >>> with warnings.catch_warnings(record=True, action="always") as told:
        ...     tell_cut(2, 9, 128, 512)
        >>> str(told[0].message).partition(";")[0]
        '2 of 9 texts are longer than max_length=128 tokens and were cut'
    """
    if not cut:
        return
    most = "" if positions is None else f" (the model takes {positions:,})"
    whose = f"max_length={limit} tokens" if limit != positions else f"the model's {limit} positions"
    remedy = "shorten or split them" if limit == positions else f"raise it{most}, or shorten them"
    warnings.warn(
        f"{cut:,} of {total:,} texts are longer than {whose} and were cut; {remedy} if what matters stands at their "
        "end",
        UserWarning,
        stacklevel=4,
    )


def _holds_integers(feature: Any) -> bool:
    if isinstance(feature, datasets.ClassLabel):
        return True
    dtype = str(getattr(feature, "dtype", ""))
    return dtype == "bool" or dtype.startswith(("int", "uint"))


def _text(value: Any, column: str, row: int) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(
            f"row {row} of column {column!r} holds {value!r} where a text is needed; drop such rows or fill them in"
        )
    return value

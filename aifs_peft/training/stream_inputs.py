"""Streamed pictures and texts as the model takes them, one example at a time, as they are read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from aifs_peft.data.images import damage, to_rgb
from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import LABEL_NAMES

logger = logging.getLogger(__name__)


class ProcessedStream(IterableDataset[dict[str, Any]]):
    """A `datasets.IterableDataset` of pictures or texts as the model takes it.

    Args:
        source: rows with a picture or a text, and a label.
        column: of the picture or text.
        processor: image processor or tokenizer.
        encode_label: label of a row to its class index.
        max_length: most tokens of a text; longer ones are cut. None for no limit.
        keep: names of the other columns that go into each example.
        what: which set, for messages.
    """

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        processor: Any,
        encode_label: Callable[[Any], int],
        max_length: int | None = None,
        keep: Sequence[str] = (),
        what: str = "data",
    ) -> None:
        self.source, self.column, self.processor, self.encode_label = source, column, processor, encode_label
        self.max_length, self.keep, self.what = max_length, list(keep), what
        self._told = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row, content in enumerate(self.source):
            value = content[self.column]
            example = self._tokens(value, row) if self._is_text() else self._pixels(value, row)
            label = next((content[name] for name in LABEL_NAMES if content.get(name) is not None), None)
            if label is not None:
                example["labels"] = self.encode_label(label)
            yield {**example, **{name: content[name] for name in self.keep if name in content}}

    def label_values(self) -> Iterator[int | None]:
        """Labels alone, as class indices; nothing is decoded for them where the columns are known."""
        known = self.source.column_names or ()
        name = next((name for name in LABEL_NAMES if name in known), None)
        rows = self.source if name is None else self.source.select_columns([name])
        for content in rows:
            label = next((content[name] for name in LABEL_NAMES if content.get(name) is not None), None)
            yield None if label is None else self.encode_label(label)

    def _is_text(self) -> bool:
        return isinstance(self.processor, PreTrainedTokenizerBase)

    def _tokens(self, text: Any, row: int) -> dict[str, Any]:
        if not isinstance(text, str):
            raise InvalidInputError(
                f"row {row} of column {self.column!r} of the {self.what} set holds {text!r} where a text is needed; "
                "drop such rows (stream.filter) or fill them in"
            )
        tokens = dict(self.processor(text, truncation=self.max_length is not None, max_length=self.max_length))
        if self.max_length is not None and len(tokens["input_ids"]) >= self.max_length and not self._told:
            whole = self.processor(text, verbose=False)["input_ids"]
            if len(whole) > self.max_length:
                self._told = True
                logger.warning(
                    "texts of the %s set are longer than max_length=%d tokens and are cut (the first one in row %d)",
                    self.what, self.max_length, row,
                )  # fmt: skip
        return tokens

    def _pixels(self, image: Any, row: int) -> dict[str, Any]:
        unreadable: tuple[type[Exception], ...] = (InvalidInputError, *damage())
        try:
            picture = to_rgb(image)
        except unreadable as error:
            told = f"the picture of row {row} of the {self.what} set cannot be read ({error})"
            raise InvalidInputError(f"{told}; drop such rows (stream.filter)") from error
        batch = self.processor(images=[picture], return_tensors="pt")
        return {name: values[0] for name, values in batch.items()}


def label_encoder(known: dict[str, int], what: str) -> Callable[[Any], int]:
    """Labels of a stream, numbers or names, to class indices.

    Args:
        known: the model's `label2id`.
        what: which set, for the message.

    Example:
        >>> encode = label_encoder({"cat": 0, "dog": 1}, "training")
        >>> encode("dog"), encode(0)
        (1, 0)
    """

    def encode(label: Any) -> int:
        if not isinstance(label, str):
            return int(label)
        if label not in known:
            raise InvalidInputError(
                f"the {what} set has the label {label!r}, and the model's classes are "
                f"{', '.join(map(repr, list(known)[:8]))}; load the model with id2label and label2id that hold it"
            )
        return int(known[label])

    return encode


def stream_column(dataset: datasets.IterableDataset, names: Sequence[str]) -> str | None:
    """The column of pictures or texts of a stream: by its type where that is known, else by the first row.

    Args:
        dataset: streamed.
        names: usual names, in the order in which they are looked for.

    Example:
        >>> rows = datasets.IterableDataset.from_generator(lambda: iter([{"text": "a", "label": 0}]))
        >>> stream_column(rows, ["image", "text"])
        'text'
    """
    from PIL.Image import Image

    features = dict(dataset.features or {})
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if images:
        return str(images[0])
    row: dict[str, Any] = {}
    if not features:
        row = next(iter(dataset), {})
    for name in names:
        text = getattr(features.get(name), "dtype", None) in ("string", "large_string")
        if text or isinstance(row.get(name), str | Image):
            return name
    return None

"""One frozen pass: what a model feeds its head, and what it predicts, for every example of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aifs_peft.data.images import read_images
from aifs_peft.errors import HeadError, InvalidInputError
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.pooling import pool_latent
from aifs_peft.models.encoders import base_of, embedding_of
from aifs_peft.training.inputs import IMAGE_COLUMNS, TEXT_COLUMNS, count_cut, input_column, longest_text, tell_cut
from aifs_peft.training.labels import LABEL_NAMES
from aifs_peft.tuner import AIFSConfig, AIFSLayer
from aifs_peft.tuner.targets import HEAD_NAMES, find_head

# A data set with one of these holds what a model takes; images and texts are processed.
MODEL_INPUTS = ("pixel_values", "input_ids")
NO_INPUT = (
    "the data set has the columns {columns}; needed is an input among {known}. Rename the input column, or pass "
    "latents to audit(Z, y)."
)
NO_PROCESSOR = (
    "the data set holds {column!r} and no model inputs; pass processor=, the image processor or tokenizer of the "
    "model, or the model by its name."
)


@dataclass(frozen=True)
class Encoded:
    """Latents `(n, d)`, and logits `(n, K)` where the model has a head."""

    Z: NDArray[np.float32]
    logits: NDArray[np.float32] | None


def is_hub(dataset: Any) -> bool:
    """Whether it is a `datasets.Dataset`, whose columns are known."""
    return hasattr(dataset, "column_names") and hasattr(dataset, "features")


def column_of(dataset: Any) -> tuple[str, str]:
    """The column that is encoded, and what it holds: `"tensors"`, `"image"`, `"text"` or `"features"`.

    Args:
        dataset: a `datasets.Dataset`.

    Raises:
        InvalidInputError: if there is none.

    Example:
        >>> import datasets
        >>> column_of(datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
        ('text', 'text')
    """
    for name in MODEL_INPUTS:
        if name in dataset.column_names:
            return name, "tensors"
    raw = input_column(dataset)
    if raw is not None:
        return raw, "image" if type(dataset.features[raw]).__name__ == "Image" else "text"
    if "features" in dataset.column_names:
        return "features", "features"
    known = ", ".join((*MODEL_INPUTS, *IMAGE_COLUMNS, *TEXT_COLUMNS, "features"))
    raise InvalidInputError(NO_INPUT.format(columns=dataset.column_names, known=known))


def batches(
    dataset: Any, rows: Sequence[int], processor: Any, batch_size: int, longest: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """Batches of model inputs.

    Args:
        dataset: a `datasets.Dataset` of images, texts or model inputs; or any map-style set whose examples are
            dictionaries of model inputs.
        rows: which examples, in order.
        processor: image processor or tokenizer, for images and texts.
        batch_size: examples per batch.
        longest: most tokens of a text.

    Raises:
        InvalidInputError: without inputs, or without the processor that they need.
    """
    column, kind = column_of(dataset) if is_hub(dataset) else ("", "tensors")
    if kind in ("image", "text") and processor is None:
        raise InvalidInputError(NO_PROCESSOR.format(column=column))
    tokenizer = getattr(processor, "tokenizer", processor)
    for start in range(0, len(rows), batch_size):
        chosen = [int(i) for i in rows[start : start + batch_size]]
        if kind == "image":
            images = read_images(dataset.with_format(None), chosen, column=column)
            yield dict(processor(images=images, return_tensors="pt"))
        elif kind == "text":
            texts = dataset.with_format(None)[chosen][column]
            cut = {"truncation": longest is not None, "max_length": longest}
            yield dict(tokenizer(texts, padding=True, return_tensors="pt", **cut))
        else:
            # Several at once, for data sets that are faster that way.
            fetch = getattr(dataset, "__getitems__", None)
            yield _collated(fetch(chosen) if fetch else [dataset[i] for i in chosen], tokenizer)


def _collated(examples: list[dict[str, Any]], tokenizer: Any) -> dict[str, Tensor]:
    kept = [
        {name: value for name, value in example.items() if name not in LABEL_NAMES and _is_input(value)}
        for example in examples
    ]
    lengths = {len(example["input_ids"]) for example in kept if "input_ids" in example}
    if len(lengths) > 1:
        if tokenizer is None:
            raise InvalidInputError("texts of different lengths need processor=, the tokenizer, which pads them.")
        names = ("input_ids", "attention_mask", "token_type_ids")
        padded = tokenizer.pad([{k: v for k, v in e.items() if k in names} for e in kept], return_tensors="pt")
        return dict(padded)
    return {name: torch.as_tensor(np.stack([np.asarray(e[name]) for e in kept])) for name in kept[0]}


def _is_input(value: Any) -> bool:
    """Tensors, arrays and lists of numbers: neither single numbers, which are metadata, nor text nor images."""
    return getattr(value, "ndim", 0) > 0 or (
        isinstance(value, list) and not any(isinstance(v, str | dict) for v in value)
    )


@torch.no_grad()
def encode(
    model: nn.Module,
    dataset: Any,
    *,
    processor: Any = None,
    batch_size: int = 64,
    rows: Sequence[int] | None = None,
    max_length: int | None = None,
) -> Encoded:
    """Latents that the model feeds its classification head (its pooled embedding, without a head), in evaluation mode.

    Nothing is drawn, and the model's modes are put back.

    Args:
        model: a classifier or encoder, with or without adapters.
        dataset: see `batches`.
        processor: image processor or tokenizer, for images and texts.
        batch_size: examples per forward pass.
        rows: which examples; `None` for all.
        max_length: tokens per text; `None` for what the model takes. Texts that are cut are counted in a warning.

    Raises:
        InvalidInputError: for data without inputs.
        HeadError: for a head that is fed no latent.

    Example:
        >>> from aifs_peft.models import LatentClassifier, TabularEncoder
        >>> model = LatentClassifier(TabularEncoder(3, 8), num_labels=2)
        >>> encoded = encode(model, [{"features": torch.zeros(3), "label": 0}] * 5)
        >>> encoded.Z.shape, encoded.logits.shape
        ((5, 8), (5, 2))
    """
    head, pool = _head_of(model)
    device = next(model.parameters()).device
    base = base_of(model)
    known = inspect.signature(base.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    chosen = range(len(dataset)) if rows is None else rows
    longest = _longest(base, dataset, chosen, processor, max_length)
    fed: list[Tensor] = []
    hook = None if head is None else head.register_forward_pre_hook(lambda _module, args: fed.append(args[0]))
    latents, logits = [], []
    try:
        with evaluating(model):
            for batch in batches(dataset, chosen, processor, batch_size, longest):
                inputs = {k: v.to(device) for k, v in batch.items() if anything or k in known}
                fed.clear()
                out = model(**inputs)
                if head is not None and not fed:
                    raise HeadError(f"the forward pass of this {type(model).__name__} does not use its head.")
                z = pool(fed[-1]) if head is not None else embedding_of(out, base)
                latents.append(z.float().cpu().numpy())
                if head is not None:
                    logits.append(out.logits.float().cpu().numpy())
    finally:
        if hook is not None:
            hook.remove()
    return Encoded(np.concatenate(latents), np.concatenate(logits) if logits else None)


def _longest(base: nn.Module, dataset: Any, rows: Sequence[int], processor: Any, max_length: int | None) -> int | None:
    """Tokens per text; told of texts that are longer."""
    tokenizer = getattr(processor, "tokenizer", processor)
    positions = longest_text(base, tokenizer)
    longest = min((limit for limit in (positions, max_length) if limit is not None), default=None)
    if longest is not None and tokenizer is not None and is_hub(dataset) and column_of(dataset)[1] == "text":
        texts = dataset.with_format(None)[column_of(dataset)[0]]
        chosen = texts[:] if len(rows) == len(dataset) else [texts[int(i)] for i in rows]
        tell_cut(count_cut(tokenizer, chosen, longest), len(chosen), longest, positions)
    return longest


def _head_of(model: nn.Module) -> tuple[nn.Module | None, Any]:
    """The module that is fed the latent, and how that is pooled; `None` for an encoder without a head."""
    for module in model.modules():
        if isinstance(module, AIFSLayer):
            return module, module.pool
    base = base_of(model)
    if not any(isinstance(getattr(base, name, None), nn.Module) for name in HEAD_NAMES):
        return None, pool_latent
    return base.get_submodule(find_head(base, AIFSConfig())), pool_latent

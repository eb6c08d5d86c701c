"""Load a pretrained encoder with a classification head, by Hub name, local directory or `tiny_clip`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from aifs_peft.errors import InvalidConfigError, InvalidInputError, ModelNotFoundError

TINY_CLIP = "tiny_clip"
NOT_FOUND = (
    "Could not load {kind} {name!r}: it is not a local directory, and the Hugging Face Hub did not give it ({reason}). "
    "Check the spelling, the network and HF_HUB_OFFLINE; or pass the path of a downloaded copy, "
    f"or {TINY_CLIP!r} for the encoder that ships with this package."
)
WRONG_KIND = (
    "The model {name!r} (type {model_type!r}) has no {modality} classification class in transformers, and the data set "
    "has {modality} input. Pass a model for {modality} input, or a data set that the model reads."
)
UNKNOWN_QUANTIZATION = "quantization was {given!r}; it is one of 'none', '4bit', '8bit'."

_AUTO = {"image": AutoModelForImageClassification, "text": AutoModelForSequenceClassification}


def resolve_model(name: str) -> str:
    """The directory of the embedded encoder for `"tiny_clip"`, any other name unchanged.

    Example:
        >>> resolve_model("openai/clip-vit-base-patch16")
        'openai/clip-vit-base-patch16'
    """
    return str(files("aifs_peft") / "assets" / TINY_CLIP) if name == TINY_CLIP else name


def load_model(
    name: str,
    *,
    modality: str,
    label_names: list[str],
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: str = "none",
) -> nn.Module:
    """A Transformers classifier with `len(label_names)` outputs on the pretrained encoder `name`.

    Args:
        name: a Hub name, a local directory, or `"tiny_clip"`.
        modality: `"image"` or `"text"`: what the data set gives.
        label_names: class names in label order.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run model code from the Hub; off unless asked for.
        quantization: `"none"`, `"4bit"` or `"8bit"` (bitsandbytes; the head stays in full precision).

    Raises:
        ModelNotFoundError: neither a local directory nor to be had from the Hub now.
        InvalidConfigError: the model cannot read this modality, or an unknown quantization.
    """
    if modality not in _AUTO:
        raise InvalidInputError(f"No model class for {modality!r} input; needed: one of {sorted(_AUTO)}.")
    source = resolve_model(name)
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
    except (OSError, ValueError) as error:
        raise _not_found("model", name, error) from error
    if type(config) not in _AUTO[modality]._model_mapping and not trust_remote_code:
        raise InvalidConfigError(WRONG_KIND.format(name=name, model_type=config.model_type, modality=modality))
    config.num_labels = len(label_names)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: i for i, label in enumerate(label_names)}
    extra: dict[str, Any] = {} if quantization == "none" else {"quantization_config": _quantization(quantization)}
    try:
        model = _AUTO[modality].from_pretrained(source, config=config, ignore_mismatched_sizes=True, **common, **extra)
    except OSError as error:
        raise _not_found("model", name, error) from error
    # A half-precision checkpoint trains its head and adapter in float32; a quantised base keeps its own types.
    return model if extra else model.to(torch.float32)


def load_processor(name: str, *, modality: str, revision: str | None = None) -> Any:
    """The image processor (`modality="image"`) or tokenizer (`"text"`) that belongs to `name`.

    Raises:
        ModelNotFoundError: neither a local directory nor to be had from the Hub now.
    """
    loader = AutoImageProcessor if modality == "image" else AutoTokenizer
    try:
        return loader.from_pretrained(resolve_model(name), revision=revision)
    except (OSError, ValueError) as error:
        raise _not_found("the processor of", name, error) from error


def _not_found(kind: str, name: str, error: Exception) -> ModelNotFoundError:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelNotFoundError(NOT_FOUND.format(kind=kind, name=name, reason=reason[:200]))


def _quantization(kind: str) -> Any:
    from transformers import BitsAndBytesConfig

    # The head is trained, so it must not be quantised with the encoder.
    skip = ["classifier", "score"]
    if kind == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=skip,
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    raise InvalidConfigError(UNKNOWN_QUANTIZATION.format(given=kind))

"""Load a base model: a pretrained encoder with a classification head, or a fresh one for a table."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from aifs_peft._checks import check_choice
from aifs_peft._hub import expecting_answers
from aifs_peft.errors import InvalidConfigError, InvalidInputError, ModelNotFoundError
from aifs_peft.models.fused import FusedClassifier, FusedConfig
from aifs_peft.models.latent_classifier import LatentClassifier, LatentClassifierConfig
from aifs_peft.models.open_clip import is_open_clip, open_clip_processor
from aifs_peft.models.tabular import ENCODERS, TabularClassifier, TabularConfig

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
NO_TABLE = (
    "The data set has {modality} input, and no classifier of tables was found in {name!r} ({reason}). For a table pass "
    "--model mlp (trained from scratch), --model identity (the features are latents already), or the folder of a saved "
    "TabularClassifier."
)
NO_DEFAULT = "No model was given and {modality} input has no default. Pass --model: a Hub name or a local directory."
OPEN_CLIP = (
    "{name!r} is a model of open_clip, which reads images, is loaded in full precision and at its newest revision; got "
    "modality={modality!r}, quantization={quantization!r}, revision={revision!r}."
)
NOT_FUSED = (
    "{name!r} is a saved FusedClassifier of {classes} classes, in full precision; got {number} class names and "
    "quantization={given!r}."
)
NOT_FOR_TABLES = "quantization was {given!r}; {name!r} starts from scratch and is not quantised: pass 'none'."

DEFAULT_MODELS = {"image": TINY_CLIP, "features": "mlp"}
_AUTO = {"image": AutoModelForImageClassification, "text": AutoModelForSequenceClassification}
_CLASSES = {"image": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, "text": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING}


def default_model(modality: str) -> str:
    """The model for an input when the user names none: what needs no download.

    Raises:
        InvalidConfigError: texts, for which nothing is embedded.

    Example:
        >>> default_model("features")
        'mlp'
    """
    if modality not in DEFAULT_MODELS:
        raise InvalidConfigError(NO_DEFAULT.format(modality=modality))
    return DEFAULT_MODELS[modality]


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
    subfolder: str = "",
    train_features: Tensor | None = None,
) -> nn.Module:
    """A classifier with `len(label_names)` outputs on the encoder `name`.

    Args:
        name: a Hub name, a local directory, or `"tiny_clip"`; for features also `"mlp"` or `"identity"`, made anew. For
            images also `hf-hub:owner/name`, or a folder with `open_clip_config.json`: a `LatentClassifier` on that
            open_clip model.
        modality: `"image"`, `"text"` or `"features"`: what the data set gives.
        label_names: class names in label order.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run model code from the Hub; off unless asked for.
        quantization: `"none"`, `"4bit"` or `"8bit"` (bitsandbytes; the head stays in full precision).
        subfolder: folder of the model inside `name`.
        train_features: training features `(n, num_features)`, needed for `"mlp"` and `"identity"` only, which
            standardise by them.

    Returns:
        The model, in float32 unless it is quantised.

    Raises:
        ModelNotFoundError: neither a local directory nor to be had from the Hub now.
        InvalidConfigError: the model cannot read this modality, or an unknown quantization.
        InvalidInputError: no such modality, or features that cannot be standardised.

    Example:
        >>> model = load_model("mlp", modality="features", label_names=["no", "yes"], train_features=torch.rand(9, 4))
        >>> model(features=torch.rand(2, 4)).logits.shape
        torch.Size([2, 2])
    """
    check_choice("modality", modality, (*_AUTO, "features"), error=InvalidInputError)
    check_choice("quantization", quantization, ("none", "4bit", "8bit"))
    source = resolve_model(name)
    if subfolder and Path(source).is_dir():
        # transformers looks for an adapter beside the subfolder when the repository is a local one.
        source, subfolder = str(Path(source) / subfolder), ""
    common = {"revision": revision, "trust_remote_code": trust_remote_code, "subfolder": subfolder}
    if modality == "features":
        if quantization != "none":
            raise InvalidConfigError(NOT_FOR_TABLES.format(given=quantization, name=name))
        return _tabular(name, source, label_names, train_features, {"revision": revision, "subfolder": subfolder})
    if name in ENCODERS:
        raise InvalidConfigError(WRONG_KIND.format(name=name, model_type=TabularConfig.model_type, modality=modality))
    if _only_open_clip(source):
        if modality != "image" or quantization != "none" or revision:
            raise InvalidConfigError(
                OPEN_CLIP.format(name=name, modality=modality, quantization=quantization, revision=revision)
            )
        return _open_clip(source, label_names)
    try:
        with expecting_answers():
            config = AutoConfig.from_pretrained(source, **common)
    except (OSError, ValueError) as error:
        raise _not_found("model", name, error) from error
    if isinstance(config, FusedConfig):
        return _fused(name, source, config, label_names, quantization, {"revision": revision, "subfolder": subfolder})
    if type(config) not in _CLASSES[modality] and not trust_remote_code:
        raise InvalidConfigError(WRONG_KIND.format(name=name, model_type=config.model_type, modality=modality))
    config.num_labels = len(label_names)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: i for i, label in enumerate(label_names)}
    extra: dict[str, Any] = {} if quantization == "none" else {"quantization_config": _quantization(quantization)}
    try:
        with expecting_answers():
            model: nn.Module = _AUTO[modality].from_pretrained(
                source, config=config, ignore_mismatched_sizes=True, **common, **extra
            )
    except OSError as error:
        raise _not_found("model", name, error) from error
    # A half-precision checkpoint trains its head and adapter in float32; a quantised base keeps its own types.
    return model if extra else model.to(torch.float32)


def _fused(
    name: str, source: str, config: FusedConfig, label_names: list[str], quantization: str, where: dict[str, Any]
) -> FusedClassifier:
    """A saved classifier of pictures or texts with columns of a table."""
    if quantization != "none" or config.num_labels != len(label_names):
        raise InvalidConfigError(
            NOT_FUSED.format(name=name, classes=config.num_labels, number=len(label_names), given=quantization)
        )
    return FusedClassifier.from_pretrained(source, **where)


def _only_open_clip(source: str) -> bool:
    """open_clip's, and not saved for transformers as well; a `LatentClassifier` saves a config.json of its own."""
    if not is_open_clip(source):
        return False
    saved = Path(source) / "config.json"
    return not saved.is_file() or json.loads(saved.read_text()).get("model_type") == LatentClassifierConfig.model_type


def _open_clip(source: str, label_names: list[str]) -> LatentClassifier:
    model = LatentClassifier.from_pretrained(source, num_labels=len(label_names), library="open_clip")
    model.config.id2label = dict(enumerate(label_names))
    model.config.label2id = {label: i for i, label in enumerate(label_names)}
    return model.to(torch.float32)


def _tabular(
    name: str, source: str, label_names: list[str], train_features: Tensor | None, where: dict[str, Any]
) -> TabularClassifier:
    """A fresh classifier of features, or a saved one."""
    if name in ENCODERS:
        if train_features is None:
            raise InvalidInputError(
                f"{name!r} is made anew for a table: pass train_features=... (n, num_features), or the folder of a "
                "saved one as the name"
            )
        return TabularClassifier.for_features(train_features, label_names, name)
    try:
        with expecting_answers():
            config = AutoConfig.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        raise _not_found("model", name, error) from error
    if not isinstance(config, TabularConfig):
        reason = f"it holds a model of type {config.model_type!r}"
        raise InvalidConfigError(NO_TABLE.format(name=name, modality="features", reason=reason))
    if config.num_labels != len(label_names):
        reason = f"its {config.num_labels} classes are not the data set's {len(label_names)}"
        raise InvalidConfigError(NO_TABLE.format(name=name, modality="features", reason=reason))
    return TabularClassifier.from_pretrained(source, **where)


def load_processor(name: str, *, modality: str, revision: str | None = None) -> Any:
    """What turns inputs into tensors for a model.

    Args:
        name: a Hub name, a local directory, or `"tiny_clip"`.
        modality: `"image"`, `"text"` or `"features"`.
        revision: branch, tag or commit on the Hub.

    Returns:
        The image processor for images, the tokenizer for texts, None for features.

    Raises:
        ModelNotFoundError: neither a local directory nor to be had from the Hub now.

    Example:
        >>> load_processor("mlp", modality="features") is None
        True
    """
    if modality == "features":
        return None
    if modality == "image" and _only_open_clip(resolve_model(name)):
        return open_clip_processor(name)
    loader = AutoImageProcessor if modality == "image" else AutoTokenizer
    try:
        with expecting_answers():
            return loader.from_pretrained(resolve_model(name), revision=revision)
    except (OSError, ValueError) as error:
        raise _not_found("the processor of", name, error) from error


def commit_of(model: Any) -> str | None:
    """Commit on the Hub of a model's files, as transformers noted it; None for one from a folder, or made anew.

    Args:
        model: of transformers, or a classifier of ours around one.

    Example:
        >>> commit_of(torch.nn.Linear(2, 2)) is None
        True
    """
    for owner in (model, getattr(model, "encoder", None)):
        commit = getattr(getattr(owner, "config", None), "_commit_hash", None)
        if isinstance(commit, str):
            return commit
    return None


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
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)

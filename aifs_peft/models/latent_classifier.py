"""`LatentClassifier`: a pooled embedding and a linear classifier, for encoders that have no head of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutput

from aifs_peft._saved import read_object
from aifs_peft.errors import InvalidInputError, ModelNotFoundError
from aifs_peft.models.encoders import (
    TabularEncoder,
    embedding_of,
    embedding_width,
    is_decoder,
    last_token_of,
    library_of,
    load_transformers,
)
from aifs_peft.models.open_clip import is_open_clip, load_open_clip, save_open_clip_config

_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "model.safetensors"


class LatentClassifierConfig:
    """What PEFT, `Trainer` and model cards ask of a model's configuration.

    Args:
        num_labels: number of classes.
        name_or_path: where the encoder comes from.
        library: `"transformers"`, `"open_clip"` or `"torch"`.
        encoder: JSON description of the encoder.
        normalize: whether latents have length one.
    """

    model_type = "aifs_latent_classifier"
    is_encoder_decoder = False
    tie_word_embeddings = False

    def __init__(
        self,
        num_labels: int,
        name_or_path: str | None = None,
        library: str = "torch",
        encoder: dict[str, Any] | None = None,
        normalize: bool = False,
    ) -> None:
        self.normalize = normalize
        self.id2label = {i: f"LABEL_{i}" for i in range(num_labels)}
        self.label2id = {name: i for i, name in self.id2label.items()}
        self._name_or_path = name_or_path or ""
        self.library = library
        self.encoder = encoder or {}

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.id2label)

    @property
    def name_or_path(self) -> str:
        """Where the encoder comes from."""
        return self._name_or_path

    def get(self, name: str, default: Any = None) -> Any:
        """A value by name, as from a dictionary."""
        return getattr(self, name, default)

    def to_dict(self) -> dict[str, Any]:
        """JSON values of this configuration."""
        return {
            "model_type": self.model_type,
            "_name_or_path": self._name_or_path,
            "library": self.library,
            "encoder": self.encoder,
            "normalize": self.normalize,
            "id2label": {str(i): name for i, name in self.id2label.items()},
            "tie_word_embeddings": False,
        }

    def to_json_string(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)


class LatentClassifier(nn.Module):
    """Any encoder, its pooled embedding, and a linear classifier that AIFS can wrap.

    The embedding is the projected one where the encoder has it (CLIP, SigLIP, open_clip), else the pooled output,
    else the first token, or of a decoder the last one that is no padding. `AutoModelForImageClassification` of a CLIP
    reads the mean of the patch tokens before the projection instead; use this class for CLIP's image embedding.

    Args:
        encoder: a transformers model, an open_clip model, or any module that maps a batch to `(batch, dim)`.
        num_labels: number of classes.
        dim: width of the embedding; None reads it off the encoder, or tries it on one image of zeros.
        name_or_path: where the encoder comes from, kept in the adapter's configuration.
        normalize: whether embeddings are scaled to length one, as CLIP compares them with texts.

    Raises:
        HeadError: if the width cannot be found.

    Example:
        >>> model = LatentClassifier(TabularEncoder(3, 8), num_labels=2)
        >>> model(features=torch.zeros(4, 3)).logits.shape
        torch.Size([4, 2])
    """

    main_input_name = "pixel_values"
    base_model_prefix = ""  # so that transformers converts old key names of the encoder under their full path
    is_gradient_checkpointing = False
    # The loss is a batch mean: gradient accumulation must divide it.
    accepts_loss_kwargs = False

    def __init__(
        self,
        encoder: nn.Module,
        num_labels: int = 2,
        dim: int | None = None,
        name_or_path: str | None = None,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        library = library_of(encoder)
        if isinstance(encoder, TabularEncoder):
            described: dict[str, Any] = {"num_features": encoder.num_features, "dim": encoder.dim}
        else:
            config = getattr(encoder, "config", None)
            described = {"class": type(encoder).__name__, "model_type": getattr(config, "model_type", None)}
        if name_or_path is None:
            name_or_path = getattr(encoder, "name_or_path", None) or None
        self.name_or_path = name_or_path
        self.config = LatentClassifierConfig(num_labels, name_or_path, library, described, normalize)
        self.num_labels = num_labels
        self.classifier = nn.Linear(dim or embedding_width(encoder), num_labels)
        reference = next(encoder.parameters(), None)
        if reference is not None and reference.is_floating_point():
            self.classifier.to(reference.device, reference.dtype)

    @property
    def device(self) -> torch.device:
        """Device of the classifier."""
        return self.classifier.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the classifier."""
        return self.classifier.weight.dtype

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings `(batch, dim)` of a batch: `pixel_values`, `input_ids` and `attention_mask`, or `features`.

        Raises:
            InvalidInputError: if the batch holds none of them.
        """
        embedded = self._embedding(inputs)
        return F.normalize(embedded, dim=-1) if self.config.normalize else embedded

    def _embedding(self, inputs: Mapping[str, Tensor]) -> Tensor:
        encoder: Any = self.encoder
        if "features" in inputs:
            return embedding_of(encoder(inputs["features"]), encoder)
        if "pixel_values" not in inputs and "input_ids" not in inputs:
            raise InvalidInputError("the batch needs pixel_values, input_ids or features; it has none of them.")
        if self.config.library == "open_clip":
            return embedding_of(encoder.encode_image(inputs["pixel_values"]), encoder)
        if "pixel_values" in inputs and hasattr(encoder, "get_image_features"):
            return embedding_of(encoder.get_image_features(pixel_values=inputs["pixel_values"]), encoder)
        if self.config.library == "transformers":
            out = encoder(**inputs)
            if "input_ids" in inputs and is_decoder(encoder):
                return last_token_of(out.last_hidden_state, inputs.get("attention_mask"))
            return embedding_of(out, encoder)
        return embedding_of(encoder(next(iter(inputs.values()))), encoder)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ImageClassifierOutput:
        """Logits, and with labels their mean cross-entropy.

        Args:
            pixel_values: images, `(batch, channels, height, width)`.
            input_ids: tokens, `(batch, tokens)`.
            attention_mask: `(batch, tokens)`, 1 for real tokens.
            features: feature vectors, `(batch, num_features)`.
            labels: classes, `(batch,)` int64.

        Returns:
            An output with `logits (batch, classes)` and `loss`.
        """
        given = {
            "pixel_values": pixel_values,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "features": features,
        }
        logits = self.classifier(self.embed({k: v for k, v in given.items() if v is not None}))
        loss = F.cross_entropy(logits.float(), labels) if labels is not None else None
        return ImageClassifierOutput(loss=loss, logits=logits)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write configuration and weights, encoder included. Encoders of transformers also write their own folder.

        Args:
            save_directory: a folder, made if needed.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.library == "transformers":
            self.encoder.save_pretrained(str(folder / "encoder"))  # type: ignore[operator, unused-ignore]
            tensors = {f"classifier.{k}": v for k, v in self.classifier.state_dict().items()}
        else:
            tensors = {k: v.clone() for k, v in self.state_dict().items()}
        if "open_clip" in self.config.encoder:
            save_open_clip_config(self.encoder, self.config.encoder["open_clip"], folder)
        (folder / _CONFIG_FILE).write_text(self.config.to_json_string())
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / _WEIGHTS_FILE, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        num_labels: int | None = None,
        revision: str | None = None,
        library: str | None = None,
        **kwargs: Any,
    ) -> LatentClassifier:
        """Load an encoder, or a folder written by `save_pretrained`.

        Args:
            name_or_path: a Hub id or folder of transformers or open_clip (`hf-hub:owner/name`, or an architecture
                name with `library="open_clip"`).
            num_labels: number of classes; None takes the saved number, or 2.
            revision: version on the Hub.
            library: `"transformers"` or `"open_clip"`; None looks.
            **kwargs: passed on to the encoder's loader (`dtype`, `quantization_config`, `pretrained`, ...).

        Returns:
            The model, in evaluation mode as its encoder is.

        Raises:
            ModelNotFoundError: if there is no such model.
            MissingDependencyError: if open_clip is needed and cannot be imported.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> with TemporaryDirectory() as folder:
            ...     LatentClassifier(TabularEncoder(3, 8), num_labels=5).save_pretrained(folder)
            ...     LatentClassifier.from_pretrained(folder).num_labels
            5
        """
        name, folder = str(name_or_path), Path(name_or_path)
        own = folder / _CONFIG_FILE
        if own.is_file():
            saved = read_object(own)
            if saved.get("model_type") == LatentClassifierConfig.model_type:
                return cls._from_own(folder, saved, num_labels, kwargs)
        if library == "open_clip" or (library is None and is_open_clip(name)):
            encoder, made_from = load_open_clip(name, folder, kwargs)
            model = cls(encoder, num_labels or 2, name_or_path=name)
            model.config.encoder["open_clip"] = made_from
            return model
        encoder = load_transformers(name, revision, kwargs)
        return cls(encoder, num_labels or 2, name_or_path=name)

    @classmethod
    def _from_own(
        cls, folder: Path, saved: dict[str, Any], num_labels: int | None, kwargs: dict[str, Any]
    ) -> LatentClassifier:
        names = {int(i): name for i, name in saved["id2label"].items()}
        weights = load_file(folder / _WEIGHTS_FILE)
        if saved["library"] == "transformers":
            encoder = load_transformers(str(folder / "encoder"), None, kwargs)
        elif "open_clip" in saved["encoder"]:
            options = {**saved["encoder"]["open_clip"]["options"], **kwargs}
            # The weights of this folder come afterwards; towers pretrained elsewhere would be downloaded for nothing.
            untrained = {"load_weights": False, "pretrained_text": False}
            encoder, _ = load_open_clip(str(folder), folder, {**untrained, **options})
        elif set(saved["encoder"]) == {"num_features", "dim"}:
            encoder = TabularEncoder(**saved["encoder"])
        else:
            raise ModelNotFoundError(
                f"{folder} holds weights of a {saved['encoder'].get('class')}, which cannot be rebuilt from JSON; "
                "build the encoder, wrap it in LatentClassifier and load model.safetensors into it."
            )
        made: dict[str, Any] = {"name_or_path": str(folder), "normalize": bool(saved.get("normalize", False))}
        model = cls(encoder, len(names), dim=weights["classifier.weight"].shape[1], **made)
        if "classifier.bias" not in weights:  # a head of texts
            model.classifier.register_parameter("bias", None)
        model.config.encoder = dict(saved["encoder"])
        keep = num_labels in (None, len(names))
        tensors = {k: v for k, v in weights.items() if keep or not k.startswith("classifier.")}
        missing = model.load_state_dict(tensors, strict=False).missing_keys
        if saved["library"] != "transformers" and any(name.startswith("encoder.") for name in missing):
            raise ModelNotFoundError(
                f"{folder / _WEIGHTS_FILE} lacks weights of the encoder: {', '.join(missing[:5])}."
            )
        if keep:
            model.config.id2label = names
            model.config.label2id = {label: i for i, label in names.items()}
            return model
        other = cls(model.encoder, num_labels or 2, **made)
        other.config.encoder = dict(saved["encoder"])
        return other

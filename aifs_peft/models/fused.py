"""`FusedClassifier`: a picture or a text together with columns of a table, as one `PreTrainedModel` (late fusion).

Each kind of input has an encoder of its own. Their latents are scaled to the same variance and stand side by side, so
that a site or a device that only the table knows weighs as much as what the picture shows: left as they are, the few
columns of a table would drown in hundreds of an image's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.latent.blocks import ScaledBlocks
from aifs_peft.models.encoders import (
    TabularEncoder,
    embedding_of,
    embedding_width,
    encoder_class,
    is_decoder,
    last_token_of,
    load_transformers,
)
from aifs_peft.models.tabular import Standardise, check_tabular

NOT_FITTED_HERE = (
    "examples must hold features (n, num_features) and pixel_values or input_ids of the same n training examples, at "
    "least 2; got {got}."
)


class FusedConfig(PretrainedConfig):
    """Configuration of a `FusedClassifier`.

    Args:
        encoder: configuration of the encoder of pictures or texts, as a dictionary with its `model_type`.
        num_features: columns of the table, at least 1.
        tabular: `"identity"` (the standardised columns are their latents) or `"mlp"`, which starts at random and is
            meant to be trained.
        hidden_size: width of the latents of `"mlp"`; that of `"identity"` is `num_features`.
        widths: of the two latents; filled in by the model.
        **kwargs: as for any configuration (`num_labels`, `id2label`, ...).

    Raises:
        InvalidConfigError: an unknown kind of tabular encoder, a width below 1, or an encoder that is not described.

    Example:
        >>> from transformers import ViTConfig
        >>> FusedConfig(ViTConfig(hidden_size=8).to_dict(), num_features=3).tabular
        'identity'
    """

    model_type = "aifs_fused"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        num_features: int = 1,
        tabular: str = "identity",
        hidden_size: int = 64,
        widths: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        check_tabular(num_features, tabular, hidden_size)
        if encoder is not None and not isinstance(encoder.get("model_type"), str):
            raise InvalidConfigError("encoder must be a configuration's dictionary with its model_type.")
        self.encoder = encoder or {}
        self.num_features = num_features
        self.tabular = tabular
        self.hidden_size = num_features if tabular == "identity" else hidden_size
        self.widths = widths
        super().__init__(**kwargs)


class FusedClassifier(PreTrainedModel):
    """An encoder of pictures or texts, columns of a table, and a linear head on both latents.

    Args:
        config: of both encoders.
        encoder: weights for the first; None draws them at random, or leaves them to `from_pretrained`.

    Raises:
        InvalidConfigError: for an encoder of a kind that transformers does not know.

    Example:
        >>> from transformers import ViTConfig
        >>> vit = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        ...                 image_size=8, patch_size=8)
        >>> model = FusedClassifier(FusedConfig(vit.to_dict(), num_features=3, num_labels=2))
        >>> model(pixel_values=torch.zeros(4, 3, 8, 8), features=torch.zeros(4, 3)).logits.shape
        torch.Size([4, 2])
    """

    config_class = FusedConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    # The loss is a batch mean: gradient accumulation must divide it.
    accepts_loss_kwargs = False

    def __init__(self, config: FusedConfig, encoder: nn.Module | None = None) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        if encoder is None:
            described = dict(config.encoder)
            kind_of_model = described.pop("model_type", None)
            if kind_of_model not in CONFIG_MAPPING:
                raise InvalidConfigError(
                    f"encoder must be a configuration of transformers; its model_type is {kind_of_model!r}. Build the "
                    "model with FusedClassifier.for_examples, or load a saved one."
                )
            made_of = AutoConfig.for_model(kind_of_model, **described)
            kind = encoder_class(made_of)
            encoder = (kind.from_config if kind is AutoModel else kind._from_config)(made_of)
        self.encoder = encoder
        n, identity = config.num_features, config.tabular == "identity"
        self.tabular = Standardise(n) if identity else TabularEncoder(n, config.hidden_size)
        if config.widths is None:
            config.widths = [embedding_width(encoder), config.hidden_size]
        self.blocks = ScaledBlocks(config.widths)
        self.classifier = nn.Linear(self.blocks.dim, self.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ScaledBlocks):
            init.zeros_(module.mean)
            init.ones_(module.scale)
            init.zeros_(module.examples)
        elif isinstance(module, Standardise | TabularEncoder):
            init.zeros_(module.mean)
            init.ones_(module.std)
        elif isinstance(module, nn.Linear) and not any(module is inner for inner in self.encoder.modules()):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def for_examples(
        cls,
        encoder: str | PreTrainedModel,
        examples: Mapping[str, Tensor],
        label_names: list[str],
        tabular: str = "identity",
        *,
        revision: str | None = None,
        **kwargs: Any,
    ) -> FusedClassifier:
        """A model on a pretrained encoder, scaled by training examples; only its head and `"mlp"` are new.

        Args:
            encoder: its name or folder, or the model itself. Of a CLIP, the image tower with its projection.
            examples: `features (n, num_features)` with `pixel_values`, or `input_ids` and `attention_mask`, of training
                examples: means and scales are theirs, so some hundred are enough.
            label_names: class names in label order.
            tabular: `"identity"` or `"mlp"`, see `FusedConfig`.
            revision: version of the encoder on the Hub.
            **kwargs: of `FusedConfig`.

        Returns:
            The model; its new weights are drawn from torch's global generator.

        Raises:
            InvalidInputError: examples that are too few, not finite, or lack an input.
            InvalidConfigError: as `FusedConfig`.
            ModelNotFoundError: if there is no such encoder.

        Example:
            >>> from transformers import ViTConfig, ViTModel
            >>> vit = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8,
            ...                          patch_size=8))
            >>> examples = {"pixel_values": torch.randn(9, 3, 8, 8), "features": torch.rand(9, 2)}
            >>> model = FusedClassifier.for_examples(vit, examples, ["benign", "malignant"])
            >>> model.blocks.widths, model.blocks.fitted
            ([8, 2], True)
        """
        features = examples.get("features")
        others = [name for name in ("pixel_values", "input_ids") if name in examples]
        if features is None or features.dim() != 2 or len(features) < 2 or not others:
            raise InvalidInputError(NOT_FITTED_HERE.format(got={k: tuple(v.shape) for k, v in examples.items()}))
        if len(examples[others[0]]) != len(features) or not bool(torch.isfinite(features).all()):
            raise InvalidInputError(
                f"features must be finite, and as many as {others[0]}: {len(examples[others[0]])}; got "
                f"{len(features)}. Fill in missing values first."
            )
        loaded = load_transformers(encoder, revision, {}) if isinstance(encoder, str) else encoder
        names = dict(enumerate(label_names))
        label_ids = {name: i for i, name in names.items()}
        made_of = getattr(loaded, "config").to_dict()  # noqa: B009 - any encoder of transformers has one
        config = FusedConfig(
            made_of, features.shape[1], tabular, num_labels=len(names), id2label=names, label2id=label_ids, **kwargs
        )
        model: FusedClassifier = cls(config, encoder=loaded)
        model.eval()
        mean, std = features.double().mean(0), features.double().std(0, correction=0)
        with torch.no_grad():
            model.tabular.mean.copy_(mean)
            # A constant column carries nothing and stays constant.
            model.tabular.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))
            parts = [
                torch.cat(model.latents({name: value[start : start + 64] for name, value in examples.items()}), 1)
                for start in range(0, len(features), 64)
            ]
        model.blocks.fit(torch.cat(parts))
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Those of the encoder of pictures or texts."""
        found: nn.Module = self.encoder.get_input_embeddings()  # type: ignore[operator, unused-ignore]
        return found

    def latents(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The latents of the two kinds of input, `(batch, width)` each, not scaled.

        Args:
            inputs: `features`, and `pixel_values` or `input_ids` and `attention_mask`.

        Raises:
            InvalidInputError: if one kind is missing, or the table has another number of columns.
        """
        features = inputs.get("features")
        rest = {name: value for name, value in inputs.items() if name != "features"}
        if features is None or not rest:
            raise InvalidInputError(
                f"the batch needs features, and pixel_values or input_ids; it has {sorted(inputs) or 'nothing'}."
            )
        if features.dim() != 2 or features.shape[1] != self.config.num_features:
            raise InvalidInputError(
                f"features have shape {tuple(features.shape)}; this model needs (batch, {self.config.num_features}): "
                "the columns it was made for, in their order."
            )
        out = self.encoder(**rest)
        if "input_ids" in rest and is_decoder(self.encoder):
            embedding = last_token_of(out.last_hidden_state, rest.get("attention_mask"))
        else:
            embedding = embedding_of(out, self.encoder)
        return embedding, self.tabular(features.to(self.dtype))

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits, and with labels their mean cross-entropy.

        Args:
            pixel_values: images, `(batch, channels, height, width)`.
            input_ids: tokens, `(batch, tokens)`.
            attention_mask: `(batch, tokens)`, 1 for real tokens.
            features: columns of the table, `(batch, num_features)`, floating point.
            labels: classes, `(batch,)` int64.

        Returns:
            An output with `logits (batch, classes)` and `loss`.

        Raises:
            InvalidInputError: as `latents`.
        """
        given = {
            "pixel_values": pixel_values,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "features": features,
        }
        z = self.blocks(self.latents({name: value for name, value in given.items() if value is not None}))
        logits = self.classifier(z.to(self.dtype))
        loss = F.cross_entropy(logits.float(), labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(FusedConfig.model_type, FusedConfig, exist_ok=True)
AutoModel.register(FusedConfig, FusedClassifier, exist_ok=True)

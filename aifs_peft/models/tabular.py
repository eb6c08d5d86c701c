"""`TabularClassifier`: a classifier of feature vectors as a `PreTrainedModel`, for the Trainer, PEFT and the Hub.

A table has no pretrained encoder. `mlp` starts at random and is meant to be trained, whole or by LoRA; `identity` takes
features that an encoder has made already (latents), so that only the head is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from aifs_peft._checks import check_choice
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.models.encoders import TabularEncoder

ENCODERS = ("mlp", "identity")


def check_tabular(num_features: int, encoder: str, hidden_size: int) -> None:
    """Refuse sizes and kinds of an encoder of feature vectors.

    Args:
        num_features: width of the input.
        encoder: its kind.
        hidden_size: width of its latents.

    Raises:
        InvalidConfigError: an unknown encoder, or a width below 1.
    """
    check_choice("encoder", encoder, ENCODERS)
    if num_features < 1 or hidden_size < 1:
        raise InvalidConfigError(
            f"num_features and hidden_size must be at least 1; got {num_features} and {hidden_size}."
        )


class TabularConfig(PretrainedConfig):
    """Configuration of a `TabularClassifier`.

    Args:
        num_features: width of the input, at least 1.
        encoder: `"mlp"` (two layers with tanh) or `"identity"` (the standardised features are the latents).
        hidden_size: width of the latents of `"mlp"`; that of `"identity"` is `num_features`.
        **kwargs: as for any configuration (`num_labels`, `id2label`, ...).

    Raises:
        InvalidConfigError: an unknown encoder, or a width below 1.

    Example:
        >>> TabularConfig(num_features=10, num_labels=2).hidden_size
        64
    """

    model_type = "aifs_tabular"

    def __init__(self, num_features: int = 1, encoder: str = "mlp", hidden_size: int = 64, **kwargs: Any) -> None:
        check_tabular(num_features, encoder, hidden_size)
        self.num_features = num_features
        self.encoder = encoder
        self.hidden_size = num_features if encoder == "identity" else hidden_size
        super().__init__(**kwargs)


class Standardise(nn.Module):
    """Features minus `mean`, divided by `std`; both are saved with the model.

    Args:
        num_features: width of the input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, num_features)` in, the same shape out."""
        return (features - self.mean) / self.std


class TabularClassifier(PreTrainedModel):
    """Standardised features, an encoder and a linear head.

    Args:
        config: sizes and encoder.

    Example:
        >>> model = TabularClassifier(TabularConfig(num_features=3, hidden_size=8, num_labels=2))
        >>> model(features=torch.zeros(4, 3)).logits.shape
        torch.Size([4, 2])
    """

    config_class = TabularConfig
    base_model_prefix = "encoder"
    main_input_name = "features"
    # The loss is a batch mean: gradient accumulation must divide it.
    accepts_loss_kwargs = False

    def __init__(self, config: TabularConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        n, identity = config.num_features, config.encoder == "identity"
        self.encoder = Standardise(n) if identity else TabularEncoder(n, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Upstream's 0.02 suits deep transformers; two tanh layers would hardly pass a signal on. These functions leave
        # alone what was loaded from a file.
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Standardise | TabularEncoder):
            init.zeros_(module.mean)
            init.ones_(module.std)

    @classmethod
    def for_features(
        cls, features: Tensor, label_names: list[str], encoder: str = "mlp", **kwargs: Any
    ) -> TabularClassifier:
        """A fresh model for training features: it standardises by their mean and standard deviation.

        Args:
            features: training features, `(n, num_features)`, finite.
            label_names: class names in label order.
            encoder: `"mlp"` or `"identity"`.
            **kwargs: of `TabularConfig`.

        Returns:
            The model; its weights are drawn from torch's global generator.

        Raises:
            InvalidInputError: features of another shape, without rows, or not finite.
            InvalidConfigError: as `TabularConfig`.

        Example:
            >>> model = TabularClassifier.for_features(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), ["no", "yes"])
            >>> model.encoder.mean.tolist(), model.encoder.std.tolist()
            ([2.0, 5.0], [1.0, 1.0])
        """
        if features.dim() != 2 or not len(features) or not torch.isfinite(features).all():
            raise InvalidInputError(
                f"features must be finite, of shape (n, num_features) with at least one row; got shape "
                f"{tuple(features.shape)}. Fill in missing values first."
            )
        names = dict(enumerate(label_names))
        config = TabularConfig(
            features.shape[1], encoder, num_labels=len(names), id2label=names,
            label2id={name: i for i, name in names.items()}, **kwargs,
        )  # fmt: skip
        model = cls(config)
        mean, std = features.double().mean(0), features.double().std(0, correction=0)
        with torch.no_grad():
            model.encoder.mean.copy_(mean)
            # A constant column carries nothing and stays constant.
            model.encoder.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))
        return model

    def forward(self, features: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Logits, and with labels their mean cross-entropy.

        Args:
            features: `(batch, num_features)`, floating point.
            labels: classes, `(batch,)` int64.

        Returns:
            An output with `logits (batch, classes)` and `loss`.

        Raises:
            InvalidInputError: features of another width.

        Example:
            >>> model = TabularClassifier(TabularConfig(num_features=3, hidden_size=8, num_labels=2))
            >>> model(torch.zeros(4, 3), labels=torch.tensor([0, 1, 0, 1])).loss.shape
            torch.Size([])
        """
        if features.dim() != 2 or features.shape[1] != self.config.num_features:
            raise InvalidInputError(
                f"features have shape {tuple(features.shape)}; this model needs (batch, {self.config.num_features}): "
                "the columns it was made for, in their order."
            )
        logits = self.classifier(self.encoder(features.to(self.classifier.weight.dtype)))
        loss = F.cross_entropy(logits.float(), labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(TabularConfig.model_type, TabularConfig, exist_ok=True)
AutoModel.register(TabularConfig, TabularClassifier, exist_ok=True)

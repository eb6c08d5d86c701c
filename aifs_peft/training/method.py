"""From a model and arguments to a training method, and what stays still while it trains."""

from __future__ import annotations

import json

import torch
from peft import PeftModel
from torch import Tensor, nn

from aifs_peft._checks import parse_json_object
from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.methods import Method, MethodSettings, get
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig, AIFSLayer, find_aifs_layer

# The adapter's recipe -> the method that trains it.
RECIPES = {"discovery": "aifs", "paper": "aifs-paper", "erm": "erm"}


def require_adapter(model: nn.Module) -> AIFSLayer:
    """The AIFS layer of a PEFT model.

    Raises:
        HeadError: if it has none.
    """
    if not isinstance(model, PeftModel):
        raise HeadError(
            f"AIFSTrainer trains an adapter, got a bare {type(model).__name__}; wrap it: "
            "get_peft_model(model, AIFSConfig())"
        )
    return find_aifs_layer(model)


def build_method(model: PeftModel, layer: AIFSLayer, args: AIFSTrainingArguments) -> Method:
    """The method that the arguments or the adapter's recipe name, with its settings.

    Raises:
        InvalidConfigError: for an unknown method or settings it cannot work with.
    """
    config = model.peft_config[layer.adapter]
    if not isinstance(config, AIFSConfig):
        raise InvalidConfigError(
            f"adapter {layer.adapter!r} is a {type(config).__name__}; make it with get_peft_model(model, AIFSConfig())"
        )
    settings = MethodSettings.from_config(
        config,
        alpha=args.alpha,
        beta=args.beta,
        lambda_=args.lambda_,
        class_weights=parse_class_weights(args.class_weights),
        label_smoothing=args.label_smoothing_factor,
        directions=args.directions,
        seed=args.seed,
        discovery=parse_json_object("discovery_options", args.discovery_options),
        balance_groups=args.balance_groups,
        max_repeats=args.max_repeats,
        method_options=parse_json_object("method_options", args.method_options),
    )
    return get(args.method or RECIPES[config.recipe])(settings)


def parse_class_weights(given: list[float] | str | None) -> list[float] | str | None:
    """Class weights given as a list, as "probability" or, on the command line, as a JSON list.

    Raises:
        InvalidConfigError: for anything else.

    Example:
        >>> parse_class_weights("[1.0, 2.0]"), parse_class_weights("probability")
        ([1.0, 2.0], 'probability')
    """
    if given is None or given == "probability":
        return given
    try:
        values = json.loads(given) if isinstance(given, str) else list(given)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
        raise InvalidConfigError(
            f"class_weights must be one number per class, such as [1.0, 2.0], or 'probability'; got {given!r}"
        )
    return [float(value) for value in values]


class SequenceHead(nn.Module):
    """A head that wants a token axis, on latents `(batch, dim)`.

    Args:
        head: maps `(batch, 1, dim)` to `(batch, classes)`.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, z: Tensor) -> Tensor:
        """Logits `(batch, classes)`."""
        logits: Tensor = self.head(z.unsqueeze(1))
        return logits


def head_on_latents(layer: AIFSLayer) -> nn.Module:
    """The trained head as a module on latents; a plain `nn.Linear` stays one, for its closed forms."""
    return SequenceHead(layer.head) if layer.aifs_spec[layer.adapter].sequence else layer.head


def give_own_group(optimizer: torch.optim.Optimizer, module: nn.Module, learning_rate: float) -> None:
    """Move a module's parameters to a parameter group of their own, without weight decay.

    Args:
        optimizer: that holds them, before any step.
        module: whose parameters.
        learning_rate: of the new group.
    """
    moved = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in moved]
    optimizer.add_param_group({"params": list(module.parameters()), "lr": learning_rate, "weight_decay": 0.0})


def gives_tokens(model: nn.Module) -> bool:
    """Whether the encoder is one of transformers', whose output can hold its hidden states."""
    config = getattr(model, "config", None)
    depth = [getattr(part, "num_hidden_layers", None) for part in (config, getattr(config, "vision_config", None))]
    return hasattr(config, "output_hidden_states") and any(value is not None for value in depth)

"""From an adapter and arguments to the method that trains it."""

from __future__ import annotations

import json
from typing import Any

from peft import PeftModel

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import Method, MethodSettings, get
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig, AIFSLayer

# The adapter's recipe -> the method that trains it.
RECIPES = {"discovery": "aifs", "paper": "aifs-paper", "erm": "erm"}
# Method -> the recipes whose numbers (noise, mask, sign of the sensitivity term) it works with; all others read none.
_READS = {"aifs": ("discovery", "erm"), "aifs-paper": ("paper",)}


def build_method(model: PeftModel, layer: AIFSLayer, name: str | None = None, **settings: Any) -> Method:
    """The method that is named, or that belongs to the adapter's recipe, with its settings.

    Args:
        model: with the adapter.
        layer: its AIFS layer.
        name: of a method; None takes the recipe's.
        **settings: fields of `MethodSettings` that replace the adapter's configuration; None leaves it.

    Raises:
        InvalidConfigError: for an unknown method, settings it cannot work with, or an adapter of another recipe.
    """
    config = model.peft_config[layer.adapter]
    if not isinstance(config, AIFSConfig):
        raise InvalidConfigError(
            f"adapter {layer.adapter!r} is a {type(config).__name__}; make it with get_peft_model(model, AIFSConfig())"
        )
    method = get(name or RECIPES[config.recipe])
    reads = _READS.get(method.name)
    if reads is not None and config.recipe not in reads:
        raise InvalidConfigError(
            f'method {method.name!r} trains by the numbers of recipe "{reads[0]}", and the adapter has those of recipe '
            f'"{config.recipe}" (noise {config.noise!r}, mask_rule {config.mask_rule!r}, sensitivity_sign '
            f"{config.sensitivity_sign}): the mixture is neither. Build the adapter with "
            f'AIFSConfig(recipe="{reads[0]}"), or train it with method {RECIPES[config.recipe]!r}'
        )
    return method(MethodSettings.from_config(config, **settings))


def method_of(model: PeftModel, layer: AIFSLayer, args: AIFSTrainingArguments) -> Method:
    """The method that training arguments name, or that belongs to the adapter's recipe, with their settings.

    Args:
        model: with the adapter.
        layer: its AIFS layer.
        args: of the trainer.

    Raises:
        InvalidConfigError: see `build_method`.
    """
    return build_method(
        model, layer, args.method, alpha=args.alpha, beta=args.beta, lambda_=args.lambda_,
        label_smoothing=args.label_smoothing_factor, directions=args.directions, seed=args.seed,
        discovery=parse_options(args.discovery_options), balance_groups=args.balance_groups,
        max_repeats=args.max_repeats, method_options=parse_options(args.method_options),
    )  # fmt: skip


def parse_options(options: dict[str, Any] | str | None) -> dict[str, Any]:
    """Options given as a dictionary or, on the command line, as a JSON object.

    Args:
        options: of either kind; None is none.

    Raises:
        InvalidConfigError: for text that is no JSON object.

    Example:
        >>> parse_options('{"eta": 0.1}')
        {'eta': 0.1}
    """
    if not isinstance(options, str):
        return dict(options or {})
    try:
        parsed = json.loads(options)
    except json.JSONDecodeError as error:
        raise InvalidConfigError(
            f"options must be a JSON object such as '{{\"eta\": 0.1}}'; got {options!r}"
        ) from error
    if not isinstance(parsed, dict):
        raise InvalidConfigError(f"options must be a JSON object such as '{{\"eta\": 0.1}}'; got {options!r}")
    return parsed

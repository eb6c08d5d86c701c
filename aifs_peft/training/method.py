"""From an adapter and arguments to the method that trains it."""

from __future__ import annotations

import json
from typing import Any

from peft import PeftModel

from aifs_peft._checks import parse_json_object
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent.recipes import RECIPES
from aifs_peft.methods import Method, MethodSettings, get
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig, AIFSLayer

# The adapter's recipe -> the method that trains it.
METHOD_OF_RECIPE = {"discovery": "aifs", "paper": "aifs-paper", "erm": "erm"}


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
    method = get(name or METHOD_OF_RECIPE[config.recipe])
    _refuse_mixture(method, config)
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
        model,
        layer,
        args.method,
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


def _refuse_mixture(method: type[Method], config: AIFSConfig) -> None:
    """Refuse the numbers of one recipe under the method of another; methods of recipe "erm" read none of them."""
    if method.recipe == "erm" or RECIPES[method.recipe] == RECIPES[config.recipe]:
        return
    raise InvalidConfigError(
        f'method {method.name!r} trains by the numbers of recipe "{method.recipe}", and the adapter has those of '
        f'recipe "{config.recipe}" (noise {config.noise!r}, mask_rule {config.mask_rule!r}, sensitivity_sign '
        f"{config.sensitivity_sign}): the mixture is neither. Build the adapter with "
        f'AIFSConfig(recipe="{method.recipe}"), or train it with method {METHOD_OF_RECIPE[config.recipe]!r}'
    )


def parse_class_weights(given: list[float] | str | None) -> list[float] | str | None:
    """Class weights given as a list, as "probability" or, on the command line, as a JSON list.

    Args:
        given: of any of these kinds.

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
    except (ValueError, RecursionError, TypeError):
        values = None
    if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
        raise InvalidConfigError(
            f"class_weights must be one number per class, such as [1.0, 2.0], or 'probability'; got {given!r}"
        )
    return [float(value) for value in values]

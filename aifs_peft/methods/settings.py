"""The numbers a method works with: those that several methods share, and each method's own."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from aifs_peft._checks import check_choice, check_names, check_number
from aifs_peft.latent.recipes import RECIPES

T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """Of a method that has no numbers of its own."""


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """The numbers a method works with: the adapter's configuration, with the training arguments on top.

    Made by `for_method` (a method's default numbers) or `from_config` (those of an adapter). The numbers that the
    recipes of `AIFSConfig` set have no default here, so that there is one source of them.

    Attributes:
        alpha: weight of the invariance term, at least 0.
        beta: weight of the sensitivity term, at least 0.
        lambda_: strength of the intervention, finite.
        noise: "gaussian", "l1", "l2" or "counterfactual".
        adversarial: ascend on the divergence instead of drawing the noise at random.
        mask_rule: see `aifs_peft.latent.mask_from_attribution`, as are the next three.
        mask_scale: "sum", "max" or "mean".
        gamma: sharpness of the mask.
        eps0: floor of the attribution.
        sensitivity_sign: -1 (published formula: reward reliance) or +1 (published text: penalise it).
        attribution: "gradient_x_input" (published formula), "ig" (published name), "smoothgrad" or "lrp".
        attribution_steps: quadrature steps of integrated gradients, or draws of noise of SmoothGrad.
        top_k: classes whose attributions are added up; None for all.
        class_weights: weights of these classes, one number per class; "probability" for each example's own
            probabilities, None for equal weights.
        ema_decay: weight of the previous scores in the running mean, in [0, 1).
        label_smoothing: in [0, 1), for the cross-entropy of training.
        directions: what happens to the discovered directions at an epoch's end when the encoder is trained:
            "refit" (from the groups found first), "rediscover" (one more pass of the encoder) or "keep".
        seed: of discovery and of every private draw.
        discovery: keyword arguments for `aifs_peft.discovery.discover`.
        balance_groups: balance batches over the cells that a method names.
        max_repeats: no example is drawn more often than this per epoch on average, however small its cell.
        method_options: the method's own numbers, keyword arguments of its `Options`.
    """

    alpha: float
    beta: float
    lambda_: float
    noise: str
    adversarial: bool
    mask_rule: str
    mask_scale: str
    gamma: float
    eps0: float
    sensitivity_sign: int
    attribution: str
    attribution_steps: int
    top_k: int | None
    class_weights: list[float] | str | None
    ema_decay: float
    label_smoothing: float = 0.0
    directions: str = "refit"
    seed: int = 0
    discovery: dict[str, Any] = field(default_factory=dict)
    balance_groups: bool = True
    max_repeats: float = 20.0
    method_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def for_method(cls, name: str, **changes: Any) -> MethodSettings:
        """The default numbers of a method: those of the adapter's recipe that it names.

        Args:
            name: one of `aifs_peft.methods.names()`.
            **changes: fields of this class; None means "the default".

        Returns:
            The settings.

        Raises:
            InvalidConfigError: for an unknown method or field, or a value out of range.

        Example:
            >>> MethodSettings.for_method("aifs").noise, MethodSettings.for_method("aifs-paper").noise
            ('counterfactual', 'gaussian')
        """
        from aifs_peft.methods.registry import get

        return cls.from_config(RECIPES[get(name).recipe], **changes)

    @classmethod
    def from_config(cls, config: object, **changes: Any) -> MethodSettings:
        """The numbers of an adapter's configuration, and these instead of some of them.

        Args:
            config: an `AIFSConfig` or a `Recipe`.
            **changes: fields of this class; None means "the configuration's".

        Returns:
            The settings.

        Raises:
            InvalidConfigError: for an unknown field (with the closest one), or a value out of range.

        Example:
            >>> from aifs_peft.tuner import AIFSConfig
            >>> MethodSettings.from_config(AIFSConfig(beta=2.0), alpha=0.25, lambda_=None).beta
            2.0
        """
        known = [f.name for f in fields(cls)]
        check_names(changes, known, "MethodSettings has no field")
        values = {name: getattr(config, name) for name in known if hasattr(config, name)}
        values |= {name: value for name, value in changes.items() if value is not None}
        settings = cls(**values)
        for name in ("alpha", "beta"):
            check_number(name, getattr(settings, name), 0)
        check_choice("directions", settings.directions, ("refit", "rediscover", "keep"))
        return settings


def read_options(options: type[T], values: dict[str, Any], method: str) -> T:
    """Make a method's `Options` of keyword arguments.

    Args:
        options: frozen dataclass; its `__post_init__` checks ranges.
        values: by field name.
        method: for the message.

    Raises:
        InvalidConfigError: for a name that the method does not have (with the closest one), or a value out of range.

    Example:
        >>> read_options(NoOptions, {}, "erm")
        NoOptions()
    """
    known = [f.name for f in fields(options)]  # type: ignore[arg-type]
    check_names(values, known, f"method {method!r} has no option")
    return options(**values)

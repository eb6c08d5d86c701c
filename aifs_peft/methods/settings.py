"""The numbers a method works with: those that several methods share, and each method's own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from aifs_peft.errors import InvalidConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """Of a method that has no numbers of its own."""


@dataclass(frozen=True)
class MethodSettings:
    """The numbers a method works with: the adapter's configuration, with the training arguments on top.

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
        sensitivity_sign: -1 (published formula) or +1 (published text: penalise reliance).
        attribution: "ig", "lrp" or "gradient_x_input".
        attribution_steps: quadrature steps of integrated gradients.
        top_k: classes whose attributions are added up; None for all.
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

    alpha: float = 1.0
    beta: float = 0.5
    lambda_: float = 0.5
    noise: str = "gaussian"
    adversarial: bool = False
    mask_rule: str = "inverse"
    mask_scale: str = "max"
    gamma: float = 1.0
    eps0: float = 0.1
    sensitivity_sign: int = -1
    attribution: str = "ig"
    attribution_steps: int = 32
    top_k: int | None = 1
    ema_decay: float = 0.0
    label_smoothing: float = 0.0
    directions: str = "refit"
    seed: int = 0
    discovery: dict[str, Any] = field(default_factory=dict)
    balance_groups: bool = True
    max_repeats: float = 20.0
    method_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: object, **overrides: Any) -> MethodSettings:
        """Read the fields that `config` (an `AIFSConfig`) has, then apply the overrides that are not None.

        Args:
            config: object with some of these fields as attributes.
            **overrides: fields of this class; None means "the configuration's".

        Returns:
            The settings.

        Raises:
            InvalidConfigError: for a negative weight.

        Example:
            >>> MethodSettings.from_config(object(), alpha=0.25, beta=None).alpha
            0.25
        """
        values = {f.name: getattr(config, f.name) for f in fields(cls) if hasattr(config, f.name)}
        values |= {name: value for name, value in overrides.items() if value is not None}
        settings = cls(**values)
        for name in ("alpha", "beta"):
            if not getattr(settings, name) >= 0:
                raise InvalidConfigError(f"{name} must be at least 0, got {getattr(settings, name)}; 0 turns it off")
        if settings.directions not in ("refit", "rediscover", "keep"):
            raise InvalidConfigError(f'directions must be "refit", "rediscover" or "keep", got {settings.directions!r}')
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
    unknown = [name for name in values if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidConfigError(
            f"method {method!r} has no option {unknown[0]!r}{hint}; its options: {', '.join(known) or 'none'}"
        )
    return options(**values)


def check_range(name: str, value: float, low: float, high: float = float("inf"), *, above: bool = False) -> None:
    """Refuse an option outside `[low, high]`, or outside `(low, high]` with `above`.

    Raises:
        InvalidConfigError: naming the option and its range.

    Example:
        >>> check_range("temperature", 0.0, 0.0, above=True)
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: temperature must be a number in (0.0, inf]; got 0.0
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value <= high if above else low <= value <= high):
        raise InvalidConfigError(f"{name} must be a number in {'(' if above else '['}{low}, {high}]; got {value!r}")

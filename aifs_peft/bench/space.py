"""What is tuned of every method, and in which range: one table, the same budget for all.

The schedule is tuned for every method that is trained by gradient. Ranges of a method's own numbers lie around its
defaults, in its paper's ranges where it gives some (IRM, XRM), else a factor of three to ten either way. A method
without an entry has no numbers of its own that are tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Between:
    """A number between two others, drawn evenly on a logarithmic scale.

    Args:
        low: smallest value, above 0.
        high: largest.
    """

    low: float
    high: float

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """The trial's value."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class OneOf:
    """One of some values.

    Args:
        values: numbers or words.
    """

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """The trial's value."""
        return trial.suggest_categorical(name, self.values)


Range = Between | OneOf
# Of training on latents; the trainer's first setting is that of `aifs finetune`.
SCHEDULE: dict[str, dict[str, Range]] = {
    "frozen": {
        "epochs": OneOf((10, 20, 40)),
        "learning_rate": Between(3e-4, 1e-2),
        "weight_decay": Between(1e-4, 1.0),
    },
    "lora": {"learning_rate": Between(2e-4, 5e-3), "weight_decay": Between(1e-4, 0.1)},
}
SPACE: dict[str, dict[str, Range]] = {
    "afr": {"gamma": Between(1.0, 20.0), "penalty": OneOf((0.0, 0.1, 0.3, 1.0))},
    "ags": {"alpha": Between(0.005, 0.15), "percentile": OneOf((10.0, 20.0)), "warmup_epochs": OneOf((1, 5))},
    "elrep": {"theta1": Between(1e-3, 1e-1), "theta2": Between(1e-4, 1e-2)},
    "gdro-oracle": {"eta": Between(1e-3, 1e-1), "adjustment": OneOf((0.0, 1.0, 3.0))},
    "irm": {"environments": OneOf(("eiil", "xrm")), "penalty": Between(1.0, 1e4)},
    "jtt": {"lambda_up": Between(5.0, 100.0), "epochs": OneOf((5, 20, 40))},
    "leia": {"rank": OneOf((1, 2, 4)), "gamma": Between(1.0, 10.0)},
    "lff": {"q": OneOf((0.5, 0.7, 0.9))},
    "neurontune": {"classes": OneOf(("all", "any")), "threshold": OneOf((0.0, 0.1, 0.3))},
    "rsc": {"feature_share": OneOf((0.1, 1 / 3, 0.5)), "batch_share": OneOf((0.1, 1 / 3, 0.5))},
    "shortcutprobe": {"semantic_weight": Between(1.0, 20.0), "spuriousness_weight": Between(1.0, 20.0)},
    "spectral-decoupling": {"strength": Between(1e-3, 1.0)},
    "spume": {"temperature": Between(3.0, 30.0), "shots": OneOf((5, 10, 20))},
    "ule": {"lambda2": Between(0.1, 10.0), "student_lr_scale": OneOf((1.0, 10.0))},
    "ule-saliency": {"lambda1": OneOf((0.5, 1.0)), "lambda2": Between(0.1, 10.0)},
    "xrm-gdro": {"eta": Between(1e-3, 1e-1)},
}
# Of the numbers that methods share (`MethodSettings`).
SETTINGS: dict[str, dict[str, Range]] = {
    "aifs": {"alpha": Between(0.1, 10.0), "beta": Between(0.05, 5.0)},
    "aifs-paper": {"alpha": Between(0.1, 10.0), "beta": Between(0.05, 5.0), "lambda_": Between(0.05, 5.0)},
}


def suggest(
    trial: optuna.Trial, method: str, regime: str, fixed: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """A trial's setting: what is fixed, and values for the rest of what is tuned.

    Args:
        trial: of Optuna.
        method: its name.
        regime: "frozen" or "lora".
        fixed: by part ("schedule", "options", "settings"), what is not tuned.

    Returns:
        The three parts.
    """
    drawn: dict[str, dict[str, Any]] = {}
    for part, table in _tables(method, regime).items():
        values = {
            name: bounds.suggest(trial, f"{part}/{name}") for name, bounds in table.items() if name not in fixed[part]
        }
        drawn[part] = {**values, **fixed[part]}
    return drawn


def tuned(method: str, regime: str, fixed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a method has to tune, as `part/name`.

    Args:
        method: its name.
        regime: "frozen" or "lora".
        fixed: by part, what is not tuned.

    Example:
        >>> tuned("lff", "frozen", {"schedule": {"epochs": 5}, "options": {}, "settings": {}})
        ['schedule/learning_rate', 'schedule/weight_decay', 'options/q']
    """
    return [f"{part}/{n}" for part, table in _tables(method, regime).items() for n in table if n not in fixed[part]]


def _tables(method: str, regime: str) -> dict[str, dict[str, Range]]:
    return {"schedule": SCHEDULE[regime], "options": SPACE.get(method, {}), "settings": SETTINGS.get(method, {})}

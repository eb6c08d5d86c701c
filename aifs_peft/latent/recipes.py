"""The recipes: the numbers of the losses, the mask and the intervention, each with one default in one place.

`AIFSConfig` and the settings of training methods read them from here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers of one recipe; `AIFSConfig` says what each of them means.

    Example:
        >>> RECIPES["discovery"].sensitivity_sign, RECIPES["paper"].sensitivity_sign
        (1, -1)
    """

    lambda_: float = 0.5
    alpha: float = 1.0
    beta: float = 0.5
    noise: str = "counterfactual"
    adversarial: bool = False
    mask_rule: str = "inverse_relative"
    mask_scale: str = "max"
    gamma: float = 1.0
    eps0: float = 0.1
    sensitivity_sign: int = 1
    use_basis: bool = True
    attribution: str = "ig"
    attribution_steps: int = 32
    top_k: int | None = None
    class_weights: list[float] | str | None = None
    ema_decay: float = 0.0


RECIPES: dict[str, Recipe] = {
    "discovery": Recipe(),
    # The published formulas taken literally.
    "paper": Recipe(
        noise="gaussian",
        mask_rule="inverse",
        mask_scale="sum",
        sensitivity_sign=-1,
        use_basis=False,
        attribution="gradient_x_input",
    ),
    # Trains the head of `discovery` without its losses.
    "erm": Recipe(),
}

"""The numbers of the recipes are those of `docs/` and the published formulas: a change is a decision, not a slip."""

from dataclasses import asdict

from aifs_peft.latent.recipes import RECIPES

DISCOVERY = {
    "lambda_": 0.5, "alpha": 1.0, "beta": 0.5, "noise": "counterfactual", "adversarial": False,
    "mask_rule": "inverse_relative", "mask_scale": "max", "gamma": 1.0, "eps0": 0.1, "sensitivity_sign": 1,
    "use_basis": True, "attribution": "ig", "attribution_steps": 32, "top_k": None, "class_weights": None,
    "ema_decay": 0.0,
}  # fmt: skip
PAPER = {
    "noise": "gaussian", "mask_rule": "inverse", "mask_scale": "sum", "sensitivity_sign": -1, "use_basis": False,
    "attribution": "gradient_x_input",
}  # fmt: skip


def test_the_numbers_of_each_recipe():
    assert asdict(RECIPES["discovery"]) == asdict(RECIPES["erm"]) == DISCOVERY
    assert asdict(RECIPES["paper"]) == {**DISCOVERY, **PAPER}

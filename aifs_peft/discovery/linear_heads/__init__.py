"""Linear heads on latents: logistic, additive, and the choice among them."""

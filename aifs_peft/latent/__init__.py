"""Mathematics on latents: interventions, noise, masks, attribution, losses and heads.

Pure functions and small modules on tensors `z (batch, dim)`: no files, no Trainer, no global state. Formulas
and their sources are in the modules: `noise`, `intervention`, `mask`, `attribution` (with `lrp` and
`targets`), `losses`, `heads`.
"""

from aifs_peft.latent.attribution.scores import (
    Attribution,
    CompletenessError,
    attribute,
    gradient_x_input,
    integrated_gradients,
    integrated_gradients_linear,
    lrp,
    smoothgrad,
)
from aifs_peft.latent.heads import MLPHead, linear_parameters
from aifs_peft.latent.intervention import counterfactual, intervene
from aifs_peft.latent.losses import invariance_loss, label_log_prob_gradient, sensitivity_loss
from aifs_peft.latent.mask import mask_from_attribution
from aifs_peft.latent.noise import adversarial_noise, sample_noise, sphere_radius

__all__ = [
    "Attribution",
    "CompletenessError",
    "MLPHead",
    "adversarial_noise",
    "attribute",
    "counterfactual",
    "gradient_x_input",
    "integrated_gradients",
    "integrated_gradients_linear",
    "intervene",
    "invariance_loss",
    "label_log_prob_gradient",
    "linear_parameters",
    "lrp",
    "mask_from_attribution",
    "sample_noise",
    "sensitivity_loss",
    "smoothgrad",
    "sphere_radius",
]

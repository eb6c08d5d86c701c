"""Attribution of a head's prediction to latent dimensions: Integrated Gradients, SmoothGrad, LRP, gradient x input."""

from aifs_peft.latent.attribution.linear import integrated_gradients_linear
from aifs_peft.latent.attribution.lrp import lrp
from aifs_peft.latent.attribution.scores import METHODS, attribute, gradient_x_input, integrated_gradients
from aifs_peft.latent.attribution.smoothgrad import smoothgrad
from aifs_peft.latent.attribution.targets import Attribution, CompletenessError

__all__ = [
    "METHODS",
    "Attribution",
    "CompletenessError",
    "attribute",
    "gradient_x_input",
    "integrated_gradients",
    "integrated_gradients_linear",
    "lrp",
    "smoothgrad",
]

"""What both AIFS recipes share: `L = L_ce + alpha * L_inv + beta * L_sens`, everything after the encoder."""

from __future__ import annotations

from torch import Tensor

from aifs_peft.latent import (
    adversarial_noise,
    intervene,
    invariance_loss,
    label_log_prob_gradient,
    sensitivity_loss,
)
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.base import Method
from aifs_peft.methods.context import StepContext


class Intervening(Method):
    """Masked noise on the latents of a batch, and the terms of the loss that read it.

    Example:
        >>> from aifs_peft.methods import get
        >>> [issubclass(get(name), Intervening) for name in ("aifs", "aifs-paper", "erm")]
        [True, True, False]
    """

    def intervention(self, context: StepContext) -> Intervention | None:
        """See `Method.intervention`; None as long as the mask is empty or the term is switched off."""
        settings, state = self.settings, context.state
        if not self.intervenes(state):
            return None
        # Cloned: the buffer may be replaced between this forward pass and its backward pass.
        mask, basis = state.mask.clone(), state.basis.clone() if state.has_basis else None
        # Drawn before the forward pass, which may be compiled: `torch.compile` cannot trace the generator.
        drawn = None if settings.adversarial else context.draw(mask.numel(), settings.noise)

        def apply(z: Tensor) -> Tensor:
            if drawn is None:
                noise = adversarial_noise(
                    context.head,
                    z.detach(),
                    mask,
                    strength=settings.lambda_,
                    kind=settings.noise,
                    basis=basis,
                    generator=context.generator,
                )
            else:
                noise = drawn.to(z.device, z.dtype)
            return intervene(z, mask, noise, settings.lambda_, basis)

        return apply

    def intervenes(self, state: AIFSState) -> bool:
        """Whether there is a mask to intervene by and the invariance term is on."""
        return self.settings.alpha != 0 and self.settings.lambda_ != 0 and bool(state.mask.any())

    def penalises(self, state: AIFSState) -> bool:
        """Whether there is a mask to penalise reliance by and the sensitivity term is on."""
        return self.settings.beta > 0 and bool(state.mask.any())

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "invariance" and "sensitivity" where they are on."""
        settings, state = self.settings, context.state
        terms = super().loss(output, labels, context)
        if output.intervened_logits is not None:
            terms["invariance"] = settings.alpha * invariance_loss(output.logits, output.intervened_logits)
        if self.penalises(state):
            gradients = label_log_prob_gradient(context.head, output.z, labels)
            basis = state.basis.clone() if state.has_basis else None
            terms["sensitivity"] = settings.beta * sensitivity_loss(
                gradients, state.mask.clone(), settings.sensitivity_sign, basis=basis
            )
        return terms

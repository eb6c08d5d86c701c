"""AIFS as published: noise on latents where attribution is low, and the same prediction asked for.

`L = L_ce + alpha * L_inv + beta * L_sens`, the formulas taken literally; the mask is learned from attributions at each
epoch's end. Source: the method, sections 1 and 2.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import torch

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import attribute, mask_from_attribution
from aifs_peft.methods.aifs.intervention import Intervening
from aifs_peft.methods.base import Phase
from aifs_peft.methods.context import EpochContext, Latents, TrainingPlan
from aifs_peft.methods.registry import register

logger = logging.getLogger(__name__)

# Attributions that add up worse than this do not become a mask; see `Attribution.completeness_error` for the unit.
COMPLETENESS_LIMIT = 0.05


@register
class AIFSPaper(Intervening):
    """The published recipe: noise where attribution is low, mask refreshed from attributions at each epoch's end.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("aifs-paper").collects_latents
        'epoch'
    """

    name: ClassVar[str] = "aifs-paper"
    paper: ClassVar[str] = "AIFS: adaptive intervention on latent features with integrated-gradients masks"
    title: ClassVar[str] = "AIFS (published recipe)"
    cost: ClassVar[str] = "one more head pass per step, attributions of the head per epoch"
    collects_latents: ClassVar[Phase] = "epoch"

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        if settings.noise == "counterfactual":
            raise InvalidConfigError(
                'noise="counterfactual" needs an inferred attribute, which recipe "paper" does not look for; use '
                'recipe "discovery", or noise "gaussian", "l1" or "l2"'
            )

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: the mask is empty until an epoch's end, and both losses read it."""
        if self.settings.alpha == 0 and self.settings.beta == 0:
            return "alpha and beta are 0, so neither of its losses counts; set one of them"
        if plan.used_updates() == 0:
            return (
                f"its mask is learnt at the end of every {plan.update_every} epoch(s) of {plan.steps_per_epoch} steps, "
                f"and training ends after {plan.steps}, before a mask was used; train longer, or lower "
                "mask_update_every"
            )
        return None

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Attribute the head on this epoch's latents, average over all processes, turn the mean into a mask."""
        settings, state = self.settings, context.state
        # Each process attributes its share; sums are float64 so that the split does not show in the mask.
        share = latents.z[context.rank :: context.world_size].to(context.device)
        total = torch.zeros(latents.z.shape[1] + 2, dtype=torch.float64, device=context.device)
        if len(share):
            options: dict[str, Any] = {"steps": settings.attribution_steps} if settings.attribution == "ig" else {}
            result = attribute(context.head, share, settings.attribution, top_k=settings.top_k, **options)
            total[:-2] = result.scores.detach().double().abs().sum(0)
            total[-2] = result.completeness_error * len(share)
            total[-1] = len(share)
        total = context.reduce_sum(total)
        if not bool(total[-1]):
            return {}
        scores, error = total[:-2] / total[-1], float(total[-2] / total[-1])
        if settings.attribution == "ig" and error > COMPLETENESS_LIMIT:
            logger.warning(
                "integrated gradients miss %.3f of what they should add up to (limit %.2f): the mask stays as it was; "
                "raise attribution_steps",
                error,
                COMPLETENESS_LIMIT,
            )
            return {"completeness_error": error}
        if int(state.num_updates) > 0 and state.ema.numel() == scores.numel():
            scores = settings.ema_decay * state.ema.to(scores.device) + (1 - settings.ema_decay) * scores
        mask = mask_from_attribution(
            scores, rule=settings.mask_rule, gamma=settings.gamma, eps0=settings.eps0, scale=settings.mask_scale
        )
        # scale="mean" makes the average entry 1, so single entries may pass 1: the buffer is a mask in [0, 1].
        state.update(mask=mask.clamp(0, 1), ema=scores)
        return {
            "mask_mean": float(state.mask.mean()),
            "mask_max": float(state.mask.max()),
            "mask_samples": float(total[-1]),
            "completeness_error": error,
        }

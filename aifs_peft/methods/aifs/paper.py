"""AIFS as published: noise on latents where attribution is low, and the same prediction asked for.

Paper: AIFS, adaptive intervention on latent features with integrated-gradients masks.

Formula: `L = L_ce + alpha * L_inv + beta * L_sens`, everything after the encoder, with

    z' = z + lambda * (m * eps), eps ~ N(0, I);  L_inv = mean KL(C(z) || C(z'))
    L_sens = -sum_j m_j mean |d log p(y|z) / d z_j|
    IG_j = (z_j - base_j) * sum_k w_k d log p(y_k|z) / d z_j
    m_j proportional to exp(gamma / (|IG_j| + eps0))

The mask `m` is learned from the attributions at each epoch's end. `docs/paper.md` has each formula with the option that
stands for it, the other readings, and what was measured.

Supervision: labels only.

Differs from the paper: nothing in the formulas; numbers that the text does not name are this library's.

Cannot: change much, as printed. A mask that sums to one is about 1 / d in each of d dimensions, so that the noise is
too small to matter; and it is high where attribution is low, so that what a prediction leans on is left alone.

Extra cost: one more head pass per step, the gradient of the head at each kept latent per epoch.

Defaults: `lambda = 0.5`, `alpha = 1`, `beta = 0.5` are the published ones. This library's are `gamma = 1`, `eps0 =
0.1`, all classes with equal weights, and a base of zero.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import attribute, mask_from_attribution
from aifs_peft.methods.aifs.intervention import Intervening
from aifs_peft.methods.base import Phase
from aifs_peft.methods.context import EpochContext, Latents, Setup, TrainingPlan
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import MethodSettings

logger = logging.getLogger(__name__)

# Integrated gradients that add up worse than this do not become a mask; see `Attribution.completeness_error` for the
# unit. The other attributions are not meant to add up.
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
    differs: ClassVar[str] = "nothing in the formulas; numbers that the text does not name are this library's"
    title: ClassVar[str] = "AIFS (published recipe)"
    recipe: ClassVar[Literal["discovery", "paper", "erm"]] = "paper"
    cost: ClassVar[str] = "one more head pass per step, attributions of the head per epoch"
    collects_latents: ClassVar[Phase] = "epoch"
    goes_on_from: ClassVar[tuple[str, ...]] = ("mask", "ema", "num_updates")

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        if settings.noise == "counterfactual":
            raise InvalidConfigError(
                'noise="counterfactual" needs an inferred attribute, which recipe "paper" does not look for; use '
                'recipe "discovery", or noise "gaussian", "l1" or "l2"'
            )

    def check(self, setup: Setup) -> None:
        """See `Method.check`: class weights are one number per class."""
        super().check(setup)
        weights = self.settings.class_weights
        if isinstance(weights, list) and len(weights) != setup.num_labels:
            raise InvalidConfigError(
                f"class_weights needs one number for each of {setup.num_labels} classes, got {len(weights)}"
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
        scores, error, count = self._mean_scores(latents, context)
        if not count:
            return {}
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
            "mask_samples": float(count),
            "completeness_error": error,
        }

    def _mean_scores(self, latents: Latents, context: EpochContext) -> tuple[Tensor, float, int]:
        """Mean absolute score of each dimension `(dim,)`, mean completeness error, and of how many examples."""
        settings = self.settings
        # Each process attributes its share; sums are float64 so that the split does not show in the mask.
        share = latents.z[context.rank :: context.world_size].to(context.device)
        total = torch.zeros(latents.z.shape[1] + 2, dtype=torch.float64, device=context.device)
        if len(share):
            weights = settings.class_weights
            options: dict[str, Any] = {"steps": settings.attribution_steps, "seed": settings.seed}
            result = attribute(
                context.head,
                share,
                settings.attribution,
                top_k=settings.top_k,
                class_weights=torch.tensor(weights) if isinstance(weights, list) else weights,
                **options,
            )
            total[:-2] = result.scores.detach().double().abs().sum(0)
            total[-2] = result.completeness_error * len(share)
            total[-1] = len(share)
        total = context.reduce_sum(total)
        count = int(total[-1])
        return total[:-2] / max(count, 1), float(total[-2]) / max(count, 1), count

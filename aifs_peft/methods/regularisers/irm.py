"""IRM, in its practical version IRMv1, with environments that are given or inferred.

Paper: Arjovsky, Bottou, Gulrajani and Lopez-Paz 2019, Invariant Risk Minimization, arXiv 1907.02893; inferred
environments: Creager, Jacobsen and Zemel 2021, Environment Inference for Invariant Learning (EIIL, ICML), and Pezeshki
et al. 2024 (XRM).

Formula:

    loss = [ mean_e R_e + lambda_t * mean_e (dR_e/dw at w = 1)^2 ] / max(lambda_t, 1)

with `R_e(w) = mean_i CE(w * logits_i, y_i)` over environment e, `lambda_t = 1` before the annealing step and `lambda`
after it. `dR_e/dw = mean_i <p_i - onehot(y_i), logits_i>`, so a step needs one backward pass and no second derivative.
The square of a minibatch mean overestimates the square of the mean by its variance. As DomainBed does, each
environment's examples are split into two halves and the product `g1 * g2` of their gradients is taken: it is unbiased,
and sometimes negative. The division by `lambda_t` is that of the paper's code; DomainBed does not divide.

Supervision: labels only with `environments="eiil"` (the default) or `"xrm"`, which infer environments from the latents
before training (`methods.regularisers.irm_environments`, `methods.common.twins`); with `"given"` an environment per
training example (column `environment`). Tables call the three IRM-EIIL, IRM-XRM and IRM.

Differs from the paper: minibatches with an unbiased penalty, balanced over environments; these may be inferred. The
paper takes full batches of given environments. Unlike DomainBed, Adam is not started anew at the annealing step.

Cannot: act in a head that fits every example: there is no risk left in any environment, the penalty vanishes, and IRM
is plain training (stop early, use weight decay or a small head). Environments that consist of a model's mistakes (EIIL
with two classes, XRM) have error rates near 1 and near 0, where IRMv1 is unstable; `xrm-gdro` uses such groups better.
With many classes and small batches an environment often has too few examples in a batch to count.

Extra cost: one number per example and step; once, a linear reference or XRM's twins on stored latents.

Defaults: `penalty = 100` is DomainBed's (the paper's 91,257 belongs to full batches of Colored MNIST; its code drew
10^U(2,6), DomainBed draws 10^U(-1,5)). This library's are `anneal = 0.25` of all steps (the paper's code: step 190 of
501), at least 4 examples per environment and batch, `min_examples = 20`, and EIIL's reference: 2 epochs of Adam at 1e-4
from zero on standardised latents. (On one draw of dominoes latents, whose groups were looked at for this choice, it
found the 5 % conflicting examples with precision 0.92 and recall 0.95; at 1e-3, or after 10 epochs, fewer.)

Measured: `benchmarks/irm_colored_mnist.py`, the paper's Colored MNIST with given environments and its published
hyper-parameters, 5 seeds: accuracy in the reversed environment 66.5 % (standard deviation 2.4), plain training 14.3 %.
On dominoes latents with 5 % conflicting examples the batches balanced over the two environments do it, not the penalty:
with `penalty = 0` IRM-EIIL gave 0.73 and 0.71 on two draws, with 100 0.71 and 0.72.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.twins import TwinOptions, fit_twins
from aifs_peft.methods.common.whole_batch import group_means, whole_batch
from aifs_peft.methods.context import EpochContext, Latents, Sampling, StepContext, TrainingPlan
from aifs_peft.methods.registry import register
from aifs_peft.methods.regularisers.irm_environments import (
    check_environments,
    eiil_environments,
    given_environments,
    multiplier_gradients,
)
from aifs_peft.methods.settings import MethodSettings, read_options

logger = logging.getLogger(__name__)

# Fewer examples of an environment than this in a batch, and its two halves say next to nothing.
MIN_IN_BATCH = 4
SOURCES = {"given": "IRM", "eiil": "IRM-EIIL", "xrm": "IRM-XRM"}


@dataclass(frozen=True)
class IRMOptions:
    """IRM's numbers.

    Attributes:
        environments: "given" (column `environment`), "eiil" or "xrm".
        penalty: lambda after the annealing step, at least 0.
        anneal: share of all steps after which the penalty sets in, in [0, 1].
        min_examples: how many examples of every class an inferred environment must hold; of a given one, in all.
        reference_epochs: of EIIL's reference, at least 1; few, so that it leans on the shortcut and still errs.
        reference_learning_rate: of EIIL's reference.
        reference_weight_decay: of EIIL's reference.
        twins: keyword arguments of `methods.common.twins.TwinOptions`, for "xrm".
    """

    environments: str = "eiil"
    penalty: float = 100.0
    anneal: float = 0.25
    min_examples: int = 20
    reference_epochs: int = 2
    reference_learning_rate: float = 1e-4
    reference_weight_decay: float = 0.0
    twins: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("environments", self.environments, SOURCES)
        check_number("penalty", self.penalty, 0.0)
        check_number("anneal", self.anneal, 0.0, 1.0)
        check_count("min_examples", self.min_examples, 1)
        check_count("reference_epochs", self.reference_epochs, 1)
        check_number("reference_learning_rate", self.reference_learning_rate, 0.0, above=True)
        check_number("reference_weight_decay", self.reference_weight_decay, 0.0)
        read_options(TwinOptions, self.twins, "irm, twins")


def irm_penalties(
    gradients: Tensor, environments: Tensor, num_environments: int, *, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """IRMv1's penalty of each environment.

    Args:
        gradients: `multiplier_gradients` of a batch, `(batch,)` with their graph.
        environments: `(batch,)` int64 in `[0, E)`.
        num_environments: E.
        unbiased: the product of the mean gradients of two halves (every other example of the environment), instead of
            the square of the mean of all.

    Returns:
        Penalties `(E,)`, 0 for an environment with fewer than `MIN_IN_BATCH` examples, and which have enough, `(E,)`
        bool.

    Example:
        >>> gradients, one = torch.tensor([1.0, 2.0, 3.0, -2.0]), torch.zeros(4, dtype=torch.long)
        >>> [float(irm_penalties(gradients, one, 2, unbiased=unbiased)[0][0]) for unbiased in (True, False)]
        [0.0, 1.0]
    """
    penalties, enough = [], []
    for environment in range(num_environments):
        inside = gradients[environments == environment]
        enough.append(len(inside) >= MIN_IN_BATCH)
        if not enough[-1]:
            penalties.append(inside.sum() * 0.0)
        elif unbiased:
            penalties.append(inside[0::2].mean() * inside[1::2].mean())
        else:
            penalties.append(inside.mean().square())
    return torch.stack(penalties), torch.tensor(enough, device=gradients.device)


@register
class IRM(Method):
    """Invariant risk minimisation; see the module's text.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("irm", method_options={"environments": "xrm"}).title
        'IRM-XRM'
    """

    name: ClassVar[str] = "irm"
    title: ClassVar[str] = "IRM"
    paper: ClassVar[str] = (
        "Arjovsky et al. 2019, Invariant Risk Minimization; environments: Creager et al. 2021 (EIIL) or "
        "Pezeshki et al. 2024 (XRM)"
    )
    differs: ClassVar[str] = "minibatches with an unbiased penalty, balanced over environments; these may be inferred"
    cost: ClassVar[str] = "one encoder pass and a linear fit before training; one number per example and step"
    Options: ClassVar[type[Any]] = IRMOptions
    learns_first: ClassVar[tuple[str, ...]] = ("groups",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "balanced"
    without_draws: ClassVar[str] = "set balance_groups=False, which takes them as they come"

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        # What the class declares holds for inferred environments; an instance knows what it was asked for.
        self.title = SOURCES[self.options.environments]  # type: ignore[misc]
        if self._given:
            self.supervision = "hints"  # type: ignore[misc]
            self.needs = ("environments (column `environment`)",)  # type: ignore[misc]
        self._count = 0

    @property
    def _given(self) -> bool:
        return bool(self.options.environments == "given")

    def columns(self) -> tuple[str, ...]:
        """See `Method.columns`."""
        return ("environment",) if self._given else ()

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: number the given environments, or infer two before the first step."""
        if context.fresh and self._given:
            codes = given_environments(context.columns["environment"], self.options.min_examples)
            context.state.update(count=False, groups=codes)
        elif context.fresh:
            assert context.encode_untuned is not None  # noqa: S101 - every trainer gives it
            latents = context.encode_untuned()
            found = context.on_main(lambda: self._infer(latents, context))
            context.state.update(count=False, groups=found)
        if not context.state.groups.numel():
            raise CheckpointMismatchError(
                "the checkpoint holds no environments, so it is not one of method 'irm'; resume with the method the "
                "run was started with"
            )
        self._count = int(context.state.groups.max()) + 1

    def _infer(self, latents: Latents, context: EpochContext) -> Tensor:
        options = self.options
        if options.environments == "eiil":
            found = eiil_environments(
                latents.z,
                latents.labels,
                context.num_labels,
                epochs=options.reference_epochs,
                learning_rate=options.reference_learning_rate,
                weight_decay=options.reference_weight_decay,
                seed=context.seed,
            )
            remedy = (
                "change reference_epochs (fewer leave more mistakes), raise reference_weight_decay, use "
                'environments="xrm", whose twins err on examples they were not trained on, or lower min_examples'
            )
        else:
            twins = fit_twins(latents.z, latents.labels, context.num_labels, TwinOptions(**options.twins), context.seed)
            found = twins.mistakes(latents.z, latents.labels)
            remedy = "use the method xrm-gdro, which does not need every class in both, or lower min_examples"
        check_environments(found, latents.labels, options.min_examples, remedy)
        logger.info("%s: %d of %d examples in the second environment", self.title, int(found.sum()), len(found))
        return found

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: without the penalty only batches balanced over environments are left."""
        del plan
        if self.options.penalty == 0 and not self.settings.balance_groups:
            return "penalty is 0 and batches are not balanced over environments; raise penalty, or balance them"
        return None

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: balanced over environments, unless `balance_groups` is off."""
        del labels
        return Sampling(cells=context.state.groups.cpu()) if self.settings.balance_groups else None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; "cross_entropy" is the mean over environments, "irm_penalty" the mean penalty."""
        logits, options = output.logits.float(), self.options
        environments = context.groups
        assert environments is not None  # noqa: S101 - `prepare` filled the state
        environments = environments.to(labels.device)
        losses = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing, reduction="none")
        risks, counts = group_means(losses, environments, self._count, context)
        gradients = whole_batch(multiplier_gradients(logits, labels), context)
        penalties, enough = irm_penalties(gradients, whole_batch(environments, context), self._count)
        if context.step == 0 and len(gradients) < MIN_IN_BATCH * self._count:
            raise InvalidConfigError(
                f"a batch of {len(gradients)} examples cannot hold {MIN_IN_BATCH} of each of {self._count} "
                f"environments, so IRM's penalty would never act; use batches of {MIN_IN_BATCH * self._count} or more "
                "(over all processes), better ten times that"
            )
        weight = options.penalty if context.progress >= options.anneal else min(1.0, options.penalty)
        scale = 1.0 / max(weight, 1.0)
        return {
            "cross_entropy": scale * risks.sum() / (counts > 0).sum(),
            "irm_penalty": scale * weight * penalties.sum() / enough.sum().clamp_min(1),
        }

"""AIFS with discovery: find spurious directions without group labels, and train against them.

Paper: none; this library's default method. It follows the idea of AIFS, to intervene on latents along what is spurious.

Formula: `L = L_ce + alpha * L_inv + beta * L_sens + synthetic * L_syn`, everything after the encoder. Before training,
`aifs_peft.discovery.discover` looks for an attribute in the latents of the untuned model; where an encoder is trained
on two classes and its last latent shows none that is tied to the label, also in blocks at a quarter, half and three
quarters of its depth, which often show a weak mark more plainly. `L_inv` asks for the same
prediction after a counterfactual step along it, `z + beta_{a'} - beta_a`; `L_sens` penalises reliance on its directions
(the spurious-direction penalty).

`L_syn`: discovery gives, beside the attribute's offsets `beta`, the class's offsets `alpha` with the attribute held
constant. Each latent of a batch is also moved to a class and an attribute value that are drawn evenly and
independently, `z + alpha_{y'} - alpha_y + beta_{a'} - beta_a`, and classified as `y'`. This is the balanced population
of the additive model, in which every cell has the variation of all examples. It teaches a head of any kind, by
gradient, what the additive head knows in closed form; balancing alone repeats the few conflicting examples until they
are memorised.

Batches are balanced over label and inferred attribute. But an encoder that is trained would learn the few conflicting
examples by heart, if they were repeated. With two classes, examples are then drawn as they are, `L_ce` is that of the
logits plus `log p(y|a)`, the shares of the classes among the examples of the same inferred attribute value (logit
adjustment, Menon et al. 2021), and there is no `L_syn`; the offsets are estimated anew at each epoch's end; and after
training the last layer is fitted anew, by logistic regression that weighs all cells alike under a strong penalty
(`refit`). Where all that was found rests on unlabelled examples, two classes again, that fit alone goes against the
shortcut, and the encoder is trained as where nothing is found: of a weak attribute a quarter of the conflicting
examples is known, too few for logits and directions. With more classes, where this was worse, balanced batches stay.
Where no spurious direction is found, this is plain training; where classes are unequal too, the logits carry the log
shares of the classes, so that all classes count alike (`class_weight`), which costs average accuracy.

Supervision: labels only. A column `hint_groups` with known attribute values of a few examples is used where there is
one.

Differs from the paper: it is this library's own method. `aifs-paper` is the published one.

Cannot: find an attribute that is too weak, or that hardly any example contradicts (`docs/discovery.md` has the limits).

Extra cost: one pass of the encoder before training and discovery on its latents; two more head passes per step; where
the encoder is trained, with two classes, one more pass after it, and one before training where the last latent shows no
attribute.

Defaults: this library's; the weight of the examples themselves beside synthetic ones, `observed`, was measured on
dominoes (`docs/discovery.md`), and so was `refit`, on a tuned MobileNetV2; more classes on
ten-class Colored MNIST (`docs/research_log.md`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent._support import run_head
from aifs_peft.latent.intervention import displaced
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.aifs.found import (
    LEAST_TIE,
    SHARE_SAMPLES,
    followed_directions,
    nothing_known,
    search_latents,
    search_layers,
    share_of_decisions,
    tie,
)
from aifs_peft.methods.aifs.intervention import Intervening
from aifs_peft.methods.aifs.options import AIFSOptions
from aifs_peft.methods.aifs.partition import Partition, cells_of
from aifs_peft.methods.aifs.tuned import log_shares, refit_last_layer
from aifs_peft.methods.base import Phase
from aifs_peft.methods.common.last_linear import last_linear
from aifs_peft.methods.context import EpochContext, Latents, Sampling, StepContext
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import MethodSettings

logger = logging.getLogger(__name__)

# Optional column of the training set: known attribute values from 0, -1 where unknown; see `discover(groups=)`.
HINT_COLUMN = "hint_groups"
# Weight of the observed examples beside synthetic ones on a frozen encoder, whose head would otherwise memorise the few
# conflicting ones; measured on dominoes, see docs/research_log.md.
OBSERVED_FROZEN = 0.2
REFIT_TWO_CLASSES = 0.3


@register
class AIFSDiscovery(Intervening):
    """The default recipe: find spurious directions without group labels, intervene along them, balance over them.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("aifs").supervision
        'none'
    """

    name: ClassVar[str] = "aifs"
    paper: ClassVar[str] = "AIFS with discovery: interventions along spurious directions found in the latents"
    differs: ClassVar[str] = "it is this library's own method"
    title: ClassVar[str] = "AIFS (discovery)"
    recipe: ClassVar[Literal["discovery", "paper", "erm"]] = "discovery"
    cost: ClassVar[str] = (
        "one encoder pass before training, two more head passes per step; when tuning, with two classes, one encoder "
        "pass after training, and a second one before it where the first shows no attribute"
    )
    collects_latents: ClassVar[Phase] = "both"
    epoch_samples: ClassVar[int | None] = None
    reads_unlabelled: ClassVar[bool] = True
    Options: ClassVar[type[Any]] = AIFSOptions
    learns_first: ClassVar[tuple[str, ...]] = ("num_updates",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "balanced"
    without_draws: ClassVar[str] = (
        'set method_options={"balance": "logits"}, which balances by the logits of training instead'
    )

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        self._observed, self._by_logits, self._evens_classes = 1.0, False, False
        self._labels: Tensor | None = None
        self._known: Partition | None = None
        self._shares: Tensor | None = None

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`; what the examples themselves weigh depends on what is trained."""
        self._labels, self._known, self._shares = context.labels, None, None
        # Looked at in every step, so counted here once.
        unequal = context.labels is not None and len(torch.bincount(context.labels.cpu()).unique()) > 1
        self._evens_classes = unequal and self.options.class_weight is not None
        self._by_logits = self._balances_by_logits(context.encoder_trains, context.num_labels)
        given: float | None = self.options.observed
        self._observed = given if given is not None else 1.0 if context.encoder_trains else OBSERVED_FROZEN

    def _balances_by_logits(self, encoder_trains: bool, num_labels: int) -> bool:
        balance: str = self.options.balance
        two_tuned = encoder_trains and num_labels == 2
        by_logits = two_tuned if balance == "auto" else balance == "logits"
        return by_logits and self.settings.balance_groups

    def draws_examples(self, *, encoder_trains: bool, num_labels: int) -> bool:
        """See `Method.draws_examples`: unless logits balance."""
        drawn = super().draws_examples(encoder_trains=encoder_trains, num_labels=num_labels)
        return drawn and not self._balances_by_logits(encoder_trains, num_labels)

    def _penalty(self, num_labels: int) -> float:
        """Of the last layer's fit after training; 0 where there is none."""
        given: float | None = self.options.refit
        return given if given is not None else REFIT_TWO_CLASSES if num_labels == 2 else 0.0

    def _refit_alone(self, context: EpochContext, rests_on: float) -> bool:
        """Whether nothing but the fit after training is to go against what was found."""
        wanted = self._by_logits and self.options.balance == "auto" and self._penalty(context.num_labels) > 0
        return wanted and rests_on >= 1 and last_linear(context.head).bias is not None

    def intervenes(self, state: AIFSState) -> bool:
        """See `Intervening.intervenes`; never where the last layer alone goes against what was found."""
        return not state.memory.numel() and super().intervenes(state)

    def penalises(self, state: AIFSState) -> bool:
        """See `Intervening.penalises`; never where the last layer alone goes against what was found."""
        return not state.memory.numel() and super().penalises(state)

    def intervention(self, context: StepContext) -> Intervention | None:
        """See `Method.intervention`: a step to another attribute value that occurs, or noise along the directions."""
        if self.settings.noise != "counterfactual":
            return super().intervention(context)
        groups = context.groups
        if groups is None or not self.intervenes(context.state):
            return None
        partition = self._partition(context.state)
        if len(partition.values) < 2:
            return None
        # One normal number per example becomes a uniform choice among the other values: the same choice
        # whatever the batch size and the number of processes.
        uniform = torch.special.ndtr(context.draw(1, "gaussian").squeeze(1))
        target, displacements = partition.other_values(groups, uniform), context.state.displacements.clone()

        def apply(z: Tensor) -> Tensor:
            return displaced(z, groups, target, displacements)

        return apply

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "synthetic" once an attribute has been found, unless logits balance."""
        terms = super().loss(output, labels, context)
        if self._by_logits:
            return terms
        example = self._synthetic(output.z, labels, context) if self.options.synthetic else None
        if example is not None:
            z, target = example
            logits = run_head(context.head, z).float()
            losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.settings.label_smoothing)
            # Balanced batches repeat few examples, whose variation would stand for that of all: undo it here.
            rates = self._partition(context.state).rates
            if rates is not None:
                losses = losses / rates[context.index.cpu()].to(losses.device)
            terms["cross_entropy"] = self._observed * terms["cross_entropy"]
            terms["synthetic"] = self.options.synthetic * losses.mean()
        return terms

    def cross_entropy(self, output: LatentOutput, labels: Tensor, context: StepContext) -> Tensor:
        """See `Method.cross_entropy`; on logits that carry the log shares of classes where these balance."""
        groups = None if context.state.memory.numel() else context.groups
        if not (self._by_logits if groups is not None else self._evens_classes):
            return super().cross_entropy(output, labels, context)
        if self._shares is None:
            assert self._labels is not None  # noqa: S101 - both training loops give them to `prepare`
            known = None if groups is None else context.state.groups
            self._shares = log_shares(self._labels, known, output.logits.shape[1])
        rows = torch.zeros_like(labels) if groups is None else groups
        shift = self._shares[rows.cpu()].to(output.logits.device)
        if context.given_loss is not None:
            return context.given_loss(shift)
        return super().cross_entropy(replace(output, logits=output.logits.float() + shift), labels, context)

    def _partition(self, state: AIFSState) -> Partition:
        """Labels and inferred values of the training set, a function of both alone; computed once per discovery."""
        if self._known is None:
            assert self._labels is not None  # noqa: S101 - both training loops give them to `prepare`
            balanced = self.settings.balance_groups
            self._known = Partition.of(self._labels, state.groups, self.settings.max_repeats if balanced else None)
        return self._known

    def _synthetic(self, z: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor] | None:
        """Each latent moved to a class and an attribute value drawn evenly and apart: a balanced population.

        What an example has beside class and attribute stays its own, so every cell has the variation of all examples,
        where the conflicting cells themselves hold a handful.
        """
        state, groups = context.state, context.groups
        # Offsets that are zero throughout say nothing about the class: a label drawn for them would be noise.
        if groups is None or not bool(state.class_displacements.any()):
            return None
        # Cloned: buffers may be replaced between this forward pass and its backward pass.
        alpha, beta = state.class_displacements.clone(), state.displacements.clone()
        # The first number of an example and step already chooses its counterfactual.
        uniform = torch.special.ndtr(context.draw(3, "gaussian")[:, 1:]).to(z.device)
        label, value = self._partition(state).cells(uniform)
        return displaced(displaced(z, labels, label, alpha), groups, value, beta), label

    def collects(self, state: AIFSState, encoder_trains: bool) -> bool:
        """See `Method.collects`: a set without directions has nothing to say."""
        return state.has_basis and (not encoder_trains or self.settings.directions == "refit")

    def samples_per_epoch(self, encoder_trains: bool) -> int | None:
        """See `Method.samples_per_epoch`: of a frozen encoder some, for the share of decisions; else all."""
        return None if encoder_trains else SHARE_SAMPLES

    def optional_columns(self) -> tuple[str, ...]:
        """See `Method.optional_columns`: attribute values that are known of a few examples, -1 for the rest."""
        return (HINT_COLUMN,)

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: balanced over label and inferred attribute, once that is known."""
        groups = context.state.groups.cpu()
        if not groups.numel() or not self.settings.balance_groups or self._by_logits:
            return None
        return Sampling(cells=cells_of(labels.cpu(), groups))

    def start(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Discover on the latents of the untrained model and fill the adapter's state."""
        return self._discover(latents, context)

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Follow the latents of an encoder that is trained, and measure how far decisions run along the directions.

        "refit" keeps the partition that was found on the untrained encoder and estimates the directions again:
        a trained encoder memorises the conflicting examples, so discovery on its own latents finds less.
        """
        state = context.state
        if context.encoder_trains and self.settings.directions == "rediscover" and context.encode is not None:
            everything = context.encode()
            return {**self._discover(everything, context), **share_of_decisions(everything.z, context)}
        if not self.collects(state, context.encoder_trains) or not len(latents.index):
            return {}
        if not context.encoder_trains:
            return share_of_decisions(latents.z, context)
        if bool((latents.z == latents.z[0]).all()):
            logger.warning(
                "all latents of this epoch are equal: the directions stay as they are; lower the learning rate"
            )
            return {}
        followed = followed_directions(latents, state, context.num_labels)
        if followed is None:
            return {}
        turned = float(torch.linalg.matrix_norm(followed["basis"].T @ state.basis.cpu().double(), ord=2))
        state.update(count=True, **followed)
        measured = share_of_decisions(latents.z, context)
        return {"directions": float(state.basis.shape[1]), "directions_cosine": turned, **measured}

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Fit the last layer anew on the latents of a trained encoder, with the partition that was found before."""
        groups = context.state.groups.cpu()
        penalty = self._penalty(context.num_labels)
        if not (context.encoder_trains and penalty and groups.numel()):
            return {}
        latents = refit_last_layer(groups, penalty, context)
        return {} if latents is None else {"last_layer_refitted": 1.0, **share_of_decisions(latents.z, context)}

    def _layers_to_search(
        self, found: dict[str, Tensor] | None, rests_on: float, latents: Latents, context: EpochContext
    ) -> Latents | None:
        """Latents of several layers, where they are to be searched and can be had: a pass of the encoder."""
        chosen: str = self.options.search_layers
        several = chosen == "several" or (chosen == "auto" and context.encoder_trains and context.num_labels == 2)
        if not several or context.encode_layers is None:
            return None
        # Known values may have led to an attribute that is hardly tied; what rests on unlabelled examples alone names
        # a quarter of the conflicting ones, where layers may name nearly all.
        enough = found is not None and (
            HINT_COLUMN in context.columns or tie(latents.labels, found["groups"]) >= LEAST_TIE
        )
        return None if enough and rests_on < 1 else context.encode_layers()

    def _discover(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        if len(latents.index) != latents.total:
            raise InvalidConfigError(
                f"discovery needs the latents of all {latents.total} training examples, got {len(latents.index)}"
            )
        self._known = self._shares = None
        known = context.columns.get(HINT_COLUMN)
        # A pass of the encoder, which every process takes part in.
        pool = None if context.encode_unlabelled is None else context.encode_unlabelled()
        options, seed = self.settings.discovery, self.settings.seed
        found, rests_on = context.on_main(
            lambda: search_latents(latents, context.num_labels, known, pool, options, seed)
        )
        layers = self._layers_to_search(found, rests_on, latents, context)
        told: dict[str, float] = {}
        if layers is not None:
            inside = context.on_main(lambda: search_layers(layers, latents, context.num_labels, known, options, seed))
            told["found_in_layers"] = float(inside is not None)
            found, rests_on = (found, rests_on) if inside is None else (inside, 0.0)
        if pool is not None:
            told["rests_on_unlabelled"] = rests_on
        state = context.state
        if found is None:
            evened = self._evens_classes
            what = "plain training, with classes that count alike" if evened else "plain training"
            logger.warning("no spurious direction found: from here on this is %s", what)
            state.update(count=True, **nothing_known(latents.z.shape[1]))
            return {"spurious_direction_found": 0.0, "classes_evened": float(evened), **told}
        rank = found["basis"].shape[1]
        # Saved with the adapter, so that a resumed run goes on in the same way.
        alone = torch.ones(1) if self._refit_alone(context, rests_on) else torch.zeros(0)
        state.update(count=True, mask=torch.ones(rank), memory=alone, **found)
        conflicting = float((found["groups"] != latents.labels).float().mean())
        logger.info("%d spurious direction(s) found, %.1f%% of the examples conflict", rank, 100 * conflicting)
        if alone.numel():
            logger.info(
                "what was found rests on unlabelled examples: the encoder is trained plainly, and the last layer is "
                "fitted anew after training"
            )
        return {
            "spurious_direction_found": 1.0,
            "directions": float(rank),
            "evidence": float(found["evidence"]),
            "conflicting_share": conflicting,
            **told,
        }

"""RaVL-style: find clusters of image or text regions behind wrong predictions, and learn to do without them.

Paper: Varma et al. 2024, RaVL: Discovering and Mitigating Spurious Correlations in Fine-Tuned Vision-Language Models
(NeurIPS), arXiv 2411.04097.

Formula. Stage 1, once, after `warmup` epochs of plain training: cluster unit-norm regions of examples that were held
out of these epochs; the number of clusters, from 2K to 5K - 1 (4 to 32 for two classes), by the silhouette on a sample.
Per cluster and class, `gap = w (accuracy of examples with a region in the cluster - accuracy of those without)`, `w = 2
min(n_in, n_out) / (n_in + n_out)`. A cluster is spurious if some gap is positive and some negative, and its influence
is at least 0.25: among wrong predictions on examples with the cluster and a negative gap, how often the region with the
highest score of the predicted class lies in the cluster. Stage 2: `L = CE(C(z), y) + a CE(C(r'), y) + b mean KL(uniform
|| softmax C(r))`, r' the mean of an example's regions outside spurious clusters, r its regions inside. Prediction is
`C(z)` alone. Regions of images are about `cells` cells of the last layer's patch grid, those of texts windows of `span`
tokens, mapped as the latent is (same final norm or dense layer), which is verified on a batch before training. Clusters
follow an encoder that is trained: a few steps of k-means on the same held-out examples per epoch.

Supervision: labels only. Discovery wants an evaluation set where the spurious correlation does not hold. The paper's
setting has one; `source="train"`, the default here, holds out a `holdout` share of the training set, which keeps its
bias and has few examples against it. `source="validation"` uses the validation set's class labels; where that set is
balanced over the attribute (Waterbirds' is), this lends supervision that a run without groups must not have: say so
beside the result.

Differs from the paper: the loss of stage 2 is this library's reading, for a classifier instead of an image-text pair.
The official repository has no code for that stage: hence "RaVL-style". In stage 1 mini-batch k-means stands for
k-medoids, the head's class probabilities of regions stand for zero-shot scores, and all clusters that pass are kept,
not one.

Cannot: separate what shares a region (the colour of a digit, or tokens that attention has mixed: the other regions then
carry the shortcut too, and training on them can leave the worst group below plain training); work on tables,
precomputed latents, convolutional encoders, `LatentClassifier`, or latents that are no norm or dense layer of tokens
(DINOv2's concatenation).

Extra cost: 1 + R head passes per step; one pass over the held-out examples for discovery, and one per epoch where the
encoder is trained; `holdout` of the training set is not trained on during the warm-up.

Defaults: `min_influence = 0.25` and the range of cluster numbers are the paper's. This library's are a = b = 0.5,
`cells = 16`, `span = 4`, `sample = 5000`, `warmup = 2` (a head that has not learned the shortcut yet shows no
influence, so few steps per epoch want more epochs), `holdout = 0.2`, at most 2048 examples and 8 cluster numbers.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.output import LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.attributes.ravl_clusters import RegionClusters, cluster_range, find_spurious_clusters
from aifs_peft.methods.attributes.ravl_regions import follow_centroids, grid_regions, nearest_cluster, span_regions
from aifs_peft.methods.base import Method, Phase
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.methods.common.whole_batch import whole_batch
from aifs_peft.methods.context import EpochContext, Latents, Regions, Sampling, Setup, StepContext, TrainingPlan
from aifs_peft.methods.registry import register

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Numbers of RaVL.

    Args:
        region_weight: a, at least 0.
        uniform_weight: b, at least 0.
        cells: cells of an image, at least 2.
        span: tokens of a text's window, at least 1.
        warmup: epochs of plain training before discovery, at least 1.
        source: "train" (a held-out part of it) or "validation".
        holdout: share of each class that is held out of the warm-up with source "train", in [0.01, 0.5].
        examples: most examples whose regions are clustered, at least 10.
        sample: most regions on which a silhouette is measured, at least 100.
        cluster_numbers: how many numbers of clusters are tried, at least 1.
        min_influence: in [0, 1].

    Raises:
        InvalidConfigError: out of range.
    """

    region_weight: float = 0.5
    uniform_weight: float = 0.5
    cells: int = 16
    span: int = 4
    warmup: int = 2
    source: Literal["train", "validation"] = "train"
    holdout: float = 0.2
    examples: int = 2048
    sample: int = 5000
    cluster_numbers: int = 8
    min_influence: float = 0.25

    def __post_init__(self) -> None:
        check_number("region_weight", self.region_weight, 0.0)
        check_number("uniform_weight", self.uniform_weight, 0.0)
        counts = {"cells": 2, "span": 1, "warmup": 1, "examples": 10, "sample": 100, "cluster_numbers": 1}
        for name, low in counts.items():
            check_count(name, getattr(self, name), low)
        check_number("holdout", self.holdout, 0.01, 0.5)
        check_number("min_influence", self.min_influence, 0.0, 1.0)
        check_choice("source", self.source, ("train", "validation"))


@register
class Ravl(Method):
    """Region-aware training on clusters that were found to mislead.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("ravl").on_latents, get("ravl").reads_tokens
        (False, True)
    """

    name: ClassVar[str] = "ravl"
    title: ClassVar[str] = "RaVL-style"
    paper: ClassVar[str] = "Varma et al. 2024, RaVL: Discovering and Mitigating Spurious Correlations (NeurIPS)"
    differs: ClassVar[str] = (
        "the loss of stage 2 is this library's reading, for a classifier instead of an image-text pair"
    )
    needs: ClassVar[tuple[str, ...]] = ("patch or token features (a vision or text transformer)",)
    cost: ClassVar[str] = "one head pass per region and step; an encoder pass over held-out examples for discovery"
    Options: ClassVar[type[Any]] = Options
    redraws_held_out = True
    collects_latents: ClassVar[Phase] = "epoch"
    on_latents: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"

    def check(self, setup: Setup) -> None:
        """See `Method.check`.

        Raises:
            InvalidConfigError: without token features, or without the validation set that was asked for.
        """
        super().check(setup)
        if self.options.source == "validation" and not setup.has_validation:
            raise InvalidConfigError(
                'method \'ravl\' with source="validation" needs a validation set: pass eval_dataset, or source="train"'
            )

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: spurious regions are looked for after the warm-up."""
        if plan.used_updates(self.options.warmup) == 0:
            return (
                f"spurious regions are looked for after a warm-up of {self.options.warmup} epoch(s) of "
                f"{plan.steps_per_epoch} steps, and training ends after {plan.steps}; train longer, or set warmup lower"
            )
        return None

    def collects(self, state: AIFSState, encoder_trains: bool) -> bool:
        """See `Method.collects`: regions are encoded when they are wanted, latents of the steps are not."""
        del state, encoder_trains
        return False

    def draws_examples(self, *, encoder_trains: bool, num_labels: int) -> bool:
        """See `Method.draws_examples`: unless it looks at the validation set."""
        del encoder_trains, num_labels
        return bool(self.options.source != "validation")

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: without the held-out examples until discovery has seen them."""
        if context.state.memory.numel() or self.options.source == "validation":
            return None
        return Sampling(weights=(~stratified_rows(labels, self.options.holdout, context.seed)).double())

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Discover once after the warm-up; later follow an encoder that is trained."""
        del latents
        memory = context.state.memory
        if not memory.numel():
            return self._discover(context) if context.epoch >= self.options.warmup else {}
        centroids, spurious = _unpacked(memory.cpu())
        if context.encoder_trains and bool(spurious.any()):
            regions = self._regions(context)
            unit = F.normalize(regions.features[regions.present].double(), dim=1)
            moved = context.on_main(lambda: follow_centroids(unit, centroids))
            context.state.update(count=False, memory=_packed(moved, spurious))
            return {"region_clusters_cosine": float((moved * centroids).sum(1).mean())}
        return {}

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Say so when training ended before discovery."""
        if not context.state.memory.numel():
            logger.warning(
                "RaVL never looked for spurious regions: training ended within the warm-up of %d epoch(s), so this is "
                "plain training; train longer, or set warmup lower",
                self.options.warmup,
            )
        return {}

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "regions" and "uniform" once spurious clusters are known."""
        terms = super().loss(output, labels, context)
        if not context.state.memory.numel():
            return terms
        centroids, spurious = _unpacked(context.state.memory)
        if not bool(spurious.any()):
            return terms
        assert context.tokens is not None  # noqa: S101 - `check` refused models without
        features, present = self._pool(context.tokens, context.token_mask, context.token_grid)
        inside = present & spurious.to(features.device)[nearest_cluster(features, centroids.to(features.device))]
        options = self.options
        if options.region_weight > 0:
            terms["regions"] = options.region_weight * self._relevant(features, present & ~inside, labels, context)
        if options.uniform_weight > 0:
            terms["uniform"] = options.uniform_weight * self._uniform(features, inside, context)
        return terms

    def _relevant(self, features: Tensor, kept: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        """Mean cross-entropy of the mean of the kept regions, over examples that have one."""
        mean = (features * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp_min(1)
        each = F.cross_entropy(context.head(mean).float(), labels, reduction="none")
        has = kept.any(1)
        return _ratio(torch.where(has, each, 0.0), has.float(), context)

    def _uniform(self, features: Tensor, inside: Tensor, context: StepContext) -> Tensor:
        """Mean over spurious regions of `KL(uniform || softmax C(r)) = -log K - mean_k log p_k`."""
        log_p = context.head(features.flatten(0, 1)).float().log_softmax(1)
        each = (-log_p.mean(1) - math.log(log_p.shape[1])).unflatten(0, inside.shape)
        return _ratio(torch.where(inside, each, 0.0).sum(1), inside.sum(1).float(), context)

    def _pool(self, tokens: Tensor, mask: Tensor | None, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        if grid is not None:
            return grid_regions(tokens, grid, int(self.options.cells))
        return span_regions(tokens, mask, int(self.options.span))

    def _regions(self, context: EpochContext) -> Regions:
        """Regions of the examples that discovery looks at."""
        if context.encode_regions is None or context.labels is None:
            raise InvalidConfigError(
                "method 'ravl' needs regions of a model's tokens: train with AIFSTrainer on a transformer"
            )
        if self.options.source == "validation":
            return context.encode_regions(self._pool, None)
        index = stratified_rows(context.labels, self.options.holdout, context.seed).nonzero().squeeze(1)
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(context.seed))
        return context.encode_regions(self._pool, index[order[: int(self.options.examples)]].sort().values)

    def _discover(self, context: EpochContext) -> dict[str, float]:
        regions = self._regions(context)
        found: RegionClusters = context.on_main(lambda: self._find(regions, context))
        centroids = torch.as_tensor(found.centroids)
        spurious = torch.as_tensor(found.spurious)
        context.state.update(count=False, memory=_packed(centroids, spurious))
        if not bool(spurious.any()):
            logger.warning("RaVL found no spurious region cluster: this is plain training from here on")
        return {
            "region_clusters": float(len(spurious)),
            "spurious_region_clusters": float(spurious.sum()),
            "region_silhouette": found.silhouette,
            "region_gap": float(abs(found.gaps[found.spurious]).sum(1).max()) if bool(spurious.any()) else 0.0,
            "region_influence": float(found.influence.max()),
        }

    @torch.no_grad()
    def _find(self, regions: Regions, context: EpochContext) -> RegionClusters:
        with evaluating(context.head):
            predicted = torch.cat([context.head(z.to(context.device)).argmax(1).cpu() for z in regions.z.split(4096)])
            scores = torch.cat(
                [
                    context.head(part.flatten(0, 1).to(context.device))
                    .float()
                    .softmax(1)
                    .cpu()
                    .unflatten(0, part.shape[:2])
                    for part in regions.features.split(256)
                ]
            )
        options = self.options
        return find_spurious_clusters(
            regions.features.double().numpy(),
            regions.present.numpy(),
            scores.double().numpy(),
            regions.labels.numpy(),
            predicted.numpy(),
            ks=cluster_range(context.num_labels, int(options.cluster_numbers)),
            min_influence=options.min_influence,
            sample=int(options.sample),
            seed=context.seed,
        )


def _ratio(sums: Tensor, counts: Tensor, context: StepContext) -> Tensor:
    """Sum over sum, over all processes; 0, with a graph, when nothing is counted."""
    return whole_batch(sums, context).sum() / whole_batch(counts, context).sum().clamp_min(1)


def _packed(centroids: Tensor, spurious: Tensor) -> Tensor:
    """Centroids and flags as one buffer, `(k, dim + 1)` float64."""
    return torch.cat([centroids.double(), spurious.double()[:, None].to(centroids.device)], dim=1)


def _unpacked(memory: Tensor) -> tuple[Tensor, Tensor]:
    return memory[:, :-1], memory[:, -1] > 0

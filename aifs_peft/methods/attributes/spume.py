"""SPUME: meta-learning over pairs of attributes that a class's accuracy depends on.

Paper: Zheng, Ye and Zhang 2024, Spuriousness-Aware Meta-Learning for Learning Robust Classifiers (KDD), arXiv
2406.10742.

Formula: `A (n, V)` says which attributes (words of a caption, for example) an example has. Before each epoch, for class
c and attribute a: `score = tanh |log(p1 / p0)|`, p1 the accuracy on examples of c with a, p0 without (0 when both are
0), predictions by the nearest class centroid. A task draws two attributes per class in proportion to `score - min score
+ 1e-10`; its support examples have the first and not the second, its query examples the reverse; the loss is the
cross-entropy of `T cos(e, mu_c)` on queries, `e` the embedding and `mu_c` the support mean of class c.

Two variants, by what is trained. "centroid", the paper's: where the embedding is trained, with an encoder adapter (e =
z, or the input of the head's last layer) or a head with a hidden layer (e = its output). The head's last layer becomes
the centroid classifier before the first epoch, at each epoch's end and after training (on the model that was kept):
rows `mu_c / |mu_c|`, scaled by T over the mean norm of e, and no bias. Its decisions are exactly those of the cosine;
its probabilities differ from the paper's by the norm of each embedding. In between, it is trained with the
cross-entropy on detached embeddings ("readout"), which does not touch the embedding. "head": a frozen encoder with a
linear head has no embedding to train. The loss is then the cross-entropy of the head on query examples alone, a
resampling weighted by spuriousness; name it "SPUME (head variant)".

Supervision: labels and attributes ("hints"), in the column `attributes` of the training set, `(n, V)` of 0 and 1 (see
`aifs_peft.data.attributes`: a CLIP's vocabulary or captions for images, words for texts, bins for tables). Group labels
neither in training nor in validation. Without the column k-means clusters of each class's untuned latents stand for
attributes, which is logged; clusters have no names, and the method is then close to GEORGE.

Differs from the paper: an epoch has n draws and as many tasks per batch as fit; the trainer's optimizer and selection.
The paper takes 20 batches of 4 tasks of `2 K shots` examples per epoch, SGD, and chooses the epoch by attribute
pseudo-groups. The head variant and clusters for attributes are not in the paper.

Cannot: find what no attribute names; work with fewer than two examples per class in a batch.

Extra cost: one pass of the encoder over the training set before training and, where it is trained, after each epoch;
half of each batch is support. Making attributes costs one captioner or CLIP pass, once.

Defaults: `shots = 10` and `temperature = 10` (CelebA; 5 on Waterbirds) are the paper's; `clusters = 8` is this
library's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.latent.output import LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.attributes.spume_tasks import (
    ClassPool,
    centroid_loss,
    class_pools,
    cluster_attributes,
    spuriousness,
    task_order,
)
from aifs_peft.methods.base import Method, Phase
from aifs_peft.methods.common.last_linear import embed_all, last_features, last_linear
from aifs_peft.methods.common.whole_batch import whole_batch
from aifs_peft.methods.context import EpochContext, Latents, Sampling, StepContext
from aifs_peft.methods.registry import register

logger = logging.getLogger(__name__)

COLUMN = "attributes"
MOST_ATTRIBUTES = 2048


@dataclass(frozen=True)
class Options:
    """Numbers of SPUME.

    Args:
        temperature: T, above 0.
        shots: support and query examples per class and task, at least 1.
        attributes: "auto" (the column where there is one, else clusters), "column" or "clusters".
        clusters: k-means clusters per class where there is no column, at least 2.

    Raises:
        InvalidConfigError: out of range.
    """

    temperature: float = 10.0
    shots: int = 10
    attributes: Literal["auto", "column", "clusters"] = "auto"
    clusters: int = 8

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0.0, above=True)
        check_count("shots", self.shots, 1)
        check_count("clusters", self.clusters, 2)
        check_choice("attributes", self.attributes, ("auto", "column", "clusters"))


@register
class Spume(Method):
    """Meta-learning over attribute pairs that disagree most in accuracy.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("spume").supervision, get("spume").Options().temperature
        ('hints', 10.0)
    """

    name: ClassVar[str] = "spume"
    title: ClassVar[str] = "SPUME"
    paper: ClassVar[str] = "Zheng et al. 2024, Spuriousness-Aware Meta-Learning for Learning Robust Classifiers (KDD)"
    differs: ClassVar[str] = (
        "an epoch has n draws and as many tasks per batch as fit; the trainer's optimizer and selection"
    )
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "hints"
    needs: ClassVar[tuple[str, ...]] = (
        "attribute vocabulary (column `attributes`; clusters of latents without)",
        "a trained embedding (encoder adapter or MLP head; head variant without)",
    )
    cost: ClassVar[str] = "half of each batch is support; one encoder pass per epoch where the encoder is trained"
    Options: ClassVar[type[Any]] = Options
    collects_latents: ClassVar[Phase] = "both"
    latent_head: ClassVar[Literal["linear", "mlp"]] = "mlp"
    learns_first: ClassVar[tuple[str, ...]] = ("memory",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"

    _embeds: bool = True
    _attributes: Tensor | None = None
    _pools: dict[int, ClassPool] | None = None
    _frozen: Latents | None = None

    def columns(self) -> tuple[str, ...]:
        """See `Method.columns`."""
        return (COLUMN,) if self.options.attributes == "column" else ()

    def optional_columns(self) -> tuple[str, ...]:
        """See `Method.optional_columns`."""
        return (COLUMN,) if self.options.attributes == "auto" else ()

    def collects(self, state: AIFSState, encoder_trains: bool) -> bool:
        """See `Method.collects`: epochs draw some examples often and others never, so scores take a pass of all."""
        del state, encoder_trains
        return False

    def prepare(self, context: EpochContext) -> None:
        """Read the attributes, and see what can be trained.

        Raises:
            InvalidConfigError: for a batch without room for every class.
            InvalidInputError: for attributes that are not 0 or 1, or too many.
        """
        self._embeds = context.encoder_trains or last_linear(context.head) is not context.head
        self._attributes = self._pools = self._frozen = None
        if context.batch_size < 2 * context.num_labels:
            raise InvalidConfigError(
                f"method 'spume' needs support and query examples of every class in a batch: at least "
                f"{2 * context.num_labels} for {context.num_labels} classes, got {context.batch_size}; raise the batch "
                "size"
            )
        if not self._embeds:
            logger.warning(
                "SPUME (head variant): a frozen encoder with a linear head has no embedding to train; for the paper's "
                "centroid loss add an encoder adapter, or head='mlp'"
            )
        column = None if self.options.attributes == "clusters" else context.columns.get(COLUMN)
        if column is None:
            logger.warning("SPUME (modified): no column `%s`, k-means clusters of the latents stand for it", COLUMN)
            return
        if column.dim() != 2 or not bool(((column == 0) | (column == 1)).all()):
            raise InvalidInputError(
                f"column {COLUMN!r} must hold a list of 0 and 1 per example, (n, V); got shape {tuple(column.shape)}, "
                f"values in [{int(column.min())}, {int(column.max())}]; make it with aifs_peft.data.attributes"
            )
        if column.shape[1] > MOST_ATTRIBUTES:
            raise InvalidInputError(
                f"{column.shape[1]} attributes are too many for pairs of them (most: {MOST_ATTRIBUTES}); keep the most "
                "frequent"
            )
        self._attributes = column.to(torch.uint8)

    def start(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Cluster where there is no vocabulary, score the attributes, and put the centroids into the head."""
        if not context.encoder_trains:
            self._frozen = latents
        if self._attributes is None:
            codes = context.on_main(
                lambda: cluster_attributes(latents.z, latents.labels, self.options.clusters, context.seed)
            )
            context.state.update(count=False, groups=codes)
        return self._rescore(latents, context, by_head=False)

    def end_of_epoch(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """Score again, by what the model has become."""
        del latents
        return self._rescore(self._all(context), context, by_head=not self._embeds)

    def finish(self, context: EpochContext) -> dict[str, float]:
        """Put the centroids of the model that was kept into the head."""
        if self._embeds:
            self._set_readout(self._all(context), context)
        return {}

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: an epoch of meta-tasks."""
        if self._pools is None:
            self._pools = class_pools(labels, self._vocabulary(context))
        scores = context.state.memory.cpu()
        order = task_order(
            self._pools,
            scores,
            draws=len(labels),
            batch=context.batch_size,
            shots=int(self.options.shots),
            rng=np.random.default_rng([context.seed, context.epoch]),
        )
        return Sampling(order=order)

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`: the centroid loss and "readout", or the head's loss on query examples."""
        if not self._embeds:
            return {"cross_entropy": self._on_queries(output.logits, labels, context)}
        embedding = last_features(context.head, output.z).float()
        readout = last_linear(context.head)(embedding.detach())
        gathered = whole_batch(embedding, context), whole_batch(labels, context)
        shots, temperature = int(self.options.shots), self.options.temperature
        return {
            "cross_entropy": centroid_loss(*gathered, output.logits.shape[1], shots, temperature),
            "readout": self._on_queries(readout, labels, context),
        }

    def _on_queries(self, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        """Mean cross-entropy at the odd places of the whole batch; 0 when it has one place."""
        each = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self.settings.label_smoothing)
        each = whole_batch(each, context)
        return each[1::2].mean() if len(each) > 1 else each.sum() * 0.0

    def _vocabulary(self, context: EpochContext) -> Tensor:
        if self._attributes is not None:
            return self._attributes
        return F.one_hot(context.state.groups.cpu()).to(torch.uint8)

    def _all(self, context: EpochContext) -> Latents:
        """Latents of the whole training set; one pass is enough for a frozen encoder."""
        if self._frozen is not None:
            return self._frozen
        if context.encode is None:
            raise InvalidConfigError("method 'spume' scores attributes on the whole training set: it needs `encode`")
        latents = context.encode()
        if not context.encoder_trains:
            self._frozen = latents
        return latents

    def _rescore(self, latents: Latents, context: EpochContext, *, by_head: bool) -> dict[str, float]:
        embedding = embed_all(context.head, latents.z, context.device)
        if by_head:
            with torch.no_grad():
                last = last_linear(context.head)
                predicted = last(embedding.to(context.device, last.weight.dtype)).argmax(1).cpu()
        else:
            centroids = _centroids(embedding, latents.labels, context.num_labels)
            predicted = (embedding @ centroids.T).argmax(1)
        correct = predicted == latents.labels
        scores = context.on_main(
            lambda: spuriousness(correct, latents.labels, self._vocabulary(context), context.num_labels)
        )
        context.state.update(count=False, memory=scores)
        if self._embeds:
            self._set_readout(latents, context)
        known = scores[scores >= 0]
        return {
            "attributes": float(scores.shape[1]),
            "spuriousness_mean": float(known.mean()) if len(known) else 0.0,
            "spuriousness_max": float(known.max()) if len(known) else 0.0,
            "scored_accuracy": float(correct.float().mean()),
        }

    @torch.no_grad()
    def _set_readout(self, latents: Latents, context: EpochContext) -> None:
        """Make the last layer decide by the cosine to the centroids."""

        def weights() -> tuple[Tensor, Tensor]:
            embedding = embed_all(context.head, latents.z, context.device)
            centroids = _centroids(embedding, latents.labels, context.num_labels)
            return centroids, self.options.temperature / embedding.norm(dim=1).mean().clamp_min(1e-12)

        centroids, scale = context.on_main(weights)
        last = last_linear(context.head)
        last.weight.copy_(scale * centroids)
        if last.bias is not None:
            # A class without examples has no centroid: below every cosine.
            absent = centroids.norm(dim=1) == 0
            last.bias.copy_(torch.where(absent, -2.0 * self.options.temperature, 0.0))


def _centroids(embedding: Tensor, labels: Tensor, num_labels: int) -> Tensor:
    """Unit class means `(K, width)`; zeros for a class without examples."""
    sums = embedding.new_zeros(num_labels, embedding.shape[1]).index_add(0, labels, embedding)
    return F.normalize(sums, dim=1)

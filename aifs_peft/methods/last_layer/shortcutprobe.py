"""ShortcutProbe-style: find directions of prediction shortcuts after training, retrain the last layer without them.

Paper: Zheng, Ye and Zhang 2025, ShortcutProbe: Probing Prediction Shortcuts for Learning Robust Models (IJCAI), arXiv
2505.13910.

Formula (this library's): `h` are features that enter the last linear layer `C`, centred and scaled to a mean square of
1, of a probe set that was held out of training. Detector, on the half of each class with the higher losses: an
orthonormal basis `A` of `K` vectors, started at the directions in which the misclassified examples of a class differ
from the others, descends on `CE(C(s), predicted) + eta CE(C(h - s), y)` with `s = A A' h`: the shortcut's part explains
the predictions, the rest keeps the class. Retraining, on the whole probe set: `CE(C(h), y) + lambda KL(C(h) || C(h'))`,
where `h'` has the shortcut part of a random example of the low-loss halves, which follow the shortcut.

Supervision: labels only.

Differs from the paper: its losses are not known, those here are this library's; the probe set is a share of the
training set. Known from the abstract: post hoc, no group labels; shortcuts are identified in the latent space of a
trained model, which is retrained to be invariant to them. Known from the authors' read-me, for Waterbirds: 2 base
vectors, misclassified ratio 0.3 (read here as the share of weight of misclassified examples), semantic weight eta = 5,
spuriousness weight lambda = 5, SGD with learning rate 1e-4 for the detector and 1e-3 for the last layer, 50 + 50
epochs, fitted on half of the validation set, which on Waterbirds is balanced within each class and so gives group
balance for free. From a secondary source: the halves by loss. Hence "ShortcutProbe-style": no number of it is the
paper's.

Cannot: find a shortcut that causes no mistake on held-out examples (the last layer then stays as it is, and a warning
says so); give good directions from few mistakes; bring back what an encoder has dropped, since only the last layer is
retrained. Metrics logged during training are those of plain training.

Extra cost: one encoder pass after training and two small fits on the probe set; training sees 1 - `probe_share` of the
data.

Defaults: the read-me's for Waterbirds; momentum 0.9, batches of 128 and `probe_share = 0.2` are this library's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aifs_peft._checks import check_count, check_number
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.held_out import require_class_sizes, stratified_rows
from aifs_peft.methods.common.last_linear import last_features, last_linear
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.last_layer.shortcutprobe_directions import (
    Descent,
    high_loss_half,
    invariant_layer,
    shortcut_basis,
)
from aifs_peft.methods.registry import register

logger = logging.getLogger(__name__)

# So that both halves of a class hold an example, and as many are left to train on.
SMALLEST_CLASS = 4


@dataclass(frozen=True)
class ShortcutProbeOptions:
    """Numbers of ShortcutProbe-style retraining.

    The defaults are those of the authors' read-me for Waterbirds, unless marked as this library's.

    Args:
        base_vectors: K, most directions of shortcuts, at least 1; at most one per class with mistakes is found.
        misclassified_ratio: share of the detector's weight on misclassified examples, in [0, 1].
        semantic_weight: eta, at least 0.
        spuriousness_weight: lambda, at least 0.
        detector_epochs: of the detector, at least 0.
        epochs: of the last layer, at least 0.
        detector_learning_rate: above 0.
        learning_rate: of the last layer, above 0.
        batch_size: of both, at least 1; this library's.
        probe_share: share of each class that is held out of training, in (0, 0.5]; this library's.

    Raises:
        InvalidConfigError: for a value out of range.
    """

    base_vectors: int = 2
    misclassified_ratio: float = 0.3
    semantic_weight: float = 5.0
    spuriousness_weight: float = 5.0
    detector_epochs: int = 50
    epochs: int = 50
    detector_learning_rate: float = 1e-4
    learning_rate: float = 1e-3
    batch_size: int = 128
    probe_share: float = 0.2

    def __post_init__(self) -> None:
        for name, low in (("base_vectors", 1), ("detector_epochs", 0), ("epochs", 0), ("batch_size", 1)):
            check_count(name, getattr(self, name), low)
        check_number("misclassified_ratio", self.misclassified_ratio, 0.0, 1.0)
        check_number("semantic_weight", self.semantic_weight, 0.0)
        check_number("spuriousness_weight", self.spuriousness_weight, 0.0)
        check_number("detector_learning_rate", self.detector_learning_rate, 0.0, above=True)
        check_number("learning_rate", self.learning_rate, 0.0, above=True)
        check_number("probe_share", self.probe_share, 0.0, 0.5, above=True)


@register
class ShortcutProbe(Method):
    """Plain training on a part of the data, then a last layer that is invariant to shortcuts found on the rest.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("shortcutprobe").options.base_vectors
        2
    """

    name: ClassVar[str] = "shortcutprobe"
    title: ClassVar[str] = "ShortcutProbe-style"
    paper: ClassVar[str] = "Zheng et al. 2025, ShortcutProbe: Probing Prediction Shortcuts (IJCAI)"
    differs: ClassVar[str] = (
        "its losses are not known, those here are this library's; the probe set is a share of the training set"
    )
    cost: ClassVar[str] = "a fifth of the training set held out; one encoder pass and two small fits after training"
    Options: ClassVar[type[Any]] = ShortcutProbeOptions
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"
    redraws_held_out = True

    def check(self, setup: Setup) -> None:
        """See `Method.check`; the head must have a last linear layer."""
        super().check(setup)
        last_linear(setup.head)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: refuses classes too small to be split, before training."""
        assert context.labels is not None  # noqa: S101 - both training loops give them
        require_class_sizes(context.labels, SMALLEST_CLASS, self.name)

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: the probe set is never trained on."""
        return Sampling(weights=(~self._probe(labels, context.seed)).double())

    def finish(self, context: EpochContext) -> dict[str, float]:
        """See `Method.finish`: refits the last layer on the probe set."""
        assert context.encode is not None  # noqa: S101 - both training loops give it
        latents = context.encode()
        rows = self._probe(latents.labels, context.seed)
        layer = last_linear(context.head)
        with torch.no_grad():
            features = last_features(context.head, latents.z[rows].to(context.device)).float().cpu()
        labels = latents.labels[rows]
        weight, bias, numbers = context.on_main(lambda: self._refit(features, labels, layer, context.seed))
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        return dict(numbers)

    def _probe(self, labels: Tensor, seed: int) -> Tensor:
        """Which examples form the probe set: the same share of each class, at least two, at most half."""
        return stratified_rows(labels, self.options.probe_share, seed, fewest=2)

    def _refit(
        self, features: Tensor, labels: Tensor, layer: nn.Linear, seed: int
    ) -> tuple[Tensor, Tensor | None, dict[str, float]]:
        """Weight and bias for `layer`, in its own coordinates, and numbers to log."""
        options = self.options
        weight = layer.weight.detach().float().cpu()
        bias = None if layer.bias is None else layer.bias.detach().float().cpu()
        # Without a bias the layer cannot absorb a shift of its input.
        centre = torch.zeros(features.shape[1]) if bias is None else features.mean(0)
        scale = (features - centre).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        h = (features - centre) / scale
        scaled = (weight * scale, None if bias is None else bias + weight @ centre)
        logits = F.linear(h, *scaled)
        high = high_loss_half(F.cross_entropy(logits, labels, reduction="none"), labels)
        basis = shortcut_basis(
            h, labels, scaled, high.nonzero().squeeze(1), count=options.base_vectors,
            mistake_share=options.misclassified_ratio, semantic_weight=options.semantic_weight,
            descent=Descent(options.detector_epochs, options.detector_learning_rate, options.batch_size, seed),
        )  # fmt: skip
        mistakes = float((logits.argmax(1) != labels).float().mean())
        numbers = {"probe_mistakes": mistakes, "shortcut_directions": float(basis.shape[1])}
        if not basis.shape[1]:
            logger.warning(
                "no class of the probe set (%d examples) has both mistakes and others, so no shortcut shows: the last "
                "layer stays as it is; raise probe_share, or train for fewer epochs",
                len(labels),
            )
            return weight, bias, numbers
        low = (~high).nonzero().squeeze(1)
        donors = low[torch.randint(len(low), (len(labels),), generator=torch.Generator().manual_seed(seed))]
        new, shift = invariant_layer(
            h, labels, scaled, basis, donors, spuriousness_weight=options.spuriousness_weight,
            descent=Descent(options.epochs, options.learning_rate, options.batch_size, seed),
        )  # fmt: skip
        return new / scale, None if shift is None else shift - new @ centre / scale, numbers

"""What differs where the encoder is trained: balance by logits instead of repeated draws, and a new last layer.

An encoder learns the few conflicting examples by heart when they are drawn again and again; then their loss is gone and
the shortcut stays. Two things avoid most of it. Examples are drawn as they are, and the logits of training carry the
log shares of the classes among the examples of the same attribute value (logit adjustment, Menon et al. 2021): what is
left for the model to learn is what the attribute does not say. And the last layer is fitted anew after training by
logistic regression that weighs all cells alike. Its L2 penalty is a strong one: conflicting examples that were learnt
by heart look clearer than new ones will, and the penalty errs the other way.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from aifs_peft.methods.common.last_linear import embed_all, last_linear
from aifs_peft.methods.context import EpochContext, Latents

logger = logging.getLogger(__name__)

# Standard deviation of a component, as a share of the largest, below which it is left out: unit variance would blow up
# rounding there, of the latents and of the training, a hundred times and more.
LEAST_SCALE = 1e-2


def log_shares(labels: Tensor, groups: Tensor | None, num_labels: int) -> Tensor:
    """Log share of each class among the examples of the same attribute value, one example added to every cell.

    Args:
        labels: of the training set, `(n,)` int64 in `[0, num_labels)`.
        groups: attribute values, `(n,)` int64; None where none was inferred: the classes' own shares.
        num_labels: number of classes K.

    Returns:
        `(A, K)` float32, one row per attribute value; one row without `groups`.

    Example:
        >>> log_shares(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 2).exp()
        tensor([[0.7500, 0.2500],
                [0.3333, 0.6667]])
    """
    labels = labels.cpu()
    values = torch.zeros_like(labels) if groups is None else groups.cpu()
    counts = torch.bincount(values * num_labels + labels, minlength=(int(values.max()) + 1) * num_labels)
    cells = counts.reshape(-1, num_labels).double() + 1.0
    return (cells / cells.sum(1, keepdim=True)).log().float()


def fit_last_layer(
    features: Tensor, labels: Tensor, groups: Tensor, num_labels: int, *, seed: int, penalty: float
) -> tuple[Tensor, Tensor] | None:
    """Logistic regression on features, balanced over label and attribute.

    Args:
        features: of the training set, as they enter the last layer, `(n, d)`.
        labels: `(n,)` int64.
        groups: attribute values `(n,)`, of several attributes their joint values.
        num_labels: number of classes K.
        seed: of the random parts of the principal components.
        penalty: L2 penalty on coordinates of unit variance.

    Returns:
        Weight `(K, d)` and bias `(K,)`, float64; None where a class has no example or all features are equal.

    Example:
        >>> y, a = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 0])
        >>> x = torch.stack([y + 0.0, a + 0.0], dim=1)
        >>> weight, _ = fit_last_layer(x, y, a, 2, seed=0, penalty=0.1)
        >>> bool(weight[1, 0] > 5 * weight[1, 1].abs())
        True
    """
    from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
    from aifs_peft.discovery.mixture.joint import marginals
    from aifs_peft.discovery.principal_components import principal_components

    if len(torch.unique(labels)) < num_labels or bool((features == features[0]).all()):
        return None
    Z, y = features.numpy(), labels.numpy()
    rng = np.random.default_rng(seed)
    reduction = principal_components(Z, rng=rng)
    # Latents after a LayerNorm lie in a plane. Beside it there is only rounding, which unit variance would blow up.
    kept = reduction.scale > LEAST_SCALE * reduction.scale[0]
    reduction = replace(reduction, components=reduction.components[kept], scale=reduction.scale[kept])
    joint = num_labels
    while joint <= int(groups.max()):
        joint *= num_labels
    R = marginals(np.eye(joint, dtype=np.float32)[groups.numpy()], num_labels)
    head = fit_head(reduction.transform(Z), y, R, HeadSetting("balanced", penalty), rng=rng)
    weight = (head.weight / reduction.scale) @ reduction.components
    return torch.as_tensor(weight), torch.as_tensor(head.bias - weight @ reduction.mean)


def refit_last_layer(groups: Tensor, penalty: float, context: EpochContext) -> Latents | None:
    """Fit the last layer of the head anew on the latents of the trained encoder, and write it into the head.

    Args:
        groups: attribute values of the training examples, `(n,)`.
        penalty: see `fit_last_layer`.
        context: of the end of training.

    Returns:
        The latents, or None where the layer stays as it was trained, which is logged with its reason.

    Example:
        >>> from types import SimpleNamespace
        >>> y, a = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 0])
        >>> latents = SimpleNamespace(z=torch.stack([y + 0.0, a + 0.0], dim=1), labels=y)
        >>> head, on_main = torch.nn.Linear(2, 2), lambda work: work()
        >>> context = SimpleNamespace(
        ...     head=head, encode=lambda: latents, device="cpu", on_main=on_main, num_labels=2, seed=0
        ... )
        >>> refit_last_layer(a, 0.1, context) is latents, head(latents.z).argmax(dim=1).tolist()
        (True, [0, 0, 0, 1, 1, 1])
    """
    assert context.encode is not None  # noqa: S101 - every trainer gives it
    latents, layer = context.encode(), last_linear(context.head)
    if layer.bias is None:
        logger.info("the last layer has no bias, so it stays as it was trained")
        return None
    features = embed_all(context.head, latents.z, context.device)
    fitted = context.on_main(
        lambda: fit_last_layer(features, latents.labels, groups, context.num_labels, seed=context.seed, penalty=penalty)
    )
    if fitted is None:
        logger.info("the last layer stays as it was trained: a class has no example, or all features are equal")
        return None
    with torch.no_grad():
        layer.weight.copy_(fitted[0])
        layer.bias.copy_(fitted[1])
    return latents

"""The contrastive loss of image and text latents, and what an intervention on the pairs of a batch is.

A pair of an image and its text is changed along an attribute: both latents are moved to the other value of the
attribute. The image then is that of the same thing with the other value, and so is the text, if it names the value; a
text that does not name it has nothing to move along and stays. The moved pairs must match as the pairs do, so what
matches an image to its text cannot be what the attribute alone tells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A value with fewer examples of a class in a batch says too little about the direction.
MIN_CELL = 2


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """The mean of both cross-entropies of CLIP: of texts given an image, and of images given a text.

    Args:
        images: latents, `(batch, d)`, of any length.
        texts: latents of the texts, in the order of the images.
        scale: factor of the cosines, CLIP's `exp(logit_scale)`.
        same: `(batch, batch)` bool, which texts are the same: each counts as true for the images of all of them, in
            equal parts. None for the diagonal.

    Returns:
        The loss, a scalar.

    Example:
        >>> float(contrastive_loss(torch.eye(2), torch.eye(2), 100.0))
        0.0
        >>> same = torch.ones(2, 2, dtype=torch.bool)  # both texts are the same: nothing to tell apart
        >>> round(float(contrastive_loss(torch.eye(2), torch.ones(2, 2), 100.0, same)), 4)
        0.6931
    """
    cosines = F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    target = torch.eye(len(images), device=cosines.device) if same is None else same.to(cosines)
    logits = scale * cosines
    given_image = -(F.log_softmax(logits, 1) * target).sum(1) / target.sum(1)
    given_text = -(F.log_softmax(logits, 0) * target).sum(0) / target.sum(0)
    return (given_image.mean() + given_text.mean()) / 2


def mirrored(latents: Tensor, classes: Tensor, values: Tensor) -> Tensor:
    """Latents moved to the other value of an attribute: reflected along the direction in which its values differ.

    The direction is estimated in the batch, as the mean over the classes of the difference of the two values' means
    within the class, weighted by how precise it is; the middle is that of the two values. No gradient reaches either.
    With more than two values, those are compared that the batch has most of.

    Args:
        latents: `(batch, d)`.
        classes: what each example shows, `(batch,)` integers.
        values: the attribute's inferred value, `(batch,)` integers.

    Returns:
        `(batch, d)`; equal to `latents` for examples with neither of the two values, and for all where no class has two
        examples of both.

    Example:
        >>> z = torch.tensor([[1.0, 3.0], [1.0, 4.0], [-1.0, 3.0], [-1.0, 4.0]])
        >>> mirrored(z, torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 0, 0])).tolist()
        [[-1.0, 3.0], [-1.0, 4.0], [1.0, 3.0], [1.0, 4.0]]
    """
    pair = _largest_two(values)
    if pair is None:
        return latents
    z = latents.detach()
    total, weight = torch.zeros_like(z[0]), 0.0
    for c in classes.unique():
        own, other = (classes == c) & (values == pair[1]), (classes == c) & (values == pair[0])
        n, m = int(own.sum()), int(other.sum())
        if min(n, m) >= MIN_CELL:
            precision = n * m / (n + m)
            total, weight = total + precision * (z[own].mean(0) - z[other].mean(0)), weight + precision
    if not weight or not bool(total.norm() > 0):
        return latents
    unit = F.normalize(total, dim=0)
    middle = (z[values == pair[0]].mean(0) + z[values == pair[1]].mean(0)) @ unit / 2
    moved = latents - 2 * (latents @ unit - middle)[:, None] * unit
    return torch.where(((values == pair[0]) | (values == pair[1]))[:, None], moved, latents)


def _largest_two(values: Tensor) -> tuple[int, int] | None:
    """The two values that a batch has most of, smaller first."""
    found, counts = values.unique(return_counts=True)
    if len(found) < 2:
        return None
    largest = found[counts.argsort(descending=True, stable=True)[:2]].sort().values
    return int(largest[0]), int(largest[1])

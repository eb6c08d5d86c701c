"""Group DRO's loss and its group weights, for true groups and for inferred ones.

At each step, with `L_g` the mean loss of group g in the batch and `q` the weights of the groups, which sum to one:

    q_g <- q_g exp(eta (L_g + C / sqrt(n_g))),  q <- q / sum q,  loss = sum_g q_g L_g

Source: Sagawa, Koh, Hashimoto and Liang 2020, Distributionally Robust Neural Networks for Group Shifts. This library's
additions: the whole batch of all processes is one batch, and a group that is absent from it keeps its weight up to
normalisation, with the size adjustment too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.common.whole_batch import group_means
from aifs_peft.methods.context import StepContext


def uniform_weights(groups: Tensor, num_groups: int) -> Tensor:
    """Group weights to start from: equal for every group that has examples, 0 for the others.

    Args:
        groups: of all training examples, `(n,)` int64 in `[0, num_groups)`.
        num_groups: G.

    Returns:
        `(G,)` float64, summing to one.

    Example:
        >>> uniform_weights(torch.tensor([0, 0, 2]), 3)
        tensor([0.5000, 0.0000, 0.5000], dtype=torch.float64)
    """
    present = torch.bincount(groups, minlength=num_groups) > 0
    return present.double() / present.sum()


def size_adjustment(groups: Tensor, num_groups: int, strength: float) -> Tensor:
    """`C / sqrt(n_g)`, what is added to a group's loss before its weight is updated: small groups generalise worse.

    Args:
        groups: of all training examples, `(n,)` int64 in `[0, num_groups)`.
        num_groups: G.
        strength: C, at least 0; 0 adds nothing.

    Returns:
        `(G,)` float64; 0 for a group without examples.

    Raises:
        InvalidConfigError: for a negative strength.

    Example:
        >>> size_adjustment(torch.tensor([0, 0, 0, 0, 1]), 2, 1.0)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    check_number("adjustment", strength, 0.0)
    sizes = torch.bincount(groups, minlength=num_groups).double()
    return torch.where(sizes > 0, strength / sizes.clamp_min(1.0).sqrt(), 0.0)


def updated_weights(weights: Tensor, losses: Tensor, present: Tensor, eta: float) -> Tensor:
    """One step of exponentiated gradient ascent on the group weights.

    Args:
        weights: `(G,)`, at least 0, summing to one.
        losses: `(G,)`, the adjusted losses of the groups.
        present: `(G,)` bool, which of them the batch holds; the others count as a loss of 0.
        eta: step size.

    Returns:
        `(G,)` float64, summing to one. A weight of 0 stays 0.

    Example:
        >>> q = updated_weights(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 3.0]), torch.tensor([True, True]), 0.5)
        >>> round(float(q[1] / q[0]), 4) == round(float(torch.tensor(1.0).exp()), 4)
        True
    """
    # In logarithms, so that a large loss does not overflow; log 0 is -inf and becomes 0 again.
    step = torch.where(present, eta * losses.double(), 0.0)
    return (weights.double().log() + step).softmax(0)


def group_dro_loss(
    losses: Tensor,
    groups: Tensor,
    weights: Tensor,
    context: StepContext,
    *,
    eta: float,
    adjustment: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of a batch under updated group weights, and these weights.

    The caller keeps the weights, as a rule with `context.state.update(count=False, memory=weights)`. They come out
    the same on every process.

    Args:
        losses: of this process's examples, `(batch,)` with their graph.
        groups: theirs, `(batch,)` int64 in `[0, G)`.
        weights: before this step, `(G,)`, see `uniform_weights`.
        context: the batch.
        eta: step size of the weights, at least 0.
        adjustment: `(G,)`, see `size_adjustment`; it moves the weights and is not part of the loss. None for none.

    Returns:
        The scalar `sum_g q_g L_g` with its graph, and the new weights `(G,)` float64, detached.

    Raises:
        InvalidConfigError: if `groups` names a group that `weights` has no entry for, or the sizes differ.

    Example:
        >>> from aifs_peft.latent.state import AIFSState
        >>> g = torch.tensor([0, 1, 1])
        >>> context = StepContext(lambda z: z, AIFSState(1), g, g, torch.Generator(), lambda w, k: g, 0)
        >>> losses = torch.tensor([1.0, 2.0, 4.0])
        >>> loss, q = group_dro_loss(losses, g, torch.tensor([0.5, 0.5]), context, eta=0.0)
        >>> float(loss), q.tolist()
        (2.0, [0.5, 0.5])
    """
    num_groups = len(weights)
    if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < num_groups:
        raise InvalidConfigError(
            f"a batch holds groups {groups.unique().tolist()}, the weights know {num_groups}; resume with the groups "
            "the run was started with"
        )
    if adjustment is not None and len(adjustment) != num_groups:
        raise InvalidConfigError(f"adjustment must have one value per group, {num_groups}; got {len(adjustment)}")
    means, counts = group_means(losses, groups, num_groups, context)
    adjusted = means.detach().double()
    if adjustment is not None:
        adjusted = adjusted + adjustment.to(adjusted.device)
    new = updated_weights(weights.to(means.device), adjusted, counts > 0, eta)
    return (new.to(means.dtype) * means).sum(), new

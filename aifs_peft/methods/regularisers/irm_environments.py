"""Inferred environments for IRM: EIIL's two, in closed form, and the checks that every partition must pass.

EIIL (Creager et al., ICML 2021, "Environment Inference for Invariant Learning") looks for the split of the training
set that violates IRM's criterion most for a fixed reference model. With `s_i = <p_i - onehot(y_i), logits_i>`, the
derivative of example i's loss with respect to a multiplier of its logits at 1, and soft assignments `q_i` in [0, 1],
it maximises `1/2 {(mean_i q_i s_i)^2 + (mean_i (1 - q_i) s_i)^2}`.

The paper maximises over `q` by 10,000 steps of gradient ascent. Here the maximum is computed directly: the sum of the
two means is fixed, so the objective is convex in the scalar `mean_i q_i s_i` and its maximum lies at an end of that
scalar's range. One environment is `{s_i > 0}`, the other `{s_i <= 0}`. The gradient ascent gives the same split (see
the tests).

With two classes `s_i = -(1 - p_true) * margin_i`, so `s_i > 0` exactly where the reference errs: binary EIIL returns
the error set, the one that JTT upweights. What it finds depends on the reference alone, which must rely on the shortcut
and still make mistakes, hence be under-trained. One that fits every example leaves an environment empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods.common.reference_head import train_reference


def multiplier_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Derivative of each example's cross-entropy with respect to a multiplier of its logits, at 1.

    `s_i = d/dw CE(w * logits_i, y_i) = <softmax(logits_i) - onehot(y_i), logits_i>`: no second backward pass is needed.

    Args:
        logits: `(n, classes)`.
        labels: `(n,)` int64.

    Returns:
        `(n,)`, with the graph of the logits.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
        >>> [round(value, 3) for value in multiplier_gradients(logits, torch.tensor([1, 0])).tolist()]
        [-0.238, 1.762]
    """
    expected = (logits.softmax(1) * logits).sum(1)
    return expected - logits.gather(1, labels[:, None]).squeeze(1)


def sign_split(logits: Tensor, labels: Tensor) -> Tensor:
    """EIIL's two environments for a reference model.

    Args:
        logits: of the reference on the training set, `(n, classes)`.
        labels: `(n,)` int64.

    Returns:
        `(n,)` int64: 1 where the multiplier's gradient is positive, with two classes the reference's mistakes, else 0.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
        >>> sign_split(logits, torch.tensor([0, 1, 1]))
        tensor([0, 0, 1])
    """
    # Float64: for a near tie the sign of the difference would otherwise be one of rounding.
    return (multiplier_gradients(logits.double(), labels) > 0).long()


def check_environments(environments: Tensor, labels: Tensor, min_examples: int, remedy: str) -> None:
    """Refuse two inferred environments that one could not compare.

    Args:
        environments: `(n,)` int64, 0 or 1.
        labels: `(n,)` int64.
        min_examples: how many examples of every class that occurs each environment must hold, at least 1.
        remedy: what to do about it, for the message.

    Raises:
        InvalidConfigError: naming the environment and the class that fall short.

    Example:
        >>> check_environments(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 1, "stop earlier")
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: the inferred environment 1 (1 of 3 examples) holds 0 examples of class 0, \
fewer than min_examples=1: risks per environment would not be comparable; stop earlier
    """
    for environment in (0, 1):
        inside = environments == environment
        for label in labels.unique().tolist():
            count = int((inside & (labels == label)).sum())
            if count < min_examples:
                raise InvalidConfigError(
                    f"the inferred environment {environment} ({int(inside.sum())} of {len(labels)} examples) holds "
                    f"{count} examples of class {label}, fewer than min_examples={min_examples}: risks per environment "
                    f"would not be comparable; {remedy}"
                )


def given_environments(values: Tensor, min_examples: int) -> Tensor:
    """Environments from a column of any integers: numbered from 0.

    Args:
        values: `(n,)` integers, one value per environment.
        min_examples: how many examples each must hold.

    Returns:
        `(n,)` int64 in `[0, E)`.

    Raises:
        InvalidInputError: for fewer than two environments, one with too few examples, or examples of none.

    Example:
        >>> given_environments(torch.tensor([7, 3, 7]), 1)
        tensor([1, 0, 1])
    """
    missing = int((values < 0).sum())
    if missing:
        raise InvalidInputError(
            f"the column 'environment' is missing (negative) for {missing} of {len(values)} examples; leave them out, "
            'or let environments be inferred: environments="eiil" or "xrm"'
        )
    codes: Tensor
    found, codes, counts = torch.unique(values, return_inverse=True, return_counts=True)
    if values.dim() != 1 or len(found) < 2 or int(counts.min()) < min_examples:
        sizes = dict(zip(found.tolist(), counts.tolist(), strict=True))
        raise InvalidInputError(
            "the column 'environment' must hold one integer per example and at least two environments of "
            f"{min_examples} or more examples; got shape {tuple(values.shape)} with {sizes}. Environments can be "
            'inferred instead: environments="eiil" or "xrm"'
        )
    return codes


def eiil_environments(
    z: Tensor,
    y: Tensor,
    num_labels: int,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> Tensor:
    """EIIL on latents: an under-trained linear reference, then the sign split.

    Args:
        z: latents `(n, dim)`.
        y: labels `(n,)` int64.
        num_labels: number of classes.
        epochs: of the reference, few.
        learning_rate: of the reference, on standardised latents.
        weight_decay: of the reference.
        seed: of the order of its batches.

    Returns:
        `(n,)` int64 of 0 and 1, see `sign_split`.

    Example:
        >>> y = torch.arange(200) % 2
        >>> shortcut = torch.where(torch.arange(200) < 10, 1 - y, y)
        >>> z = 4.0 * shortcut[:, None]
        >>> found = eiil_environments(z, y, 2, epochs=2, learning_rate=1e-3, weight_decay=0.0, seed=0)
        >>> bool((found == (shortcut != y)).all())
        True
    """
    head = train_reference(
        z, y, num_labels, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed
    )
    with torch.no_grad():
        logits: Tensor = head(z.float())
    return sign_split(logits, y)

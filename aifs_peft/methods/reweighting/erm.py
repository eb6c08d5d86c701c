"""Plain training (empirical risk minimisation): the mean cross-entropy and nothing else.

Paper: Vapnik 1992, Principles of Risk Minimization for Learning Theory.

Formula: `L = mean_i CE(C(z_i), y_i)`.

Supervision: labels only.

Differs from the paper: nothing.

Cannot: ignore a shortcut that predicts the labels of the training set.

Extra cost: none.

Defaults: no numbers of its own.
"""

from __future__ import annotations

from typing import ClassVar

from aifs_peft.methods.base import Method
from aifs_peft.methods.registry import register


@register
class ERM(Method):
    """Plain training, the baseline of everything else.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("erm").collects_latents
        'none'
    """

    name: ClassVar[str] = "erm"
    title: ClassVar[str] = "ERM"
    paper: ClassVar[str] = "Vapnik 1992, Principles of Risk Minimization for Learning Theory"
    differs: ClassVar[str] = "nothing"

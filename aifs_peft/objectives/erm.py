"""Empirical risk minimisation: the mean cross-entropy and nothing else."""

from __future__ import annotations

from typing import ClassVar

from aifs_peft.objectives.base import Objective
from aifs_peft.objectives.registry import register


@register
class ERM(Objective):
    """Plain training, the baseline of everything else.

    Example:
        >>> from aifs_peft.objectives import get
        >>> get("erm").collects_latents
        'none'
    """

    name: ClassVar[str] = "erm"
    title: ClassVar[str] = "ERM"
    paper: ClassVar[str] = "Vapnik 1992, Principles of Risk Minimization for Learning Theory"

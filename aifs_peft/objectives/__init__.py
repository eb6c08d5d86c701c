"""Training methods: AIFS and what it is compared with, each one file behind one small interface.

`get(name)` gives the class of a method, `names()` lists them, `register` adds one. Packages can add their own with an
entry point in the group `aifs_peft.objectives`.
"""

from aifs_peft.objectives.base import (
    EpochContext,
    Latents,
    Objective,
    ObjectiveSettings,
    StepContext,
)
from aifs_peft.objectives.registry import get, names, register

__all__ = [
    "EpochContext",
    "Latents",
    "Objective",
    "ObjectiveSettings",
    "StepContext",
    "get",
    "names",
    "register",
]

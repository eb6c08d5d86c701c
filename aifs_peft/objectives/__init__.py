"""Training methods: AIFS and what it is compared with, each one file behind one small interface.

`get(name)` gives the class of a method, `names()` lists them, `register` adds one. Packages can add their own with an
entry point in the group `aifs_peft.objectives`.
"""

from aifs_peft.objectives.base import Objective
from aifs_peft.objectives.context import EpochContext, Latents, RegionPool, Regions, Sampling, Setup, StepContext
from aifs_peft.objectives.registry import get, names, register
from aifs_peft.objectives.settings import NoOptions, ObjectiveSettings

__all__ = [
    "EpochContext",
    "Latents",
    "NoOptions",
    "Objective",
    "ObjectiveSettings",
    "RegionPool",
    "Regions",
    "Sampling",
    "Setup",
    "StepContext",
    "get",
    "names",
    "register",
]

"""Training methods: AIFS and what it is compared with, each one file behind one small interface.

`names()` lists them, `get(name)` gives the class of one, `make(name)` the method itself with its default numbers;
`register` adds one. Packages can add their own with an
entry point in the group `aifs_peft.methods`.
"""

from aifs_peft.methods.base import Method
from aifs_peft.methods.context import (
    EpochContext,
    Latents,
    RegionPool,
    Regions,
    Sampling,
    Setup,
    StepContext,
    TrainingPlan,
)
from aifs_peft.methods.registry import get, make, names, register
from aifs_peft.methods.settings import MethodSettings, NoOptions

__all__ = [
    "EpochContext",
    "Latents",
    "Method",
    "MethodSettings",
    "NoOptions",
    "RegionPool",
    "Regions",
    "Sampling",
    "Setup",
    "StepContext",
    "TrainingPlan",
    "get",
    "make",
    "names",
    "register",
]

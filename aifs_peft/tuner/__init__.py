"""AIFS as a PEFT method: configuration, layer, model and registration.

The only folder that touches PEFT's internals.
"""

from aifs_peft.tuner.config import AIFSConfig, AIFSPeftType
from aifs_peft.tuner.layer import AIFSLayer, LatentOutput, find_aifs_layer
from aifs_peft.tuner.model import AIFSModel
from aifs_peft.tuner.registration import register
from aifs_peft.tuner.state import AIFSState
from aifs_peft.tuner.untuned import untuned

__all__ = [
    "AIFSConfig",
    "AIFSLayer",
    "AIFSModel",
    "AIFSPeftType",
    "AIFSState",
    "LatentOutput",
    "find_aifs_layer",
    "register",
    "untuned",
]

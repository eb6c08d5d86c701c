"""AIFS as a PEFT method: configuration, layer, model and registration. Importing it registers AIFS with PEFT."""

from aifs_peft.latent.output import LatentOutput
from aifs_peft.latent.state import AIFSState
from aifs_peft.tuner.config import AIFSConfig, AIFSPeftType
from aifs_peft.tuner.initial_encoder import initial_encoder
from aifs_peft.tuner.layer import AIFSLayer, find_aifs_layer
from aifs_peft.tuner.model import AIFSModel
from aifs_peft.tuner.registration import register

__all__ = [
    "AIFSConfig",
    "AIFSLayer",
    "AIFSModel",
    "AIFSPeftType",
    "AIFSState",
    "LatentOutput",
    "find_aifs_layer",
    "initial_encoder",
    "register",
]

register()

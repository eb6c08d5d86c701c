"""Base models: loading by name, models of our own, encoders, and their token features."""

from aifs_peft.models.encoders import TabularEncoder
from aifs_peft.models.fused import FusedClassifier, FusedConfig
from aifs_peft.models.latent_classifier import LatentClassifier, LatentClassifierConfig
from aifs_peft.models.loading import commit_of, load_model, load_processor, resolve_model
from aifs_peft.models.tabular import TabularClassifier, TabularConfig
from aifs_peft.models.tokens import TokenMap, resolve_tokens
from aifs_peft.models.zero_shot import wise_ft, zero_shot_classifier

__all__ = [
    "FusedClassifier",
    "FusedConfig",
    "LatentClassifier",
    "LatentClassifierConfig",
    "TabularClassifier",
    "TabularConfig",
    "TabularEncoder",
    "TokenMap",
    "commit_of",
    "load_model",
    "load_processor",
    "resolve_model",
    "resolve_tokens",
    "wise_ft",
    "zero_shot_classifier",
]

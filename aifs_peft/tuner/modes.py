"""Which parts of a model train, and the one rule that keeps the others in evaluation mode.

`AIFSModel.train` applies it, so it holds in every loop that calls `model.train()`: `Trainer`, Accelerate, or one's own.
The opposite, a block in evaluation mode that puts every mode back, is `latent._support.evaluating`.
"""

from __future__ import annotations

from torch import nn

from aifs_peft.tuner._peft import AuxiliaryTrainingWrapper
from aifs_peft.tuner.layer import AIFSLayer
from aifs_peft.tuner.trained_copy import TrainedCopy


def trains_encoder(model: nn.Module, layer: AIFSLayer) -> bool:
    """Whether any parameter outside the AIFS layer is trained.

    Args:
        model: the whole model.
        layer: its AIFS layer.

    Example:
        >>> from peft import get_peft_model
        >>> from aifs_peft.models import LatentClassifier, TabularEncoder
        >>> from aifs_peft.tuner import AIFSConfig, find_aifs_layer
        >>> model = get_peft_model(LatentClassifier(TabularEncoder(4, 8), num_labels=2), AIFSConfig())
        >>> trains_encoder(model, find_aifs_layer(model))
        False
    """
    inside = {id(parameter) for parameter in layer.parameters()}
    return any(p.requires_grad and id(p) not in inside for p in model.parameters())


def freeze_modes(model: nn.Module, layer: AIFSLayer) -> None:
    """Put what is frozen into evaluation mode, after everything was put into training mode.

    A frozen encoder as a whole, but for layers that no checkpoint holds: it then gives the same latents in training as
    in discovery and evaluation. Of an encoder that is trained, the normalisation layers whose parameters are frozen:
    in training mode they would overwrite their running statistics.

    Args:
        model: the base model with its adapters; its own flag stays.
        layer: its AIFS layer, left as it is.
    """
    inside = set(layer.modules())
    copies = [module for module in model.modules() if isinstance(module, TrainedCopy)]
    new = [copy for whole in copies for name, copy in whole.aifs_copy.items() if whole.aifs_is_new[name]]
    not_counted = {id(p) for module in (layer, *new) for p in module.parameters()}
    tuned = any(p.requires_grad and id(p) not in not_counted for p in model.parameters())
    wrappers = [module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    trained_whole = {module for whole in (*wrappers, *copies) for module in whole.modules()}
    for module in model.modules():
        if module in inside or module is model or not module.training:
            continue
        statistics = getattr(module, "running_mean", None) is not None
        still = statistics and not any(p.requires_grad for p in module.parameters())
        if module not in trained_whole and (not tuned or still):
            module.training = False

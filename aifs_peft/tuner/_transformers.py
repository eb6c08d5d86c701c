"""The one private name of transformers that this folder reads. Written against transformers 5.23.

`tests/tuner/test_tuner_new_layers.py` says what is expected of it.
"""

from __future__ import annotations

from torch import nn

# `from_pretrained` puts this attribute on every parameter that it took from the checkpoint, and on tied ones; what it
# lists as missing or mismatched is drawn at random and does not carry it. Copies of a model lose it.
_FROM_CHECKPOINT = "_is_hf_initialized"


def not_in_checkpoint(model: nn.Module) -> set[int] | None:
    """Identities of the parameters that `from_pretrained` did not find in the checkpoint.

    Args:
        model: a base model, or one that holds base models.

    Returns:
        `id` of each such parameter; None where no parameter carries a mark, so that nothing is known: the model was
        made from a configuration, or copied after it was loaded.
    """
    parameters = list(model.parameters())
    if not any(hasattr(parameter, _FROM_CHECKPOINT) for parameter in parameters):
        return None
    return {id(parameter) for parameter in parameters if not getattr(parameter, _FROM_CHECKPOINT, False)}

"""The private names of transformers that this folder reads. Written against transformers 5.23.

`tests/tuner/test_tuner_whole_layers.py` and `tests/tuner/test_tuner_reentrant.py` say what is expected of them.
"""

from __future__ import annotations

from torch import nn

# `from_pretrained` puts this attribute on every parameter that it took from the checkpoint, and on tied ones; what it
# lists as missing or mismatched is drawn at random and does not carry it. Copies of a model lose it.
_FROM_CHECKPOINT = "_is_hf_initialized"
# A layer that is checkpointed holds the function that does it, a `functools.partial` of torch's; a model whose input
# embeddings were made to need gradients holds the hooks that do so.
_CHECKPOINTING, _CHECKPOINTS_BY = "gradient_checkpointing", "_gradient_checkpointing_func"
_INPUT_HOOKS = "_require_grads_hooks"


def is_reentrant(module: nn.Module) -> bool:
    """Whether this very module recomputes its content in torch's reentrant way.

    Args:
        module: a layer.
    """
    # Read from `__dict__`: the wrappers of PEFT look up further names in what they wrap.
    own = vars(module)
    if own.get(_CHECKPOINTING) is not True or _CHECKPOINTS_BY not in own:
        return False
    given = getattr(own[_CHECKPOINTS_BY], "keywords", {})
    # Where it is not said, torch takes the reentrant way.
    return given.get("use_reentrant") is not False


def has_input_gradients(model: nn.Module) -> bool:
    """Whether the outputs of a model's input embeddings were made to need gradients.

    Args:
        model: of transformers.
    """
    return bool(getattr(model, _INPUT_HOOKS, None))


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

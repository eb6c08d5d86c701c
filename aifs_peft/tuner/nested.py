"""The encoder's adapter, LoRA or another of PEFT's, put into a base model beside the AIFS head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftConfig, inject_adapter_in_model
from torch import nn
from torch.nn.modules.conv import _ConvNd

from aifs_peft.errors import AIFSError, InvalidConfigError
from aifs_peft.tuner._peft import BaseTunerLayer
from aifs_peft.tuner.config import CHANGED_BASE

NOT_BUILT = "the encoder's adapter ({kind}) cannot be put into this model ({reason}); correct encoder_adapter."


def inject_nested(model: nn.Module, inner: PeftConfig, adapter_name: str, low_cpu_mem_usage: bool) -> None:
    """Put the encoder's adapter into a model, and leave the base model's weights and AIFS's own adapters as they are.

    Args:
        model: the base model.
        inner: the adapter's configuration.
        adapter_name: its name.
        low_cpu_mem_usage: as for PEFT's `inject_adapter_in_model`.

    Raises:
        InvalidConfigError: if the adapter changes weights of the base model to begin with.
    """
    # The inner tuner would write its configuration into the dictionary that AIFS adapters share.
    saved = model.__dict__.pop("peft_config", None)
    before = {parameter: parameter.data for parameter in model.parameters()}
    try:
        inject_adapter_in_model(inner, model, adapter_name, low_cpu_mem_usage=low_cpu_mem_usage)
    finally:
        model.__dict__.pop("peft_config", None)
        if saved is not None:
            model.peft_config = saved
    changed = [p for p, data in before.items() if p.data.data_ptr() != data.data_ptr()]
    for parameter in changed:
        parameter.data = before[parameter]
    if changed:
        raise InvalidConfigError(
            f"this {type(inner).__name__} starts with weights that it takes from the base model, {CHANGED_BASE}. "
            "Load the base model again, and choose another initialisation."
        )
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and isinstance(module.get_base_layer(), _ConvNd):
            # TensorFlow-style padding (MobileNet) reads these from the layer it is about to call.
            for name in ("stride", "kernel_size", "dilation"):
                if not hasattr(module, name):
                    setattr(module, name, getattr(module.get_base_layer(), name))


@contextmanager
def as_configuration_error(inner: PeftConfig) -> Iterator[None]:
    """A block that builds the encoder's adapter: whatever PEFT raises in it is the configuration's fault.

    Its layers check their numbers in many ways, or not at all: a rank of "8" is a TypeError.
    """
    try:
        yield
    except AIFSError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
        raise InvalidConfigError(NOT_BUILT.format(kind=type(inner).__name__, reason=reason)) from error

"""4-bit layers in the layout that bitsandbytes makes for inference on a CPU."""

from __future__ import annotations

from torch import nn


def unpack(model: nn.Module) -> None:
    """Bring 4-bit layers that will train back from bitsandbytes' inference-only layout.

    It packs the weights when a CPU evaluates them, and has no gradient through that form; writing a state dict unpacks
    them in place.
    """
    for module in model.modules():
        if module.training and _is_packed(module):
            module.state_dict()


def _is_packed(module: nn.Module) -> bool:
    """Whether a 4-bit layer is in bitsandbytes' inference-only layout."""
    quant_state = getattr(getattr(module, "weight", None), "quant_state", None)
    return bool(getattr(quant_state, "packing_format_for_cpu", False))

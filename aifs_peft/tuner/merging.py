"""Whether an adapter can be merged into a layer without changing what the layer computes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner._peft import BaseTunerLayer, TunerLayer
from aifs_peft.tuner.heads import is_quantised

CHANGED = (
    "merging would change the predictions: {name!r} is a {kind}, which transforms its weight again at every call "
    "(weight standardisation and the like). Use the adapter unmerged, or train it without such layers: "
    "LoraConfig(exclude_modules=[...])."
)
QUANTISED = (
    "merging would change the predictions: {name!r} is quantised ({kind}), and the sum with the adapter would be "
    "rounded again. Save the adapter, load the base model in full precision, without quantization_config, and merge "
    "there: PeftModel.from_pretrained(base, folder).merge_and_unload()."
)
_TORCH_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SIZE = 24  # of an input's spatial axes: larger than the kernels in use


def check_mergeable(model: nn.Module, adapter_names: list[str] | None = None) -> None:
    """Refuse to merge where the merged layer computes something else, tried on random inputs.

    Quantised layers are refused untried. Of the others only layers of a class of their own with a forward of its own
    are tried: torch's layers merge exactly.

    Args:
        model: with adapters that are not merged yet.
        adapter_names: those to merge; None takes the active ones.

    Raises:
        InvalidConfigError: naming the layer.

    Example:
        >>> check_mergeable(nn.Linear(2, 2))  # nothing to merge
    """
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer) or isinstance(module, TunerLayer) or module.merged:
            continue
        base = module.get_base_layer()
        if is_quantised(base):
            raise InvalidConfigError(QUANTISED.format(name=name, kind=type(base).__name__))
        example = _example(base)
        if example is not None and _changes(module, example, adapter_names):
            raise InvalidConfigError(CHANGED.format(name=name, kind=type(base).__name__))


def _example(base: nn.Module) -> Tensor | None:
    """A random input for a layer whose class overrides what torch's layer does; None for any other."""
    known = next((layer for layer in _TORCH_LAYERS if isinstance(base, layer)), None)
    if known is None or (type(base).forward is known.forward and not hasattr(base, "parametrizations")):
        return None
    weight = base.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
        return None
    generator = torch.Generator().manual_seed(0)
    axes = (_SIZE,) * (weight.dim() - 2)
    width = getattr(base, "in_features" if isinstance(base, nn.Linear) else "in_channels")
    return torch.randn(2, width, *axes, generator=generator).to(weight)


@torch.no_grad()
def _changes(layer: Any, example: Tensor, adapter_names: list[str] | None) -> bool:
    trial = copy.deepcopy(layer).eval()
    before = trial(example)
    trial.merge(adapter_names=adapter_names)
    return not torch.allclose(trial(example), before, atol=1e-2 * float(before.abs().max()), rtol=1e-2)

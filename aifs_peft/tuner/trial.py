"""A trial run of a base model on one made-up example, to see which of its layers a prediction depends on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_TOKENS = 8


def taking_part(model: nn.Module, names: list[str]) -> list[str]:
    """Those of some modules that a prediction depends on.

    Some models carry layers that their predictions do not read (the pooler of a ViT whose first token is taken, the
    text tower of a CLIP that sees images). Training them would leave parameters without gradient.

    Args:
        model: any model; its modes, gradients and the global random generators are left as they are.
        names: full names of modules.

    Returns:
        The names of the modules from which a gradient comes back, in order; all of them where no trial worked.

    Example:
        >>> taking_part(nn.Sequential(nn.Linear(2, 2)), ["0"])  # takes neither images nor texts: nothing is known
        ['0']
    """
    reference = next((p for p in model.parameters() if p.is_floating_point()), None)
    if not names or reference is None or reference.is_meta:
        return names
    own = {name: [p for p in model.get_submodule(name).parameters() if p.is_floating_point()] for name in names}
    wanted = [parameter for parameters in own.values() for parameter in parameters]
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in wanted if not parameter.requires_grad]
    try:
        for module in modes:
            module.training = False
        for parameter in frozen:
            parameter.requires_grad_(True)
        devices = [reference.device] if reference.device.type == "cuda" else []
        with torch.enable_grad(), torch.random.fork_rng(devices):
            for inputs in _examples(model, reference):
                reached = _reached(model, inputs, wanted)
                if reached is not None:
                    return [name for name in names if not own[name] or any(id(p) in reached for p in own[name])]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode
    return names


def _reached(model: nn.Module, inputs: dict[str, Tensor], parameters: Sequence[Tensor]) -> set[int] | None:
    """Identities of the parameters that the logits depend on; None when the model does not take such inputs."""
    try:
        logits = model(**inputs).logits
        gradients = torch.autograd.grad(logits.float().sum(), parameters, allow_unused=True)
    except Exception as error:  # noqa: BLE001 - any model, any reason: then nothing is known
        logger.debug("a trial with %s failed: %s", sorted(inputs), error)
        return None
    return {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _examples(model: nn.Module, parameter: Tensor) -> Iterator[dict[str, Tensor]]:
    """One example of each kind of input, the likeliest first."""
    images = {"pixel_values": torch.zeros(1, *_image_shape(model), device=parameter.device, dtype=parameter.dtype)}
    ids = torch.ones(1, _TOKENS, dtype=torch.long, device=parameter.device)
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    examples = [images, texts]
    yield from examples if getattr(model, "main_input_name", "") == "pixel_values" else reversed(examples)


def _image_shape(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that the configuration of a model (or of its encoder) names."""
    configs: list[Any] = [getattr(model, "config", None), getattr(getattr(model, "encoder", None), "config", None)]
    for config in configs:
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None)
        if size:
            high, wide = (size, size) if isinstance(size, int) else (size[-2], size[-1])
            return int(getattr(vision, "num_channels", 3)), int(high), int(wide)
    return 3, 224, 224

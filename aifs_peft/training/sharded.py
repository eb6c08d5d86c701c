"""Whether a model is split over processes; without what it takes to split one."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Whether a part of the model is split over processes by `shard_base`.

    Args:
        model: of any kind.

    Example:
        >>> is_sharded(nn.Linear(2, 2))
        False
    """
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())

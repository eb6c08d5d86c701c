"""The second head's place in an optimizer."""

from __future__ import annotations

import torch
from torch import nn

from aifs_peft.errors import InvalidConfigError


def give_own_group(optimizer: torch.optim.Optimizer, module: nn.Module, learning_rate: float) -> None:
    """Move a module's parameters to a parameter group of their own, without weight decay.

    Args:
        optimizer: that holds them, before any step.
        module: whose parameters.
        learning_rate: of the new group.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
        >>> give_own_group(optimizer, second, learning_rate=0.5)
        >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
        [(0.1, 2), (0.5, 2)]
    """
    moved = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in moved]
    optimizer.add_param_group({"params": list(module.parameters()), "lr": learning_rate, "weight_decay": 0.0})


def require_held(optimizer: torch.optim.Optimizer, module: nn.Module, method: str) -> None:
    """Refuse an optimizer of the user's that would leave the second head as it is.

    Args:
        optimizer: given to the trainer.
        module: the second head.
        method: that trains it, for the message.

    Raises:
        InvalidConfigError: if a parameter is not in the optimizer.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = sum(id(parameter) not in held for parameter in module.parameters())
    if missing:
        raise InvalidConfigError(
            f"the optimizer given in optimizers=(...) does not hold {missing} parameter(s) of the second head, which "
            f"method {method!r} trains; make it of all parameters of the model that require a gradient, or leave the "
            "optimizer to the trainer"
        )

"""What a module inside a base model is called with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from aifs_peft.tuner._peft import BaseTunerLayer


def argument(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
    """One argument of a call, given by name or by position; None where it was not given.

    Args:
        module: that is called.
        args: positional arguments.
        kwargs: named arguments.
        name: of the argument.

    Example:
        >>> argument(nn.Linear(2, 2), (7,), {}, "input"), argument(nn.Linear(2, 2), (7,), {}, "mask")
        (7, None)
    """
    if name in kwargs or not args:
        return kwargs.get(name)
    inner = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    try:
        return inspect.signature(inner.forward).bind_partial(*args, **kwargs).arguments.get(name)
    except TypeError:  # not its arguments: the module will say so itself
        return None

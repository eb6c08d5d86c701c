"""Whether the tensors of a saved adapter are those of the configuration that is to take them."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from aifs_peft.errors import CheckpointMismatchError

# The state of AIFS looks at its own buffers.
_STATE_KEY = re.compile(r"\.aifs_state\.")


def check_tensors(model: nn.Module, adapter_name: str, tensors: dict[str, Tensor]) -> None:
    """Refuse the tensors of another configuration, or damaged ones.

    Args:
        model: with the adapter injected.
        adapter_name: its name.
        tensors: what was saved, by its key in the model.

    Raises:
        CheckpointMismatchError: naming missing, unknown and differently shaped tensors, and those that hold no finite
            numbers.

    Example:
        >>> model = nn.ModuleDict({"aifs_head": nn.ModuleDict({"default": nn.Linear(2, 1)})})
        >>> check_tensors(model, "default", model.state_dict())
        >>> check_tensors(model, "default", {"aifs_head.default.weight": torch.zeros(1, 2)})
        Traceback (most recent call last):
        aifs_peft.errors.CheckpointMismatchError: the saved adapter does not fit this configuration (1 tensors: ...
    """
    here = {k: v for k, v in model.state_dict().items() if f".{adapter_name}." in f"{k}."}
    own = {key: tuple(value.shape) for key, value in here.items()}
    values = {key: value for key, value in tensors.items() if key in own and not _STATE_KEY.search(key)}
    problems = [wrong for key, value in values.items() if (wrong := _value_problem(key, value, here[key].dtype))]
    problems += [
        f"{key}: {tuple(value.shape)} saved, {own[key]} here"
        for key, value in values.items()
        if tuple(value.shape) != own[key]
    ]
    known = {*own, *(k.removeprefix("base_model.model.") for k in own)}
    plain = {k.removeprefix("base_model.model.") for k in tensors}
    problems += [f"{key}: not part of this configuration" for key in tensors if key not in known]
    problems += [
        f"{key}: not saved"
        for key in own
        if key.removeprefix("base_model.model.") not in plain and not _STATE_KEY.search(key)
    ]
    if problems:
        raise CheckpointMismatchError(
            f"the saved adapter does not fit this configuration ({len(problems)} tensors: "
            f"{'; '.join(problems[:5])}). Load it with the adapter_config.json saved beside it, onto the base "
            "model it names."
        )


def _value_problem(key: str, value: Tensor, dtype: torch.dtype) -> str | None:
    """What is wrong with a saved weight, in words."""
    if value.is_floating_point() != dtype.is_floating_point or value.is_complex() != dtype.is_complex:
        return f"{key}: {value.dtype} saved, {dtype} here".replace("torch.", "")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        return f"{key}: holds NaN or infinite values"
    return None

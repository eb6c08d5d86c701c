"""One batch through several adapters: `model(**inputs, adapter_names=[...])`, a name for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from aifs_peft.errors import InvalidInputError
from aifs_peft.tuner._peft import AuxiliaryTrainingWrapper, BaseTunerLayer, TunerLayer

BASE = "__base__"


def by_row(names: list[str], x: Tensor, run: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Run each name's rows by themselves and put the results back in order.

    Args:
        names: one for each row of `x`.
        x: `(batch, ...)`.
        run: maps a name and its rows `(n, ...)` to `(n, ...)`.

    Raises:
        InvalidInputError: for another number of rows.

    Example:
        >>> by_row(["a", "b", "a"], torch.ones(3, 1), lambda name, part: part * (2 if name == "a" else 3)).tolist()
        [[2.0], [3.0], [2.0]]
    """
    if len(x) != len(names):
        raise InvalidInputError(
            f"adapter_names must name one adapter for each row; got {len(names)} names, and a layer was fed {len(x)} "
            "rows. An encoder that splits images into windows cannot take adapter_names."
        )
    rows = {name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
    parts = [run(name, x[index]) for name, index in rows.items()]
    dtype = parts[0].dtype
    for part in parts[1:]:
        dtype = torch.promote_types(dtype, part.dtype)
    order = torch.tensor([i for index in rows.values() for i in index], device=parts[0].device)
    return torch.cat([part.to(dtype) for part in parts])[order.argsort()]


@contextmanager
def rows_by_adapter(model: nn.Module, configs: Mapping[str, Any], names: list[str]) -> Iterator[None]:
    """Send each row of the batches in this block through the adapter named for it.

    Args:
        model: with its adapters.
        configs: of the adapters, by name, with `num_labels`.
        names: one for each row.

    Raises:
        InvalidInputError: see `AIFSModel.rows_by_adapter`.
    """
    if isinstance(names, str):
        raise InvalidInputError(
            f"adapter_names must be a list with one name for each row; got {names!r}. For one adapter for all rows "
            "call model.set_adapter(name)."
        )
    names = list(names)
    _check(model, configs, names)
    layers = [module for module in model.modules() if isinstance(module, TunerLayer)]
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper):
                handle = module.register_forward_pre_hook(
                    lambda _module, args, kwargs: (args, {**kwargs, "adapter_names": names}), with_kwargs=True
                )
                stack.callback(handle.remove)
        stack.callback(_set_rows, layers, None)
        _set_rows(layers, names)
        yield


def _set_rows(layers: list[TunerLayer], names: list[str] | None) -> None:
    for layer in layers:
        layer.rows = names


def _check(model: nn.Module, configs: Mapping[str, Any], names: list[str]) -> None:
    if model.training:
        raise InvalidInputError("adapter_names works in evaluation mode only; call model.eval() first.")
    used = dict.fromkeys(name for name in names if name != BASE)
    unknown = [name for name in used if name not in configs]
    if unknown:
        raise InvalidInputError(
            f"adapter_names holds {unknown}, which are no adapters of this model; known are {[BASE, *configs]}."
        )
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if module.merged:
            raise InvalidInputError("adapter_names needs adapters that are not merged; call model.unmerge_adapter().")
        if not isinstance(module, TunerLayer | LoraLayer):
            raise InvalidInputError(
                f"the {type(module).__name__} at {name!r} cannot send rows through different adapters: adapter_names "
                "works with LoRA, trained_modules and frozen encoders. Run each adapter's rows after "
                "model.set_adapter(name)."
            )
    joined = [name for name in used if configs[name].latents == "multi"]
    if joined:
        raise InvalidInputError(
            f'adapter_names cannot name {joined}: with latents="multi" the blocks of the encoder are read for whole '
            "batches. Run each adapter's rows after model.set_adapter(name)."
        )
    classes = {name: configs[name].num_labels for name in used}
    if BASE in names:
        classes[BASE] = next(m.out_features for m in model.modules() if hasattr(m, "aifs_head"))
    if len(set(classes.values())) > 1:
        raise InvalidInputError(
            f"the adapters of one batch must have the same number of classes; got {classes}. Run them one by one."
        )

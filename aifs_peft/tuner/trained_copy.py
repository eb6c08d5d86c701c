"""A module of the encoder that is trained whole, and saved in the adapter."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner._peft import TunerLayer, check_adapters_to_merge
from aifs_peft.tuner.rows import by_row


class TrainedCopy(TunerLayer):
    """A module under whole training: the base model's own, which stays as it is, and one trained copy per adapter.

    Whoever reads an attribute of it (`weight`, `in_features`, ...) gets that of the module in use.

    Args:
        base_layer: the module of the base model.
        adapter_name: name of the first adapter.
        is_new: whether it is trained because no checkpoint holds it, and not because the user said so.
        inference_mode: whether its copy is only used and not trained.

    Raises:
        InvalidConfigError: if its weights are stored as integers, which cannot be trained.
    """

    adapter_layer_names = ("aifs_copy",)
    other_param_names = ("aifs_is_new",)

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, *, is_new: bool = False, inference_mode: bool = False
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.aifs_copy = nn.ModuleDict()
        self.aifs_is_new: dict[str, bool] = {}
        self.merged_adapters: list[str] = []
        self._stash: list[nn.Module] = []  # the base module while merged; a list, so that it is no sub-module
        self.set_adapter(adapter_name)
        self.update_layer(adapter_name, is_new=is_new, inference_mode=inference_mode)

    def update_layer(self, adapter_name: str, *, is_new: bool = False, inference_mode: bool = False) -> None:
        """Add a copy for one more adapter.

        Args:
            adapter_name: its name.
            is_new: whether it is trained because no checkpoint holds it.
            inference_mode: whether it is only used and not trained.

        Raises:
            InvalidConfigError: if the base module's weights are stored as integers.
        """
        base = self._stash[0] if self._stash else self.base_layer
        if not all(parameter.is_floating_point() for parameter in base.parameters()):
            raise InvalidConfigError(
                f"a {type(base).__name__} with weights stored as integers cannot be trained whole; keep it out of the "
                "quantisation (BitsAndBytesConfig(llm_int8_skip_modules=[...])), or out of trained_modules."
            )
        self.aifs_copy[adapter_name] = copy.deepcopy(base)
        self.aifs_is_new[adapter_name] = is_new
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    @property
    def module_in_use(self) -> nn.Module:
        """The active adapter's copy, or the base module where there is none or it is switched off.

        Raises:
            InvalidConfigError: if several adapters with a copy are active: copies cannot be added up.
        """
        active = [name for name in self.active_adapters if name in self.aifs_copy]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer
        if len(active) > 1:
            raise InvalidConfigError(
                f"trained copies of one module cannot be added up, and the adapters {active} all have one; call "
                "model.set_adapter(name)."
            )
        return self.aifs_copy[active[0]]

    @property
    def weight(self) -> Tensor:
        """Weight of the module in use: some models read it without calling the module."""
        return self.module_in_use.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override] # PEFT does not think of layers without one
        """Bias of the module in use."""
        return self.module_in_use.bias  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer" or "base_layer" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.module_in_use, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module in use gives; a copy is trained in float32 where the base model is in half precision."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.rows is not None and not self.merged and not self.disable_adapters:
            first, *rest = args
            return by_row(self.rows, first, lambda name, part: self._call(self._module_of(name), part, *rest, **kwargs))
        return self._call(self.module_in_use, *args, **kwargs)

    def _module_of(self, name: str) -> nn.Module:
        return self.aifs_copy[name] if name in self.aifs_copy else self.base_layer  # noqa: SIM401 - no dict

    def _call(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        inside, outside = _precision(module), _precision(self.base_layer)
        if inside is None or inside == outside:
            return module(*args, **kwargs)
        given = {name: _cast(value, inside) for name, value in kwargs.items()}
        return _cast(module(*(_cast(value, inside) for value in args), **given), outside)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the trained copy in the base module's place.

        Args:
            safe_merge: refuse a copy with weights that are not finite.
            adapter_names: the adapter to merge; None takes the active one.

        Raises:
            InvalidConfigError: for several adapters, or with `safe_merge` for a copy that is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.aifs_copy]
        if not names:
            return
        if len(names) > 1 or self.merged:
            raise InvalidConfigError(
                f"trained copies of one module cannot be added up: merge one adapter, got "
                f"{[*self.merged_adapters, *names]}."
            )
        merged = copy.deepcopy(self.aifs_copy[names[0]])
        if safe_merge and not all(bool(p.isfinite().all()) for p in merged.parameters()):
            raise InvalidConfigError(f"adapter {names[0]!r} has weights that are not finite; it was not merged.")
        self._stash = [self.base_layer]
        self.base_layer = merged.to(_precision(self.base_layer)).requires_grad_(requires_grad=False)
        self.merged_adapters.append(names[0])

    def unmerge(self) -> None:
        """Put the base module back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        device = next(self.base_layer.parameters()).device
        self.base_layer = self._stash.pop().to(device)
        self.merged_adapters.clear()

    def move_adapter(self, adapter_name: str, device: torch.device | None) -> None:
        """Move one adapter's copy to a device, None for the base module's."""
        reference = next(self.base_layer.parameters(), None)
        target = device if device is not None or reference is None else reference.device
        if adapter_name in self.aifs_copy and target is not None:
            held = self.aifs_copy[adapter_name]
            if not any(parameter.is_meta for parameter in held.parameters()):
                held.to(target)

    def __repr__(self) -> str:
        return "aifs." + super().__repr__()


def _precision(module: nn.Module) -> torch.dtype | None:
    """Precision of a module's parameters, None when it has none."""
    return next((parameter.dtype for parameter in module.parameters()), None)


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    """Floating-point tensors, alone or in a tuple or list, in another precision; everything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if type(value) in (tuple, list):
        return type(value)(_cast(item, dtype) for item in value)
    return value

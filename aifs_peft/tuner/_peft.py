"""All contact with what PEFT does not promise to keep: names with an underscore, and modules it does not export.

Everything else of this folder uses PEFT's public names and the two base classes below, whose methods have names of
our own. `tests/tuner/test_tuner_peft_contract.py` lists each private name and what is expected of it, so that a new
release of PEFT fails there first. Written against PEFT 0.21.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

__all__ = [
    "AuxiliaryTrainingWrapper",
    "BaseTunerLayer",
    "Tuner",
    "TunerLayer",
    "check_adapters_to_merge",
    "register_prefix",
    "switched_off",
    "without_adapters",
]

# Not under "AIFS": a method with an entry of its own gets only that prefix renamed when transformers loads an
# adapter folder by itself, and the encoder's LoRA weights would be lost. Without one, all known prefixes are tried.
_PREFIX_KEY = "AIFS_HEAD"


def register_prefix(prefix: str) -> None:
    """Let transformers' own loader of adapter folders rename keys that begin with `prefix`."""
    PEFT_TYPE_TO_PREFIX_MAPPING.setdefault(_PREFIX_KEY, prefix)  # type: ignore[arg-type] # strings are supported


@contextmanager
def switched_off(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run a block with the adapters on some modules (and their trained copies of modules) switched off.

    The flag alone is set: `enable_adapters` would also switch gradients, and with them what the optimizer holds.

    Args:
        modules: any modules; those that carry no adapter are left alone.
    """
    wrappers = [module for module in modules if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    before = [wrapper._disable_adapters for wrapper in wrappers]
    try:
        for wrapper in wrappers:
            wrapper._disable_adapters = True
        yield
    finally:
        for wrapper, disabled in zip(wrappers, before, strict=True):
            wrapper._disable_adapters = disabled


def without_adapters(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules of the base model by the names they had before any adapter, whatever adapters are on it now.

    Args:
        model: a base model with or without adapters.
        name: of `model` itself, prefix of the others.

    Yields:
        Name and module; for a wrapped one, the base model's own under the name of the wrapper.
    """
    if isinstance(model, BaseTunerLayer):
        yield from without_adapters(model.get_submodule("base_layer"), name)
    elif isinstance(model, AuxiliaryTrainingWrapper):
        yield from without_adapters(model.original_module, name)
    else:
        yield name, model
        for child_name, child in model.named_children():
            yield from without_adapters(child, f"{name}.{child_name}" if name else child_name)


class TunerLayer(nn.Module, BaseTunerLayer):
    """A module that stands in a base model's place and keeps one set of weights per adapter.

    Attributes:
        rows: the adapter of each row of the next batches, None where all rows go through the active one.
    """

    rows: list[str] | None = None

    def move_adapter(self, adapter_name: str, device: torch.device | None) -> None:
        """Move one adapter's weights to a device, None for the base layer's, and leave their precision alone."""
        raise NotImplementedError

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the base model's precision: the mask would become bfloat16.
        self.move_adapter(adapter_name, device)


class Tuner(BaseTuner):
    """PEFT's tuner with the decisions that a subclass makes under public names."""

    # All tuner layers, so that switching and deleting adapters reaches the encoder's layers, too.
    tuner_layer_cls = BaseTunerLayer
    target_module_mapping: dict[str, Any] = {}  # noqa: RUF012 - PEFT's contract

    def is_target(self, config: Any, key: str) -> bool:
        """Whether the module with the full name `key` is replaced by a layer of this method."""
        raise NotImplementedError

    def place_layer(self, config: Any, adapter_name: str, module: nn.Module, key: str) -> nn.Module:
        """The module that stands at `key` from now on: a layer of this method with one more adapter."""
        raise NotImplementedError

    @classmethod
    def saved_key(cls, key: str, adapter_name: str) -> str | None:
        """The key in a saved file for a key of the model; None leaves it to PEFT."""
        raise NotImplementedError

    @classmethod
    def check_saved(cls, model: nn.Module, adapter_name: str, tensors: dict[str, Tensor]) -> None:
        """Refuse saved tensors, by their keys in the model, that do not belong to this configuration."""
        raise NotImplementedError

    def rows_by_adapter(self, names: list[str]) -> AbstractContextManager[None]:
        """A context in which each row of a batch goes through the adapter named for it."""
        raise NotImplementedError

    def before_unload(self, *, merge: bool) -> None:
        """Called before the adapters are taken off the base model."""
        raise NotImplementedError

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:  # noqa: ARG002
        # PEFT would look for default targets by the model's type.
        return peft_config

    def _check_target_module_exists(self, peft_config: PeftConfig, key: str) -> bool:  # type: ignore[override] # static there
        return self.is_target(peft_config, key)

    def _check_target_module_compatiblity(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to check: the subclass did before injecting."""

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002 - PEFT's signature
    ) -> None:
        setattr(parent, target_name, self.place_layer(peft_config, adapter_name, target, current_key))

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:  # noqa: ARG002
        # PEFT's version copies `.weight`, which head blocks do not have.
        setattr(parent, child_name, new_module)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT strips the name only near the end: `aifs_head.default.dense.weight` would keep it.
        saved = cls.saved_key(key, adapter_name)
        if saved is not None:
            return saved
        other: str = super()._remove_adapter_name_from_key(key, adapter_name)
        return other

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        mapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        cls.check_saved(model, adapter_name, mapped)
        return mapped

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        self.before_unload(merge=merge)
        return super()._unload_and_optionally_merge(merge, *args, **kwargs)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:  # noqa: ARG002 - PEFT's signature
        # `PeftModel` calls it around a forward pass, and drops `adapter_names` afterwards.
        names = kwargs.get("adapter_names")
        with nullcontext() if names is None else self.rows_by_adapter(names):
            yield

"""What an AIFS layer holds for each adapter, heads and state: how they are made, found, checked and moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from aifs_peft.errors import HeadError
from aifs_peft.latent.blocks import ScaledBlocks
from aifs_peft.latent.heads import head_sizes
from aifs_peft.latent.state import AIFSState
from aifs_peft.tuner._peft import TunerLayer
from aifs_peft.tuner.block_reader import BlockReader
from aifs_peft.tuner.heads import HeadSpec, build_head, takes_sequence
from aifs_peft.tuner.loaded_by_transformers import Expected

if TYPE_CHECKING:
    from aifs_peft.tuner.config import AIFSConfig


class AdapterParts(TunerLayer):
    """The base head, and one trained head and state per adapter, of which one is active.

    Args:
        base_layer: the head of the base model.
    """

    adapter_layer_names = ("aifs_head", "aifs_auxiliary")
    other_param_names = ("aifs_state", "aifs_spec", "aifs_blocks")

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = head_sizes(base_layer)
        self.aifs_head = nn.ModuleDict()
        self.aifs_auxiliary = nn.ModuleDict()
        self.aifs_state = nn.ModuleDict()
        self.aifs_blocks = nn.ModuleDict()
        self.aifs_spec: dict[str, HeadSpec] = {}
        self.merged_adapters: list[str] = []
        self._stash: list[nn.Module] = []  # the base head while merged; a list, so that it is no sub-module
        self._reader: BlockReader | None = None
        self._unread: dict[str, Expected] = {}

    def update_layer(self, adapter_name: str, config: AIFSConfig) -> None:
        """Add the head and the state of one more adapter.

        Args:
            adapter_name: its name.
            config: its configuration.
        """
        base = self._stash[0] if self._stash else self.base_layer
        num_labels = config.num_labels or self.out_features
        device, dim = next(base.parameters()).device, self.in_features
        if config.latent_blocks:
            blocks = ScaledBlocks([*(width for _, width in config.latent_blocks), dim]).to(device)
            self.aifs_blocks[adapter_name], dim = blocks, blocks.dim
            if self._reader is None:
                self._reader = BlockReader([name for name, _ in config.latent_blocks])
        head = build_head(base, config.head, num_labels, config.head_hidden, dim)
        self.aifs_head[adapter_name] = head
        if config.auxiliary != "none":
            self.aifs_auxiliary[adapter_name] = build_head(base, config.auxiliary, num_labels, config.head_hidden, dim)
        self.aifs_state[adapter_name] = AIFSState(dim, config.state_shapes).to(device)
        sequence = config.head == "copy" and takes_sequence(head)
        self.aifs_spec[adapter_name] = HeadSpec(config.pool, config.head == "copy", sequence, num_labels)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def adapter(self) -> str:
        """Name of the one active adapter.

        Raises:
            HeadError: if none or several are active: heads cannot be added up.
        """
        active: list[str] = [name for name in self.active_adapters if name in self.aifs_head]
        if len(active) != 1:
            raise HeadError(f"AIFS needs exactly one active adapter, got {active}; call model.set_adapter(name).")
        return active[0]

    @property
    def head(self) -> nn.Module:
        """The trained head of the active adapter."""
        return self.aifs_head[self.adapter]

    @property
    def auxiliary(self) -> nn.Module | None:
        """The second head of the active adapter, None when it has none."""
        return self.aifs_auxiliary[self.adapter] if self.adapter in self.aifs_auxiliary else None  # noqa: SIM401 - no dict

    @property
    def state(self) -> AIFSState:
        """Mask, basis, displacements and running scores of the active adapter."""
        state = self.aifs_state[self.adapter]
        assert isinstance(state, AIFSState)  # noqa: S101 - for the type checker; only update_layer fills the dict
        return state

    @property
    def blocks(self) -> ScaledBlocks | None:
        """How the active adapter joins the latents of several layers; None when it reads the last one alone."""
        return self.blocks_of(self.adapter)

    def blocks_of(self, adapter: str) -> ScaledBlocks | None:
        """How an adapter joins the latents of several layers; None when it reads the last one alone."""
        blocks = self.aifs_blocks[adapter] if adapter in self.aifs_blocks else None  # noqa: SIM401 - no dict
        assert blocks is None or isinstance(blocks, ScaledBlocks)  # noqa: S101 - for the type checker
        return blocks

    def expect_weights(self, adapter_name: str, model: nn.Module) -> None:
        """Have an adapter that is not to be trained looked at, once transformers' own loader has filled it.

        Args:
            adapter_name: its name.
            model: that the layer is in.
        """
        state = self.aifs_state[adapter_name]
        assert isinstance(state, AIFSState)  # noqa: S101 - for the type checker; only update_layer fills the dict
        self._unread[adapter_name] = Expected(model, adapter_name, self.aifs_head[adapter_name], state)

    def has_weights(self, adapter_name: str) -> None:
        """An adapter's tensors were looked at as they were loaded.

        Args:
            adapter_name: its name.
        """
        self._unread.pop(adapter_name, None)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As for any module. It is what transformers' loader calls last, with the adapter's tensors in their places.

        Raises:
            CheckpointMismatchError: if that loader did not find all of them, or they are damaged.
        """
        unread, self._unread = self._unread, {}
        for expected in unread.values():
            expected.check()
        super().requires_grad_(requires_grad)
        return self

    def move_adapter(self, adapter_name: str, device: torch.device | None) -> None:
        """Move one adapter's head and state to a device, None for the base head's."""
        target = device if device is not None else next(self.base_layer.parameters()).device
        for container in (self.aifs_head, self.aifs_auxiliary, self.aifs_blocks, self.aifs_state):
            if adapter_name in container and not any(p.is_meta for p in container[adapter_name].parameters()):
                container[adapter_name].to(target)

"""What transformers' own loader (`pipeline(model=FOLDER)`, `AutoModel...from_pretrained(FOLDER)`) made of an adapter.

It puts tensors into the model one by one, asks neither PEFT nor this package, and only logs what it misses: a tensor
that the file lacks keeps the value that a new adapter has. It marks what it has loaded. Integers in the place of other
numbers it turns into those first, so that they cannot be told any more.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import Tensor, nn

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent.state import AIFSState

# transformers' mark on a tensor that was loaded.
_MARK = "_is_hf_initialized"


class Expected:
    """An adapter that was put into a model to be used, and whose tensors are still to come.

    Args:
        model: with the adapter in it.
        adapter_name: its name.
        head: of the adapter.
        state: of the adapter.
    """

    def __init__(self, model: nn.Module, adapter_name: str, head: nn.Module, state: AIFSState) -> None:
        # Weak: the layer that keeps this is a part of the model.
        self._model, self._head, self._state = weakref.ref(model), weakref.ref(head), weakref.ref(state)
        self._name = adapter_name
        self._before = [(weakref.ref(parameter), parameter._version) for parameter in head.parameters()]

    def check(self) -> None:
        """Refuse an adapter of which transformers found only a part, or that holds what no training makes.

        Does nothing where the adapter's weights came in another way.

        Raises:
            CheckpointMismatchError: naming tensors that the file lacks and those that hold no finite numbers, or what
                is wrong with the state.
        """
        model, head, state = self._model(), self._head(), self._state()
        if model is None or head is None or state is None or _loads_by_another_way():
            return
        tensors = dict(_tensors(model, self._name))
        as_new = all(
            old() is new and version == new._version
            for (old, version), new in zip(self._before, head.parameters(), strict=True)
        )
        if not as_new and not any(hasattr(tensor, _MARK) for tensor in tensors.values()):
            return
        problems = [f"{key}: {wrong}" for key, tensor in tensors.items() if (wrong := _problem(tensor))]
        if problems:
            raise CheckpointMismatchError(
                f"the saved adapter is damaged or does not fit its configuration ({len(problems)} tensors: "
                f"{'; '.join(problems[:5])}). Load an earlier checkpoint, or train the adapter again."
            )
        state.check()


def _problem(tensor: Tensor) -> str | None:
    """What is wrong with one tensor after transformers has loaded all, in words."""
    if not getattr(tensor, _MARK, False):
        return "not saved, or of another shape"
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        return "holds NaN or infinite values"
    return None


def _loads_by_another_way() -> bool:
    """Whether transformers loads as DeepSpeed's ZeRO-3 wants it, which sets no marks."""
    from transformers import integrations

    return bool(getattr(integrations, "is_deepspeed_zero3_enabled")())  # noqa: B009 - untyped there


def _tensors(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an adapter that are saved, by their full names."""
    for path, module in model.named_modules():
        kept = {n: b for n, b in module.named_buffers(recurse=False) if n not in module._non_persistent_buffers_set}
        for name, tensor in {**dict(module.named_parameters(recurse=False)), **kept}.items():
            key = f"{path}.{name}"
            if f".{adapter_name}." in f"{key}.":
                yield key, tensor

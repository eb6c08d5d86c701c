"""open_clip beside a torch that no torchvision fits: its models and tokenizer for real, without its image transforms.

open_clip imports torchvision for its transforms alone, which nothing here calls, and PyPI's torchvision is built for
torch with CUDA: beside the CPU build it ends in `RuntimeError: operator torchvision::nms does not exist`. While
open_clip is imported, names stand in for torchvision's; afterwards they are gone, so that transformers, which looks for
torchvision too, does not find them.
"""

from __future__ import annotations

import enum
import importlib.util
import sys
from types import ModuleType
from typing import Any

TRANSFORMS = (
    "Normalize", "Compose", "RandomResizedCrop", "ToTensor", "Resize", "CenterCrop", "ColorJitter", "Grayscale"
)  # fmt: skip


class _Absent:
    """A class of torchvision that is not there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"{type(self).__name__} is torchvision's, which is not installed here")


class _InterpolationMode(enum.Enum):
    NEAREST, BILINEAR, BICUBIC = "nearest", "bilinear", "bicubic"


def _standins() -> dict[str, ModuleType]:
    names = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc")
    modules = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
    # `import a.b.c as x` reads attributes, not sys.modules.
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    for name in TRANSFORMS:
        setattr(modules["torchvision.transforms"], name, type(name, (_Absent,), {}))
    modules["torchvision.transforms"].InterpolationMode = _InterpolationMode  # type: ignore[attr-defined]
    modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (_Absent,), {})  # type: ignore[attr-defined]
    return modules


def import_open_clip() -> Any:
    """open_clip, with the installed torchvision where there is one, which must then fit torch."""
    if importlib.util.find_spec("torchvision") is None and "open_clip" not in sys.modules:
        # They look for torchvision once, and must not find what stands in for it.
        from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig  # noqa: F401

        standins = _standins()
        sys.modules.update(standins)
        try:
            import open_clip
        finally:
            for name in standins:
                del sys.modules[name]
    import open_clip

    return open_clip

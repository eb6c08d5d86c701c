"""Which layers of the encoder are trained whole: those the user names, and those no checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.tuner._peft import without_adapters
from aifs_peft.tuner._transformers import not_in_checkpoint
from aifs_peft.tuner.config import ALL_LINEAR, AIFSConfig
from aifs_peft.tuner.layer import AIFSLayer
from aifs_peft.tuner.trial import taking_part

OLD_ADAPTER = (
    "this adapter was saved by an earlier release, which did not save the layers {layers}. The base model's checkpoint "
    "does not hold them either, so they are drawn anew at every load and the adapter's predictions cannot be had "
    "again. Train it again with this release."
)
ANOTHER_MODEL = (
    "the base model's checkpoint holds only {held:,} of the {total:,} parameters of its encoder, so it was made by "
    "another architecture. Load the checkpoint with the class it was saved from."
)
NO_LAYER = "trained_modules={given!r} names {name!r}, which is no module of this {model}."


def find_new_layers(model: nn.Module, head: str, config: AIFSConfig) -> list[str]:
    """Full names of the layers outside the head that start at random, because the checkpoint does not hold them.

    A checkpoint of an encoder alone lacks what a classifier puts between encoder and head (the dense layer of
    DistilBERT, DeBERTa, ModernBERT and others). It is drawn at random at every load, so it must be saved.

    Which layers these are is read off the marks that `from_pretrained` leaves. Where there are none (a model made from
    a configuration, or copied), it is everything outside the encoder: too much is trained then, nothing is lost.

    Args:
        model: the base model, which may hold adapters already.
        head: full name of the head.
        config: of the adapter. Where it was loaded with an adapter, its own `new_layers` holds.

    Raises:
        CheckpointMismatchError: for an adapter of an earlier release on such a checkpoint, and for a checkpoint that
            does not hold most of the encoder.
    """
    if config.new_layers is not None:
        return list(config.new_layers)
    missing = not_in_checkpoint(model)
    owners = list(_owners(model, head))
    if missing is None:
        prefix = model.base_model_prefix if isinstance(model, PreTrainedModel) else ""
        inside = f"{prefix}." if prefix and hasattr(model, prefix) else ""
        found = [name for name, _ in owners if inside and name != prefix and not name.startswith(inside)]
    else:
        new = [(n, [p for p in m.parameters(recurse=False) if id(p) in missing]) for n, m in owners]
        found = [name for name, parameters in new if parameters]
        total = sum(p.numel() for _, m in owners for p in m.parameters(recurse=False))
        held = total - sum(p.numel() for _, parameters in new for p in parameters)
        if held < total / 2:
            raise CheckpointMismatchError(ANOTHER_MODEL.format(held=held, total=total))
        found = taking_part(model, found)
    saved = set(getattr(config.nested, "modules_to_save", None) or ())
    found = [name for name in outermost(found) if not matches(name, saved)]
    if config.state_shapes:  # filled in when an adapter is made, so this one was saved without a list of new layers
        if found and missing is not None:
            raise CheckpointMismatchError(OLD_ADAPTER.format(layers=", ".join(found)))
        return []
    return found


def named_layers(model: nn.Module, head: str, config: AIFSConfig) -> list[str]:
    """Full names of the modules that `trained_modules` means.

    Args:
        model: the base model, which may hold adapters already.
        head: full name of the head, which is never among them.
        config: of the adapter.

    Raises:
        InvalidConfigError: for a name that no module outside the head has.
    """
    wanted = config.trained_modules
    if wanted is None:
        return []
    modules = [(name, module) for name, module in without_adapters(model) if name and not is_inside(name, [head])]
    if wanted == ALL_LINEAR:
        return [name for name, module in modules if isinstance(module, nn.Linear | Conv1D)]
    found: list[str] = []
    for given in wanted:
        hit = [name for name, _ in modules if matches(name, [given])]
        if not hit:
            raise InvalidConfigError(NO_LAYER.format(given=wanted, name=given, model=type(model).__name__))
        found += hit
    return outermost(found)


def _owners(model: nn.Module, head: str) -> Iterable[tuple[str, nn.Module]]:
    """Modules outside the head that hold parameters of their own; the model itself cannot be replaced."""
    for name, module in without_adapters(model):
        inside = is_inside(name, [head]) or isinstance(module, AIFSLayer)
        if name and not inside and next(module.parameters(recurse=False), None) is not None:
            yield name, module


def outermost(names: Iterable[str]) -> list[str]:
    """The names that lie in no other of them, in order and each once.

    Example:
        >>> outermost(["a.b", "a", "c"])
        ['a', 'c']
    """
    unique = list(dict.fromkeys(names))
    return [name for name in unique if not is_inside(name, [other for other in unique if other != name])]


def matches(key: str, names: Iterable[str]) -> bool:
    """Whether a module's full name is one of `names` or ends in `.name`, as PEFT matches lists."""
    return any(key == name or key.endswith(f".{name}") for name in names)


def is_inside(key: str, modules: Iterable[str]) -> bool:
    """Whether a full name is that of one of `modules` or of something in it."""
    return any(key == module or key.startswith(f"{module}.") for module in modules)

"""Which module of a base model is the head, and which ones the encoder's adapter goes to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent.heads import linear_layers
from aifs_peft.tuner._peft import BaseTunerLayer
from aifs_peft.tuner.heads import is_quantised, takes_sequence
from aifs_peft.tuner.last_token import OTHER_POOLING, picks_last_token
from aifs_peft.tuner.layer import AIFSLayer
from aifs_peft.tuner.trial import decides, taking_part
from aifs_peft.tuner.whole_layers import is_inside, matches

if TYPE_CHECKING:
    from aifs_peft.tuner.config import AIFSConfig

HEAD_NAMES = (
    "classifier", "score", "classification_head", "head", "fc", "heads", "logits_proj", "sequence_summary"
)  # fmt: skip
NOT_THE_LAST_WORD = (
    "the logits of this {model} are not what its head {head!r} gives: it averages two heads, or classifies every token "
    "and pools afterwards, so that the head sees no pooled latent. Use a model with one head on a pooled latent, or "
    "LatentClassifier on its encoder."
)
NO_GRADIENT = (
    "no gradient comes back to the layers of this {model}, so an adapter there would learn nothing; leave "
    "encoder_adapter out."
)
# Attention projections by family, all of them if present; checked in this order.
_LORA_TARGETS = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("qkv",), ("q", "v"))
# Where the projections are one layer.
_LORA_TARGETS_JOINED = (("query_key_value",), ("c_attn",), ("Wqkv",), ("qkv_proj",))
_IA3_TARGETS = (
    (("k_proj", "v_proj"), ("fc2",)),
    (("key", "value"), ("output.dense",)),
    (("k_lin", "v_lin"), ("lin2",)),
)
_TEXT_TOWER = re.compile(r"(^|\.)text_model\.|^(encoder\.|model\.)*transformer\.resblocks\.")


def find_head(model: nn.Module, config: AIFSConfig) -> str:
    """Full name of the head that AIFS will wrap.

    Args:
        model: the base model, which may hold adapters already.
        config: its `target_modules` decides; else the usual names are tried. A `RobertaClassificationHead` is
            wrapped whole when the encoder is frozen; with a tuned encoder only its last layer is, and its dense layer
            belongs to the encoder.

    Raises:
        HeadError: if there is no such module, or several, or it cannot be a head.
    """
    modules = dict(model.named_modules())
    wrapped = [key for key, module in modules.items() if isinstance(module, AIFSLayer)]
    if not wrapped:
        _refuse_adapted(model)
    if config.target_modules:
        name = config.target_modules[0]
        inside = tuple(f"{key}." for key in wrapped)
        found = [key for key in modules if key and matches(key, [name]) and not (inside and key.startswith(inside))]
        if len(found) != 1:
            raise HeadError(_not_found(model, name, found))
    else:
        found = wrapped or [name for name in HEAD_NAMES if name in modules and linear_layers(modules[name])][:1]
        if not found:
            raise HeadError(_not_found(model, None, []))
    key: str = found[0]
    if wrapped and key not in wrapped:
        raise HeadError(
            f"this model already has AIFS on {wrapped[0]!r}; every adapter must wrap that head, not {key!r}."
        )
    return key if wrapped else _check_head(model, key, modules[key], config)


def _refuse_adapted(model: nn.Module) -> None:
    """An adapter that is there already would be part of every prediction, and not of what is saved."""
    other = next(((k, m) for k, m in model.named_modules() if isinstance(m, BaseTunerLayer)), None)
    if other is not None:
        raise HeadError(
            f"the model already carries another adapter ({type(other[1]).__name__} at {other[0]!r}), which would be "
            "neither saved nor loaded with this one. Merge it first (merge_and_unload()), load the base model anew, or "
            "train it as this adapter's own: AIFSConfig(encoder_adapter=...)."
        )


def _check_head(model: nn.Module, key: str, head: nn.Module, config: AIFSConfig) -> str:
    if isinstance(head, BaseTunerLayer):
        raise HeadError(
            f"{key!r} already carries another adapter; load the base model anew, or exclude the head there."
        )
    layers = linear_layers(head)
    if not layers:
        raise HeadError(
            f"{key!r} is a {type(head).__name__} without a linear layer, which is no classification head. "
            f"{_candidates(model)}"
        )
    last_word = decides(model, key)
    if last_word is None and key.rpartition(".")[2] == "score" and hasattr(model, "config"):
        last_word = False  # what decoders call a head that classifies every token
    if last_word is not True and picks_last_token(model, key):
        if config.pool not in ("auto", "last"):
            raise HeadError(OTHER_POOLING.format(model=type(model).__name__, pool=config.pool))
        return key
    if config.pool == "auto" and last_word is False:
        raise HeadError(NOT_THE_LAST_WORD.format(model=type(model).__name__, head=key))
    sequence = config.target_modules is None and not is_quantised(head) and takes_sequence(head)
    if sequence and config.tunes_encoder:
        return f"{key}.{layers[-1][0]}"
    return key


def _candidates(model: nn.Module) -> str:
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    inner = tuple(n for n in names if re.search(r"\.\d+\.", n))
    outer = [n for n in names if n not in inner] or names[-5:]
    return f"Linear layers outside its blocks: {outer}." if outer else "It has no linear layer."


def _not_found(model: nn.Module, name: str | None, found: list[str]) -> str:
    what = f"the head {name!r} is not in" if name else f"none of {', '.join(HEAD_NAMES)} is in"
    if found:
        what = f"{name!r} names {len(found)} modules ({', '.join(found[:5])}) of"
    return (
        f"{what} this {type(model).__name__}. {_candidates(model)} Name one with AIFSConfig(target_modules=['...']), "
        "or, for an encoder without a head, wrap it in aifs_peft.LatentClassifier first."
    )


def resolve_encoder(model: nn.Module, head: str, inner: Any, whole: list[str]) -> None:
    """Fill in what the encoder's adapter leaves open, keep it off the head and off layers trained whole.

    Args:
        model: the base model.
        head: full name of the head.
        inner: configuration of the encoder's adapter; changed.
        whole: full names of the layers that are trained whole.

    Raises:
        InvalidConfigError: if its `modules_to_save` or `target_parameters` name the head or nothing, or no default
            target is known.
    """
    saved = [*(getattr(inner, "modules_to_save", None) or [])]
    clash = [s for s in saved if matches(head, [s]) or any(matches(a, [s]) for a in _ancestors(head))]
    if clash:
        raise InvalidConfigError(
            f"modules_to_save={clash} of the encoder's adapter names the head {head!r}, which AIFS trains and saves "
            "itself; take it out."
        )
    keys = [key for key, _ in model.named_modules()]
    unknown = [name for name in saved if not any(matches(key, [name]) for key in keys)]
    if unknown:
        raise InvalidConfigError(
            f"modules_to_save={unknown} of the encoder's adapter names no module of this {type(model).__name__}; "
            "nothing would be trained or saved under that name."
        )
    own = [f"{head}.{name}" for name, _ in model.get_submodule(head).named_parameters()]
    clash = [name for name in getattr(inner, "target_parameters", None) or [] if any(matches(p, [name]) for p in own)]
    if clash:
        raise InvalidConfigError(
            f"target_parameters={clash} of the encoder's adapter names a weight of the head {head!r}, which AIFS "
            "trains and saves itself; take it out."
        )
    if getattr(inner, "target_modules", "absent") is None and not getattr(inner, "target_parameters", None):
        _default_targets(model, [head, *whole], inner)
    _exclude(model, [head, *whole], inner)


def _ancestors(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _default_targets(model: nn.Module, taken: list[str], inner: Any) -> None:
    kinds = (nn.Linear, nn.MultiheadAttention, nn.Conv2d, Conv1D, BaseTunerLayer)
    keys = [k for k, m in model.named_modules() if isinstance(m, kinds) and not is_inside(k, taken)]
    used = taking_part(model, keys)
    if keys and not used:
        raise InvalidConfigError(NO_GRADIENT.format(model=type(model).__name__))
    if hasattr(inner, "feedforward_modules"):
        if inner.feedforward_modules is not None:
            return
        for attention, feedforward in _IA3_TARGETS:
            if _all_there(used, (*attention, *feedforward)):
                inner.feedforward_modules = _narrow(keys, used, feedforward)
                inner.target_modules = [*_narrow(keys, used, attention), *inner.feedforward_modules]
                return
    else:
        found = next((names for names in (*_LORA_TARGETS, ("attn",)) if _all_there(used, names)), None)
        if found is not None:
            inner.target_modules = _narrow(keys, used, found)
            return
        joined = next((names for names in _LORA_TARGETS_JOINED if _all_there(used, names)), None)
        if joined is not None:
            inner.target_modules = _narrow(keys, used, joined)
            if hasattr(inner, "fan_in_fan_out") and joined == ("c_attn",):
                layers = [model.get_submodule(k) for k in used if matches(k, joined)]
                inner.fan_in_fan_out = any(isinstance(layer, Conv1D) for layer in layers)  # as it stores its weight
            return
        plain = [k for k in used if _is_pointwise(model.get_submodule(k))]
        if plain:
            inner.target_modules = plain
            return
    raise InvalidConfigError(
        f"no default target of {type(inner).__name__} is known for {type(model).__name__}; set target_modules (and, "
        "for IA3, feedforward_modules) of encoder_adapter."
    )


def _all_there(keys: list[str], names: tuple[str, ...]) -> bool:
    return all(any(matches(key, [name]) for key in keys) for name in names)


def _is_pointwise(module: nn.Module) -> bool:
    """A linear layer or a 1x1 convolution of torch's own: where a low-rank update is cheap and merges exactly.

    A class of its own may transform its weight again (weight standardisation), so that nothing merges into it.
    """
    if isinstance(module, BaseTunerLayer):
        module = module.get_base_layer()
    if type(module) is nn.Conv2d:
        return module.kernel_size == (1, 1) and module.groups == 1
    return type(module) is nn.Linear


def _narrow(keys: list[str], used: list[str], names: tuple[str, ...]) -> list[str]:
    """Short names; full names where some layers of those names take no part in a prediction.

    A text tower that images never reach, and the other way round; the layers behind the token that is classified.
    """
    hit = [k for k in keys if matches(k, names)]
    part = [k for k in used if matches(k, names)]
    if len(used) == len(keys):  # or no trial worked
        part = [k for k in hit if not _TEXT_TOWER.search(k)]
    return part if part and len(part) < len(hit) else list(names)


def _exclude(model: nn.Module, taken: list[str], inner: Any) -> None:
    """Keep the adapter off modules that are trained whole: its parameters would be dead, which DDP refuses."""
    targets = getattr(inner, "target_modules", None)
    if not hasattr(inner, "exclude_modules") or not targets:
        return
    own = [k for k, m in model.named_modules() if is_inside(k, taken) and (k in taken or linear_layers(m))]
    if targets == "all-linear":
        hit = [k for k in own if linear_layers(model.get_submodule(k))]
    elif isinstance(targets, str):
        hit = [k for k in own if re.fullmatch(targets, k)]
    else:
        hit = [k for k in own if matches(k, targets)]
    if not hit:
        return
    given = inner.exclude_modules
    if isinstance(given, str):
        inner.exclude_modules = "|".join([f"(?:{given})", *map(re.escape, hit)])
    else:
        inner.exclude_modules = sorted({*(given or ()), *hit})

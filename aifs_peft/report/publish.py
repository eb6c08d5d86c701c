"""What of a summary may leave this machine: names that are no paths and, unless asked for, no training example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from aifs_peft.models.tabular import ENCODERS

_PATH = re.compile(r"(~|\.{1,2})?[/\\]\S*|[A-Za-z]:[\\/]\S*")
_EXAMPLES = ("conflicting", "projection")
"""Tables of an audit with one row per training example."""


def publishable(summary: Mapping[str, Any], *, examples: bool = False) -> dict[str, Any]:
    """The summary as it may be published.

    Args:
        summary: plain JSON.
        examples: whether single training examples may go along.

    Returns:
        A copy: paths are cut to their last part, the tables of single examples in "audit" are left out. "model_local"
        or "dataset_local" says that a name was that of a folder or file.

    Example:
        >>> publishable({"model": "/home/me/vit", "spec": {"data_dir": "/data/scans"}, "audit": {"conflicting": [1]}})
        {'model': 'vit', 'spec': {'data_dir': 'scans'}, 'audit': {}, 'model_local': True}
    """
    out: dict[str, Any] = {key: _without_paths(value) for key, value in summary.items()}
    for name in ("model", "dataset"):
        if out.get(name) is not None:
            out[name] = shown_name(summary[name])
            if out[name] != summary[name]:
                out[f"{name}_local"] = True
    for name in ("model", "dataset", "data_dir", "unlabelled"):
        if (out.get("spec") or {}).get(name) is not None:
            out["spec"][name] = shown_name(summary["spec"][name])
    if (out.get("unlabelled") or {}).get("data") is not None:
        out["unlabelled"]["data"] = shown_name(summary["unlabelled"]["data"])
    if out.get("audit") and not examples:
        out["audit"] = {key: value for key, value in out["audit"].items() if key not in _EXAMPLES}
    return out


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return shown_name(value) if isinstance(value, str) and _PATH.fullmatch(value) else value


def is_hub_id(name: str) -> bool:
    """Whether a model's or data set's name is one of the Hub: `owner/name` or `name`, and no folder here.

    Example:
        >>> is_hub_id("openai/clip-vit-base-patch16"), is_hub_id("/home/me/vit"), is_hub_id("tiny_clip")
        (True, False, False)
    """
    if name in ("tiny_clip", *ENCODERS) or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name):
        return False
    return not Path(name).exists()


def on_hub(summary: Mapping[str, Any], key: str) -> bool:
    """Whether the "model" or "dataset" of a run is one that the Hub has under this name.

    A summary that was made fit for publishing says of a folder's name that it was a folder: "model_local".
    """
    name = summary.get(key)
    return name is not None and not summary.get(f"{key}_local") and is_hub_id(str(name))


def shown_name(name: Any) -> str:
    """A name as it may be published: of a path only its last part, which tells nothing about somebody's disk.

    Example:
        >>> shown_name("/home/me/models/vit"), shown_name("openai/clip-vit-base-patch16")
        ('vit', 'openai/clip-vit-base-patch16')
    """
    text = str(name)
    if text.startswith(("/", "~", ".")) or "\\" in text or text.count("/") > 1 or Path(text).exists():
        return PurePath(text.replace("\\", "/")).name or text
    return text

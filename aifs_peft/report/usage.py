"""How to load an adapter, as code that runs: each snippet is executed by a test on models of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aifs_peft.models.open_clip import is_open_clip
from aifs_peft.models.tabular import ENCODERS

BASE_FOLDER = "base_model"
"""Where a run keeps a base model that exists nowhere else."""
EMBEDDED = ("tiny_clip",)
THIS_FOLDER = "path/to/this/folder"
_IMPORT = "import aifs_peft"
_REGISTERS = f'{_IMPORT}  # registers the adapter type "AIFS" with PEFT'
_LOCAL = "  # was a folder of the author's: the path of a copy of it"
_AUTO = {"image": "AutoModelForImageClassification", "text": "AutoModelForSequenceClassification"}


@dataclass(frozen=True)
class Snippet:
    """A piece of Python with the sentence that introduces it."""

    title: str
    code: str


_MERGED = Snippet("As a plain model, without PEFT", "plain = model.merge_and_unload()\nplain.save_pretrained('merged')")


def modality_of(summary: Mapping[str, Any]) -> str:
    """`"image"`, `"text"` or `"features"`."""
    return str(summary.get("modality") or summary["task"].split("-")[0].replace("tabular", "features"))


def snippets(summary: Mapping[str, Any]) -> list[Snippet]:
    """How the adapter of a run is loaded: with PEFT, in one call, as a plain model, in a pipeline.

    Args:
        summary: with "model", "label_names", "task" and, where it was pushed, "repo_id".

    Returns:
        The first one defines `model`, which some of the others use. A base model that transformers cannot find by
        name (the embedded one, those made anew for a table) is loaded by `aifs_peft.models.load_model`.

    Example:
        >>> summary = {"model": "google/vit-base-patch16-224", "task": "image-classification", "label_names": ["a"]}
        >>> [snippet.title for snippet in snippets(summary)]
        ['With PEFT', 'In one call', 'As a plain model, without PEFT', 'In a pipeline']
    """
    modality, repo = modality_of(summary), str(summary.get("repo_id") or THIS_FOLDER)
    model = summary.get("model")
    pipe = (
        f"{_IMPORT}\nfrom transformers import pipeline\n\nclassify = pipeline({str(summary['task'])!r}, model={repo!r})"
    )
    if summary.get("fused"):
        return [Snippet("With PEFT", _with_our_base(summary, modality, repo)), _MERGED]
    if model in (*EMBEDDED, *ENCODERS) or (model is not None and is_open_clip(str(model))):
        local = model in EMBEDDED and not summary.get("repo_id")  # its base model lies beside the adapter
        ways = [Snippet("With PEFT", _with_our_base(summary, modality, repo)), _MERGED]
        return [*ways, Snippet("In a pipeline", pipe)] if local else ways
    if model is None or modality not in _AUTO:
        return [Snippet("With PEFT", _with_own_base(repo)), _MERGED]
    auto, local = _AUTO[modality], bool(summary.get("model_local"))
    with_peft = (
        f"{_REGISTERS}\nfrom peft import PeftModel\nfrom transformers import {auto}\n\n"
        f"base = {auto}.from_pretrained({str(model)!r}{_pinned(summary, local)}){_LOCAL * local}\n"
        f"model = PeftModel.from_pretrained(base, {repo!r}).eval()"
    )
    if local:
        return [Snippet("With PEFT", with_peft), _MERGED]
    one_call = f"{_IMPORT}\nfrom peft import AutoPeftModel\n\nmodel = AutoPeftModel.from_pretrained({repo!r}).eval()"
    return [Snippet("With PEFT", with_peft), Snippet("In one call", one_call), _MERGED, Snippet("In a pipeline", pipe)]


def _pinned(summary: Mapping[str, Any], local: bool) -> str:
    """The argument that loads the version of the base model that was trained on."""
    known = summary.get("model_revision") or {}
    revision = known.get("commit") or known.get("asked")
    return f", revision={str(revision)!r}" if revision and not local else ""


def _with_our_base(summary: Mapping[str, Any], modality: str, repo: str) -> str:
    name = str(summary["model"])
    source = f"{repo!r}, subfolder={BASE_FOLDER!r}" if name in ENCODERS or summary.get("fused") else repr(name)
    labels = [str(label) for label in summary["label_names"]]
    return (
        f"{_REGISTERS}\nfrom peft import PeftModel\nfrom aifs_peft.models import load_model\n\n"
        f"base = load_model({source}, modality={modality!r}, label_names={labels!r})\n"
        f"model = PeftModel.from_pretrained(base, {repo!r}).eval()"
    )


def _with_own_base(repo: str) -> str:
    return (
        f"{_REGISTERS}\nfrom peft import PeftModel\n\n"
        f"# base: the model that the adapter was trained on, with the same weights\n"
        f"model = PeftModel.from_pretrained(base, {repo!r}).eval()"
    )

"""Save and push an adapter together with its model card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi

from aifs_peft.models.tabular import ENCODERS
from aifs_peft.report.card import BASE_FOLDER, render_card

if TYPE_CHECKING:
    from peft import PeftModel


def save_run(model: PeftModel, processor: Any, summary: dict[str, Any], folder: str | Path) -> Path:
    """Write adapter, processor, `README.md` (the model card) and `summary.json` into `folder`.

    A base model that started from scratch (`mlp`, `identity`) exists nowhere else and goes into `base_model/`.
    Nothing in the folder is a pickle: weights, mask and basis are safetensors, the rest is JSON and Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The record of the base model is the name the user gave, not the path it was loaded from here.
    for config in model.peft_config.values():
        config.base_model_name_or_path = summary["model"]
    # No embedding is trained; "auto" would look the base model up on the Hub to find that out.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    if summary["model"] in ENCODERS:
        copy.deepcopy(model).unload().save_pretrained(folder / BASE_FOLDER)
    if processor is not None:
        processor.save_pretrained(folder)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, default=str) + "\n")
    render_card(summary).save(folder / "README.md")
    return folder


def push_adapter(
    model: PeftModel,
    processor: Any,
    summary: dict[str, Any],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> str:
    """Create the repository if needed, push adapter, card and summary in one commit, return its URL.

    `PeftModel.push_to_hub` alone would replace the model card by a template, so the folder goes up as it is.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with TemporaryDirectory() as folder:
        save_run(model, processor, {**summary, "repo_id": repo_id}, folder)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message="Add AIFS adapter and model card",
        )
    return str(commit.commit_url)

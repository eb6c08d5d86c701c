"""Write SpuriousScenes with its data card and picture grid to a folder, or push it to the Hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from aifs_peft._hub import expecting_answers, refusal
from aifs_peft.data.groups import spec_of
from aifs_peft.data.preview import image_grid
from aifs_peft.data.spurious_scenes import WORLDS, scene_config
from aifs_peft.errors import PushFailedError

PREVIEW = "preview.png"
NOT_PUSHED = (
    "the data set was not pushed to {repo!r} {refusal} Its files lie in {folder}; push them again with "
    "`hf upload {repo} {folder} --repo-type dataset`"
)


def data_card(data: Any) -> str:
    """The data card: what is planted, how it was drawn, counts per group; counted from the data, not typed.

    Args:
        data: what `load("spurious_scenes", ...)` gave.

    Returns:
        Markdown with the Hub's metadata block.
    """
    train = data["train"]
    config, spec = scene_config(train), spec_of(data)
    world = WORLDS[config.world]
    drawn = train.info.description.splitlines()[0]
    factors = "\n".join(
        f"| `factor_{s.name}` | {s.values[0]} / {s.values[1]} | {'image' if s.visible else 'metadata only'} |"
        for s in world.shortcuts
    )
    return f"""---
license: apache-2.0
task_categories: [image-classification]
tags: [spurious-correlations, synthetic, group-robustness]
---
# SpuriousScenes: {world.name}

{drawn} Images are {config.image_size} x {config.image_size} pixels, core strength {config.core_strength:g},
shortcut strength {config.shortcut_strength:g}. Everything is generated; no person, place or product is shown,
and the `clinic` world is not medical data.

![one row per group]({PREVIEW})

**Label**: {world.core}, {world.classes[0]} or {world.classes[1]}. `clean_label` is what the image shows, `label`
what a model is trained on. **Groups** (evaluation only): {spec.definition.split(": ", 1)[1]}.

| planted factor | values | where |
|---|---|---|
{factors}

{spec.table(data, markdown=True)}

Training and validation carry the correlation, the test does not. Use validation as it is: it is drawn like the
training split, so selecting on it does not leak group balance. `scene_seed` and the factors determine a scene:
`aifs_peft.data.spurious_scenes.counterfactual` draws it again with one factor changed.
"""


def write(data: Any, folder: str | Path) -> Path:
    """Write the splits as Parquet, the card and the picture grid.

    Args:
        data: what `load("spurious_scenes", ...)` gave.
        folder: is created; existing files of the same names are replaced.

    Returns:
        The folder. `datasets.load_dataset(folder)` reads it.
    """
    path = Path(folder)
    (path / "data").mkdir(parents=True, exist_ok=True)
    for split, part in data.items():
        part.to_parquet(path / "data" / f"{split}-00000-of-00001.parquet")
    image_grid(data["train"]).save(path / PREVIEW)
    (path / "README.md").write_text(data_card(data), encoding="utf-8")
    return path


def push(data: Any, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload what `write` writes, in one commit.

    Args:
        data: what `load("spurious_scenes", ...)` gave.
        repo_id: `owner/name` of the data set on the Hub; is created where it does not exist.
        private: whether a new repository is private.
        token: access token; None for the one that is logged in.

    Returns:
        Address of the commit.

    Raises:
        PushFailedError: the Hub cannot be reached or says no; what was to go up is kept.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    folder = tempfile.mkdtemp(prefix="aifs-push-")
    try:
        write(data, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        with expecting_answers():
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            message = "SpuriousScenes with data card and preview"
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message=message)
    except Exception as error:
        # Of whatever kind: which library talks to the Hub, and raises, differs between releases of huggingface_hub.
        raise PushFailedError(NOT_PUSHED.format(repo=repo_id, refusal=refusal(error), folder=folder)) from error
    shutil.rmtree(folder)
    return str(commit.commit_url)

"""Save and push an adapter together with its model card."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi

from aifs_peft._hub import answered, expecting_answers, refusal
from aifs_peft._plain import plain, to_json
from aifs_peft.errors import PushFailedError
from aifs_peft.models.tabular import ENCODERS
from aifs_peft.report.card import render_card
from aifs_peft.report.publish import on_hub, publishable
from aifs_peft.report.usage import BASE_FOLDER, EMBEDDED
from aifs_peft.tuner import AIFSConfig

if TYPE_CHECKING:
    from peft import PeftModel

_logger = logging.getLogger(__name__)
NOT_PUSHED = (
    "the adapter was not pushed to {repo!r} {refusal}{saved} Its files lie in {folder}; push them again with "
    "`hf upload {repo} {folder}`"
)
MESSAGE = "Add AIFS adapter and model card"
_EXAMPLES = ("audit", "report.html")
"""What in a run's folder shows training examples."""
# Patterns of names, whole, in parts and pickled.
_OF_BASE = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "pytorch_model*.bin*", "adapter_model.*", "report.html",
)  # fmt: skip
_OF_PROCESSOR = (
    "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "*.model",
)  # fmt: skip


def save_run(model: PeftModel, processor: Any, summary: Mapping[str, Any], folder: str | Path) -> Path:
    """Write adapter, processor, `README.md` (the model card) and `summary.json` into `folder`.

    A base model that exists nowhere else, one that started from scratch (`mlp`, `identity`) or was put together with
    columns of a table, goes into `base_model/`. The
    embedded encoder goes beside the adapter, where transformers and its pipelines look for the base model of a local
    adapter. Base model and processor of an earlier run in the same folder are removed. Nothing in the folder is a
    pickle: weights, mask and basis are safetensors, the rest is JSON and Markdown. Contact sheets that
    `write_audit_folder` left in the folder before are shown in the card.

    Args:
        model: the trained PEFT model.
        processor: image processor or tokenizer; None where there is none.
        summary: what `run_finetune` or `summary_from_trainer` gives.
        folder: is made where it is missing.

    Returns:
        The folder.

    Raises:
        InvalidInputError: for a summary that JSON cannot hold; nothing is written then.
    """
    folder, text = Path(folder), to_json(summary)
    folder.mkdir(parents=True, exist_ok=True)
    for config in model.peft_config.values():
        # The record of the base model is the name the user gave, not the path it was loaded from here.
        config.base_model_name_or_path = summary.get("model")
        # The names of the classes, so that a pipeline made from the folder alone tells them.
        if isinstance(config, AIFSConfig) and config.labels is None:
            config.labels = [str(label) for label in summary["label_names"]]
    _remove_earlier(folder)
    # No embedding is trained; "auto" would look the base model up on the Hub to find that out.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    if summary.get("model") in ENCODERS or summary.get("fused"):
        copy.deepcopy(model).unload().save_pretrained(folder / BASE_FOLDER)
    elif summary.get("model") in EMBEDDED and "repo_id" not in summary:
        copy.deepcopy(model).unload().save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    (folder / "summary.json").write_text(text, encoding="utf-8")
    render_card(plain(summary), folder).save(folder / "README.md")
    return folder


def _remove_earlier(folder: Path) -> None:
    """Take away what an earlier run in this folder wrote and this one may not write again."""
    if not (folder / "summary.json").is_file():
        return
    shutil.rmtree(folder / BASE_FOLDER, ignore_errors=True)
    for pattern in (*_OF_BASE, *_OF_PROCESSOR):
        for file in folder.glob(pattern):
            file.unlink()
    for config in folder.glob("*/adapter_config.json"):  # an adapter of another name
        if not config.parent.name.startswith("checkpoint-"):
            shutil.rmtree(config.parent)


def push_adapter(
    model: PeftModel,
    processor: Any,
    summary: Mapping[str, Any],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    run_folder: str | Path | None = None,
    saved_in: str | Path | None = None,
    examples: bool = False,
) -> str:
    """Create the repository if needed, push adapter, card and summary in one commit, return its URL.

    `PeftModel.push_to_hub` alone would replace the model card by a template, so the folder goes up as it is. What goes
    up holds no path of this machine and, unless asked for, no training example.

    Args:
        model: the trained PEFT model.
        processor: image processor or tokenizer; None where there is none.
        summary: what `run_finetune` or `summary_from_trainer` gives.
        repo_id: `owner/name`, or `name` for the owner of the token.
        token: of the Hub; None takes the one that is stored.
        private: whether a new repository is private; None leaves it to the owner's default.
        revision: branch to push to.
        run_folder: folder of the run, which `examples` are taken from.
        saved_in: folder that holds the adapter already; the error names it, too, where the push fails.
        examples: whether to publish the report and the list and contact sheets of training examples too. Off, because
            data may be private or may not be passed on.

    Returns:
        The URL of the commit.

    Raises:
        PushFailedError: the Hub cannot be reached or says no; what was to go up is kept.
    """
    commit = push_files(
        model, processor, summary, repo_id, token=token, private=private, revision=revision,
        run_folder=run_folder, saved_in=saved_in, examples=examples,
    )  # fmt: skip
    assert not isinstance(commit, Future)  # noqa: S101 - it was asked to wait
    return str(commit.commit_url)


def push_files(
    model: PeftModel,
    processor: Any,
    summary: Mapping[str, Any],
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    run_folder: str | Path | None = None,
    saved_in: str | Path | None = None,
    examples: bool = False,
    blocking: bool = True,
    **commit: Any,
) -> CommitInfo | Future[CommitInfo]:
    """`push_adapter` with the options of `HfApi.upload_folder`; returns what that returns.

    With `blocking=False` the files are written here and now, and uploaded in the background; where that fails, a
    warning says so and the files are kept.

    Raises:
        PushFailedError: the Hub cannot be reached or says no; what was to go up is kept.
    """
    api: Any = HfApi(token=token)  # its overloads cannot be told apart by a variable
    refused: Exception | None = None
    shown = publishable({**plain(summary), "repo_id": repo_id}, examples=examples)
    try:
        with expecting_answers():
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            shown["repo_id"] = repo_id
            shown.setdefault("base_license", _base_license(api, shown))
    except Exception as error:  # noqa: BLE001 - of whatever kind: told below, when the files are written
        refused = error
    options = {"commit_message": MESSAGE, **{key: value for key, value in commit.items() if value is not None}}
    folder = Path(mkdtemp(prefix="aifs-push-"))
    try:
        if examples and run_folder is not None:
            _copy_examples(Path(run_folder), folder)
        _save_for_others(model, processor, shown, str(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        if refused is not None:
            raise refused  # noqa: TRY301 - both kinds are told in one place
        upload = partial(api.upload_folder, repo_id=repo_id, folder_path=str(folder), revision=revision, **options)
        done: CommitInfo | Future[CommitInfo] = answered(upload) if blocking else api.run_as_future(answered, upload)
    except Exception as error:
        # Of whatever kind: which library talks to the Hub, and raises, differs between releases of huggingface_hub.
        # The run's own folder is not what is named to push again: it may hold training examples.
        raise PushFailedError(not_pushed(repo_id, folder, error, saved_in)) from error
    if isinstance(done, Future):
        done.add_done_callback(lambda future: _uploaded(future, repo_id, folder))
    else:
        shutil.rmtree(folder)
    return done


def not_pushed(repo: str, folder: str | Path, error: Exception, saved_in: str | Path | None = None) -> str:
    """One line: why a push failed, where the files are, and how to push them again.

    Args:
        repo: that they were to go to.
        folder: that they lie in, ready to go up.
        error: of the push.
        saved_in: where the adapter is saved besides.
    """
    saved = "" if saved_in is None else f" The run is saved in {saved_in}."
    return NOT_PUSHED.format(repo=repo, refusal=refusal(error), saved=saved, folder=folder)


def _uploaded(future: Future[CommitInfo], repo: str, folder: Path) -> None:
    error = None if future.cancelled() else future.exception()
    if isinstance(error, Exception):
        _logger.warning(not_pushed(repo, folder, error))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _save_for_others(model: PeftModel, processor: Any, summary: Mapping[str, Any], folder: str) -> None:
    """`save_run`; the model in memory keeps the path that its base can be loaded from here."""
    names = {name: config.base_model_name_or_path for name, config in model.peft_config.items()}
    try:
        save_run(model, processor, summary, folder)
    finally:
        for name, config in model.peft_config.items():
            config.base_model_name_or_path = names[name]


def _copy_examples(run_folder: Path, folder: Path) -> None:
    for name in _EXAMPLES:
        source = run_folder / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.is_file():
            shutil.copy(source, folder / name)


def _base_license(api: HfApi, summary: Mapping[str, Any]) -> str | None:
    """The licence that a base model on the Hub states; None where it states none or is not there."""
    from huggingface_hub.errors import HfHubHTTPError

    if not on_hub(summary, "model"):
        return None
    try:
        tags = api.model_info(str(summary["model"])).tags or ()
    except HfHubHTTPError:  # no such repository, or a closed one: its card is where the reader looks then
        return None
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)

"""The card and the push of a trainer: what `AIFSTrainer.create_model_card` and `push_to_hub` do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi, ModelCard

from aifs_peft._hub import answered
from aifs_peft._plain import plain
from aifs_peft.errors import PushFailedError
from aifs_peft.report.card import render_card
from aifs_peft.report.hub import push_files
from aifs_peft.report.trainer_summary import summary_from_trainer

if TYPE_CHECKING:
    from peft import PeftModel

    from aifs_peft.training import AIFSTrainer

_logger = logging.getLogger(__name__)
_CARD_ARGUMENTS = (
    "language", "license", "tags", "model_name", "finetuned_from", "tasks", "dataset_tags", "dataset", "dataset_args",
)  # fmt: skip


def card_from_trainer(trainer: AIFSTrainer, audit: Any = None, **metadata: Any) -> ModelCard:
    """The model card of a trainer's run.

    Args:
        trainer: see `summary_from_trainer`.
        audit: an `Audit` of the training set, where there is one.
        **metadata: as for `Trainer.create_model_card`: `language`, `license`, `tags`, `model_name`, `finetuned_from`,
            `tasks`, `dataset`, `dataset_tags`; None where not given.

    Returns:
        The card; sheets of examples in the output folder are shown in it.
    """
    return render_card({**summary_from_trainer(trainer, audit), **_card_fields(metadata)}, trainer.args.output_dir)


def write_card(trainer: AIFSTrainer, *given: Any, **metadata: Any) -> None:
    """What `AIFSTrainer.create_model_card` does: `README.md` in the output folder, by the first process alone.

    Args:
        trainer: see `summary_from_trainer`.
        *given: as for `Trainer.create_model_card`, in its order.
        **metadata: the same by name, see `card_from_trainer`.
    """
    if trainer.is_world_process_zero():
        folder = Path(str(trainer.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        named = dict(zip(_CARD_ARGUMENTS, given, strict=False))
        card_from_trainer(trainer, **named, **metadata).save(folder / "README.md")


def push_trainer(
    trainer: AIFSTrainer,
    commit_message: str | None = "End of training",
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    *,
    examples: bool = False,
    **metadata: Any,
) -> CommitInfo | Future[CommitInfo] | None:
    """What `AIFSTrainer.push_to_hub` does: adapter, processor, card and summary in one commit, and nothing else.

    The folder of the run holds more (checkpoints, optimizer states, pickled arguments): none of that is uploaded. Call
    it in every process; only the first one pushes.

    Args:
        trainer: whose model is pushed, to `args.hub_model_id` or a repository named like the output folder.
        commit_message: of the commit.
        blocking: whether to wait for the upload.
        token: of the Hub; None takes `args.hub_token`.
        revision: branch; None takes `args.hub_revision`.
        private: whether a new repository is private; None takes `args.hub_private_repo`.
        examples: see `push_adapter`.
        **metadata: see `card_from_trainer`.

    Returns:
        The commit, or with `blocking=False` its future; None in other processes than the first.

    Raises:
        PushFailedError: the Hub cannot be reached or says no; what was to go up is kept.
    """
    if not trainer.is_world_process_zero():
        return None
    args = trainer.args
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    summary = {**summary_from_trainer(trainer), **_card_fields(metadata)}
    repo = args.hub_model_id or Path(str(args.output_dir)).absolute().name
    return push_files(
        trainer.adapted, trainer.processing_class, summary, repo,
        token=token if token is not None else args.hub_token,
        revision=revision if revision is not None else args.hub_revision,
        private=private if private is not None else args.hub_private_repo,
        run_folder=args.output_dir, examples=examples, blocking=blocking, commit_message=commit_message,
    )  # fmt: skip


def push_checkpoint(trainer: AIFSTrainer, checkpoint_folder: str | Path) -> list[Future[Any]]:
    """What `Trainer` uploads after a checkpoint where `args.hub_strategy` asks for it, without pickled arguments.

    The adapter as it is now goes up in the background, with its card; for the strategies "checkpoint" and
    "all_checkpoints" the checkpoint's folder as well, optimizer state included, which is needed to go on from it. Call
    it in the first process alone.

    Args:
        trainer: in training.
        checkpoint_folder: that was written just now.

    Returns:
        The uploads that are under way; none for the strategy "end".
    """
    args: Any = trainer.args
    strategy = str(getattr(args.hub_strategy, "value", args.hub_strategy))
    if strategy == "end":
        return []
    message = f"Training in progress, step {trainer.state.global_step}"
    try:
        first = push_trainer(trainer, message, blocking=False)
    except PushFailedError as error:  # a Hub that is away for an hour is no reason to lose the run
        _logger.warning("%s The training goes on.", error)
        return []
    jobs: list[Future[Any]] = [first] if isinstance(first, Future) else []
    if strategy in ("checkpoint", "all_checkpoints"):
        folder = Path(checkpoint_folder)
        api: Any = HfApi(token=args.hub_token)
        upload = partial(
            api.upload_folder, repo_id=trainer.hub_model_id, folder_path=str(folder), revision=args.hub_revision,
            path_in_repo="last-checkpoint" if strategy == "checkpoint" else folder.name,
            commit_message=f"{message}, checkpoint", ignore_patterns=["training_args.bin", "README.md"],
        )  # fmt: skip
        jobs.append(api.run_as_future(answered, upload))
    return jobs


def attach_card(model: PeftModel, summary: Mapping[str, Any], processor: Any = None) -> None:
    """From now on this model's own `save_pretrained` and `push_to_hub` write the honest card, too.

    PEFT's write a template in which nearly everything reads "More Information Needed".

    Args:
        model: a trained PEFT model.
        summary: of its run.
        processor: image processor or tokenizer that goes along in `push_to_hub`.
    """
    writer = _CardWriter(model, summary, processor)
    # On this one object: PEFT offers no place for it, and its class is everybody's.
    model.__dict__.update(create_or_update_model_card=writer.write, push_to_hub=writer.push)


def _card_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Trainer.create_model_card` as keys of a summary."""
    names = {"finetuned_from": "model", "dataset_tags": "datasets", "tasks": "task"}
    out = {names.get(key, key): value for key, value in metadata.items() if value is not None and key != "dataset_args"}
    for key in ("task", "dataset"):
        if isinstance(out.get(key), list):
            out[key] = ", ".join(out[key]) if key == "dataset" else out[key][0]
    for key in ("tags", "datasets"):
        if isinstance(out.get(key), str):
            out[key] = [out[key]]
    return out


class _CardWriter:
    """What `attach_card` puts on a model: two of its methods, which know the run."""

    def __init__(self, model: PeftModel, summary: Mapping[str, Any], processor: Any) -> None:
        self.model, self.summary, self.processor = model, plain(summary), processor

    def write(self, output_dir: str | Path) -> None:
        """As `PeftModel.create_or_update_model_card`."""
        render_card(self.summary, output_dir).save(Path(output_dir) / "README.md")

    def push(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> CommitInfo | Future[CommitInfo]:
        """As `PeftModel.push_to_hub`; an adapter is one file, so `max_shard_size` changes nothing."""
        del max_shard_size
        return push_files(
            self.model, self.processor, {**self.summary, "tags": tags or []}, repo_id, private=private, token=token,
            revision=revision, commit_message=commit_message, commit_description=commit_description,
            create_pr=create_pr,
        )  # fmt: skip

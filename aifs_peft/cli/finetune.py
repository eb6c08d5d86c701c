"""`aifs finetune`, and `accelerate launch scripts/finetune.py`: one run, its group table, its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifs_peft.cli import options
from aifs_peft.cli.mistakes import command
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries
from aifs_peft.errors import AIFSError

if TYPE_CHECKING:
    from aifs_peft.experiments import FinetuneResult
    from aifs_peft.training import AIFSTrainingArguments


@command
def main(argv: Sequence[str]) -> int:
    """Fine-tune, print what was found and the tables, write adapter, card and `summary.json`; push when asked to."""
    if any(word.replace("_", "-") == "--help-all" for word in argv):
        print(options.help_of_everything())
        return 0
    spec, args, output = options.parse(argv)
    quiet_libraries()
    from aifs_peft.cli.progress import EpochLines
    from aifs_peft.experiments import run_finetune
    from aifs_peft.training.parallel import close_process_group

    push, args.push_to_hub = args.push_to_hub, False  # pushed once at the end, with the card
    args.disable_tqdm = True  # the Trainer's own bar; EpochLines draws ours
    say = Progress(quiet=output.quiet or int(os.environ.get("RANK", 0)) > 0)
    status = 0
    try:
        result = run_finetune(spec, args, callbacks=[] if output.quiet else [EpochLines()], say=say)
        if result.trainer.accelerator.is_main_process:
            _finish(result, args, output, push=push)
        del result
    except SystemExit as stop:  # SIGTERM; the checkpoint is saved
        status = int(stop.code or 0)
    close_process_group()
    return status


def _finish(result: FinetuneResult, args: AIFSTrainingArguments, output: options.Output, *, push: bool) -> None:
    """Print the result, write the files, push them when asked to."""
    from aifs_peft.experiments.telling import finish_text

    summary = result.summary
    # With --json stdout is for the JSON alone.
    tell = Progress(quiet=output.quiet) if output.json else print
    folder = write_run(result, args.output_dir or "", Progress(quiet=output.quiet))
    if output.json:
        print_json(summary)
    else:
        print(finish_text(summary))
    if result.audit is not None and result.audit.found:
        tell(f"conflicting training examples: {folder / 'audit' / 'conflicting.csv'}")
    tell(f"saved: {folder}")
    if push:
        tell(f"pushed: {_push(result, args, folder)}")


def write_run(result: FinetuneResult, output_dir: str | Path, say: Callable[[str], None] = print) -> Path:
    """Write what a run leaves: adapter, card, `summary.json`, what its audit shows, and then what explains it.

    Args:
        result: of the run.
        output_dir: folder; made where it is missing.
        say: told why, where the explanations cannot be made; the run is saved by then.
    """
    from aifs_peft.report import save_run, write_audit_folder, write_what_if

    if result.audit is None and (Path(output_dir) / "summary.json").is_file():
        shutil.rmtree(Path(output_dir) / "audit", ignore_errors=True)  # of an earlier run
    if result.audit is not None:
        write_audit_folder(result.audit, output_dir)  # before the card, which shows its pictures
    folder = save_run(result.model, result.processor, result.summary, output_dir)
    write_what_if(result.what_if, folder)
    _write_highlights(result, folder, say)
    return folder


def _write_highlights(result: FinetuneResult, folder: Path, say: Callable[[str], None]) -> None:
    """What the attribute's score reads in the examples of the contact sheets; a failure is told, the run is saved."""
    from aifs_peft.experiments.highlighting import highlight_run
    from aifs_peft.report import highlighted_rows, write_highlights

    if result.audit is None:
        return
    rows = highlighted_rows(result.audit)
    try:
        highlights = highlight_run(result, rows)
    except (AIFSError, RuntimeError, ValueError) as error:
        # Forward and backward of the user's encoder: RuntimeError for too little memory, a layer without a gradient or
        # what is not implemented, ValueError for inputs that its author refuses. No narrower kind covers these, and a
        # mistake of ours (TypeError, KeyError, AttributeError, ...) is none of them. The run is saved; the reason told.
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        say(f"no highlighted examples in the report: {type(error).__name__}: {reason}")
        highlights = []
    write_highlights(highlights, rows, result.audit, folder)


def _push(result: FinetuneResult, args: AIFSTrainingArguments, folder: Path) -> str:
    """Push adapter and card; whatever the Hub answers, the adapter is saved already, and the error says where."""
    from aifs_peft.report import push_adapter

    repo, token, private = args.hub_model_id or folder.name, args.hub_token, args.hub_private_repo
    return push_adapter(
        result.model, result.processor, result.summary, repo, token=token, private=private, saved_in=folder
    )

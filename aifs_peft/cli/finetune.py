"""`aifs finetune`, and `accelerate launch scripts/finetune.py`: one run, its group table, its files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from aifs_peft.cli.options import parse
from aifs_peft.cli.progress import EpochLines
from aifs_peft.errors import AIFSError
from aifs_peft.experiments import FinetuneResult, run_finetune
from aifs_peft.metrics import format_group_table
from aifs_peft.report import push_adapter, save_run
from aifs_peft.training import AIFSTrainingArguments
from aifs_peft.training.parallel import close_process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune, print the group table, write adapter, card and `summary.json`; push when asked to."""
    spec, args = parse(sys.argv[1:] if argv is None else argv)
    push, args.push_to_hub = args.push_to_hub, False  # pushed once at the end, with the card
    args.disable_tqdm = True  # the Trainer's own bar; EpochLines draws ours
    try:
        result = run_finetune(spec, args, callbacks=[EpochLines()])
    except (AIFSError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if result.trainer.accelerator.is_main_process:
        _finish(result, args.output_dir, args if push else None)
    del result
    close_process_group()
    return 0


def _finish(result: FinetuneResult, output_dir: str, push: AIFSTrainingArguments | None) -> None:
    """Print the group table, write the files, push them when asked to."""
    summary = result.summary
    print(f"\n{summary['method']} on {summary['dataset']} (test split; groups are read here only)")
    print(f"groups: {summary['group_definition'] or 'the classes'}\n")
    print(format_group_table(summary["metrics"]))
    folder = save_run(result.model, result.processor, summary, output_dir)
    print(f"\nsaved: {folder}")
    if push is not None:
        repo = push.hub_model_id or folder.name
        url = push_adapter(
            result.model, result.processor, summary, repo, token=push.hub_token, private=push.hub_private_repo
        )
        print(f"pushed: {url}")

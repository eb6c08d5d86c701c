"""Model cards and Hub pushes, rendered from results and never recomputed."""

from aifs_peft.report.card import comparison_table, group_table, render_card
from aifs_peft.report.hub import push_adapter, save_run
from aifs_peft.report.plain import plain, to_json
from aifs_peft.report.trainer import attach_card, card_from_trainer, push_trainer, summary_from_trainer

__all__ = [
    "attach_card",
    "card_from_trainer",
    "comparison_table",
    "group_table",
    "plain",
    "push_adapter",
    "push_trainer",
    "render_card",
    "save_run",
    "summary_from_trainer",
    "to_json",
]

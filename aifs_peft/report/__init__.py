"""The HTML report, plots, model cards and Hub pushes: rendered from results and never recomputed."""

from aifs_peft._plain import plain, to_json
from aifs_peft.report.card import comparison_table, group_table, render_card
from aifs_peft.report.folder import write_audit_folder, write_what_if
from aifs_peft.report.highlights import highlighted_rows, write_highlights
from aifs_peft.report.hub import push_adapter, save_run
from aifs_peft.report.page import audit_html, audit_page, plot_audit, render_html, write_report
from aifs_peft.report.trainer import (
    attach_card,
    card_from_trainer,
    push_checkpoint,
    push_trainer,
    write_card,
)
from aifs_peft.report.trainer_summary import summary_from_trainer

__all__ = [
    "attach_card",
    "audit_html",
    "audit_page",
    "card_from_trainer",
    "comparison_table",
    "group_table",
    "highlighted_rows",
    "plain",
    "plot_audit",
    "push_adapter",
    "push_checkpoint",
    "push_trainer",
    "render_card",
    "render_html",
    "save_run",
    "summary_from_trainer",
    "to_json",
    "write_audit_folder",
    "write_card",
    "write_highlights",
    "write_report",
    "write_what_if",
]

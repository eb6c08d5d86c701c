"""Model cards and Hub pushes, rendered from results and never recomputed."""

from aifs_peft.report.card import group_table, render_card
from aifs_peft.report.hub import push_adapter, save_run

__all__ = ["group_table", "push_adapter", "render_card", "save_run"]

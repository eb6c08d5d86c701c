"""Figures of the report: drawn by Matplotlib, readable on light and on dark pages."""

from aifs_peft.report.plots.associations import draw_associations, draw_words
from aifs_peft.report.plots.cells import draw_cells
from aifs_peft.report.plots.evidence import draw_evidence
from aifs_peft.report.plots.history import panels
from aifs_peft.report.plots.projection import draw_projection
from aifs_peft.report.plots.svg import WIDTH, figure, to_svg
from aifs_peft.report.plots.toggled import draw_toggled

__all__ = [
    "WIDTH",
    "draw_associations",
    "draw_cells",
    "draw_evidence",
    "draw_projection",
    "draw_toggled",
    "draw_words",
    "figure",
    "panels",
    "to_svg",
]

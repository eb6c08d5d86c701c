"""Why a model decides as it does: what runs along the spurious directions, and what it would say without them."""

from aifs_peft.explain.reading import attribute_scores, fit_reader, read_attribute
from aifs_peft.explain.share import Split, mean_share, split_decision
from aifs_peft.explain.toggle import Side, other_values, toggled_probabilities, value_names, what_if

__all__ = [
    "Side",
    "Split",
    "attribute_scores",
    "fit_reader",
    "mean_share",
    "other_values",
    "read_attribute",
    "split_decision",
    "toggled_probabilities",
    "value_names",
    "what_if",
]

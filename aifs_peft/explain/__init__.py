"""Why a model decides as it does: what runs along the spurious directions, and what it would say without them."""

from aifs_peft.explain.model import explain_model, highlight_inputs
from aifs_peft.explain.pictures import as_seen, choose_references, patch_maps
from aifs_peft.explain.reading import attribute_scores, fit_reader, infer_values, read_attribute
from aifs_peft.explain.result import Explanation, Highlight
from aifs_peft.explain.share import Split, mean_share, shares, split_decision
from aifs_peft.explain.toggle import Side, other_values, toggled_probabilities, value_names, what_if
from aifs_peft.explain.words import token_scores, words_of

__all__ = [
    "Explanation",
    "Highlight",
    "Side",
    "Split",
    "as_seen",
    "attribute_scores",
    "choose_references",
    "explain_model",
    "fit_reader",
    "highlight_inputs",
    "infer_values",
    "mean_share",
    "other_values",
    "patch_maps",
    "read_attribute",
    "shares",
    "split_decision",
    "toggled_probabilities",
    "token_scores",
    "value_names",
    "what_if",
    "words_of",
]

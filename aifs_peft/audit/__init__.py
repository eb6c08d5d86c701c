"""Audit: is there a shortcut, what is it, who is hurt; from latents or a model and data, without training it.

`audit` is the one name that is imported at once, and it imports what it needs when it is called: `aifs_peft` binds it
under the name of this package, so that `from aifs_peft import audit` is the function in every order of imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aifs_peft.audit.call import audit

if TYPE_CHECKING:
    from aifs_peft.audit.attributes import DEFAULT_ATTRIBUTES
    from aifs_peft.audit.harm import Harm, Rate
    from aifs_peft.audit.held_out import infer_groups
    from aifs_peft.audit.model import audit_model, audit_trainer
    from aifs_peft.audit.names import DEFAULT_WORDS, embed_words
    from aifs_peft.audit.result import Audit
    from aifs_peft.audit.scorer import make_worst_inferred_group_scorer, worst_inferred_group_scorer

# Public name -> the module it lives in; imported when first asked for.
_LAZY = {
    "Audit": "result",
    "DEFAULT_ATTRIBUTES": "attributes",
    "DEFAULT_WORDS": "names",
    "Harm": "harm",
    "Rate": "harm",
    "audit_model": "model",
    "audit_trainer": "model",
    "embed_words": "names",
    "infer_groups": "held_out",
    "make_worst_inferred_group_scorer": "scorer",
    "worst_inferred_group_scorer": "scorer",
}
__all__ = [
    "DEFAULT_ATTRIBUTES",
    "DEFAULT_WORDS",
    "Audit",
    "Harm",
    "Rate",
    "audit",
    "audit_model",
    "audit_trainer",
    "embed_words",
    "infer_groups",
    "make_worst_inferred_group_scorer",
    "worst_inferred_group_scorer",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"aifs_peft.audit.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""AIFS: find the shortcut a fine-tuned model leans on, without group labels, and train it away.

Importing this package makes AIFS known to PEFT, now or as soon as PEFT is imported, so that `get_peft_model`,
`PeftModel.from_pretrained` and the `AutoPeftModel` classes know it. Nothing else happens at import: no heavy package
is loaded, no network is used, nothing is drawn, printed or changed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aifs_peft._peft_hook import install as _install

# The function, which has the name of the package it lives in: bound here, after that package was imported, the name is
# the function whatever is imported later. It imports nothing before it is called.
from aifs_peft.audit import audit

if TYPE_CHECKING:
    from aifs_peft.audit import Audit, make_worst_inferred_group_scorer, worst_inferred_group_scorer
    from aifs_peft.classifier import AIFSClassifier
    from aifs_peft.discovery import discover
    from aifs_peft.experiments import encode
    from aifs_peft.models import LatentClassifier
    from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments, LatentSchedule
    from aifs_peft.tuner import AIFSConfig, AIFSModel

__version__ = "0.1.0"

# Public name -> the module it lives in; imported when first asked for.
_LAZY = {
    "AIFSConfig": "aifs_peft.tuner",
    "AIFSModel": "aifs_peft.tuner",
    "LatentClassifier": "aifs_peft.models",
    "AIFSTrainer": "aifs_peft.training",
    "AIFSTrainingArguments": "aifs_peft.training",
    "AIFSClassifier": "aifs_peft.classifier",
    "LatentSchedule": "aifs_peft.training",
    "discover": "aifs_peft.discovery",
    "encode": "aifs_peft.experiments",
    "Audit": "aifs_peft.audit",
    "make_worst_inferred_group_scorer": "aifs_peft.audit",
    "worst_inferred_group_scorer": "aifs_peft.audit",
}
__all__ = [
    "AIFSClassifier",
    "AIFSConfig",
    "AIFSModel",
    "AIFSTrainer",
    "AIFSTrainingArguments",
    "Audit",
    "LatentClassifier",
    "LatentSchedule",
    "__version__",
    "audit",
    "discover",
    "encode",
    "make_worst_inferred_group_scorer",
    "worst_inferred_group_scorer",
]

_install()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

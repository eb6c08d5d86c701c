"""AIFS: find the shortcut a fine-tuned model leans on, without group labels, and train it away.

Importing this package registers AIFS with PEFT, so that `get_peft_model`, `PeftModel.from_pretrained` and
the `AutoPeftModel` classes know it. Nothing else happens at import: no network, no random draw, no change
of global state.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module it lives in; imported when first asked for.
_LAZY = {
    "AIFSConfig": "aifs_peft.tuner",
    "AIFSModel": "aifs_peft.tuner",
    "LatentClassifier": "aifs_peft.models",
    "AIFSTrainer": "aifs_peft.training",
    "AIFSTrainingArguments": "aifs_peft.training",
    "AIFSClassifier": "aifs_peft.classifier",
    "discover": "aifs_peft.discovery",
    "encode": "aifs_peft.experiments",
}
__all__ = ["__version__", *sorted(_LAZY)]

try:
    from aifs_peft.tuner.registration import register as _register
except (ImportError, RuntimeError) as _error:
    # PEFT itself cannot be imported here (a torchvision built for another torch does that), so there is nothing to
    # register with. What the user imports next raises in full; `aifs doctor` must still run, to say why.
    warnings.warn(
        f"AIFS is not registered with PEFT, which cannot be imported ({_error}); `aifs doctor` says what is wrong",
        RuntimeWarning,
        stacklevel=2,
    )
else:
    _register()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

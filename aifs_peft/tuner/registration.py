"""Make PEFT know AIFS. Three entries in PEFT's tables, nothing else."""

from __future__ import annotations

from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from aifs_peft.tuner._peft import register_prefix
from aifs_peft.tuner.config import AIFSConfig, AIFSPeftType
from aifs_peft.tuner.model import AIFSModel


def register() -> None:
    """Register AIFS with PEFT; calling it again changes nothing.

    `peft.utils.register_peft_method` accepts only members of PEFT's closed enum, so the tables are filled here; PEFT
    supports string types there (huggingface/peft#2634).

    Example:
        >>> register()
        >>> from typing import Any

    from peft import PEFT_TYPE_TO_TUNER_MAPPING
        >>> PEFT_TYPE_TO_TUNER_MAPPING["AIFS"].__name__
        'AIFSModel'
    """
    name: Any = AIFSPeftType.AIFS  # typed as a member of PEFT's enum there
    PEFT_TYPE_TO_CONFIG_MAPPING.setdefault(name, AIFSConfig)
    PEFT_TYPE_TO_TUNER_MAPPING.setdefault(name, AIFSModel)
    register_prefix(AIFSModel.prefix)

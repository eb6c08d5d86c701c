"""Discovery: the spurious directions of latents, found without group labels."""

from aifs_peft.discovery.discover import discover
from aifs_peft.discovery.gate import GateThresholds
from aifs_peft.discovery.hints.prompts import embed_prompts
from aifs_peft.discovery.result import Candidate, Discovery

__all__ = ["Candidate", "Discovery", "GateThresholds", "discover", "embed_prompts"]

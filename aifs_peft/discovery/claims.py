"""What a user can add to latents and labels: claims about an attribute, each tested, and without effect if it fails."""

from __future__ import annotations

from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.named import Named
from aifs_peft.discovery.unlabelled.pool import Pool

Claim = Hint | Named | Pool

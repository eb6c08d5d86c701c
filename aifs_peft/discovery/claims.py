"""What a user can add to latents and labels: each is a claim about an attribute that is tested, and changes nothing if
it fails."""

from __future__ import annotations

from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.named import Named
from aifs_peft.discovery.unlabelled.pool import Pool

Claim = Hint | Named | Pool

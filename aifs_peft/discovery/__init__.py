"""Discovery: the spurious directions of latents, found without group labels.

To read it in the order in which data flow: `discover` (the call), `inputs`, `principal_components`, `hints` (what the
user knows), `search` (one attribute with two or more classes, then several), which uses `proposals`, `mixture` and
`gate`; `assemble` and `result`; `streaming` (latents that are read in blocks); and `linear_heads`, which
`AIFSClassifier` trains for what was found. Every number is in `config`.
"""

from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.discover import discover, discover_stream
from aifs_peft.discovery.hints.prompts import embed_prompts
from aifs_peft.discovery.result import Candidate, Discovery
from aifs_peft.discovery.streaming.batches import LatentBatches
from aifs_peft.discovery.streaming.shards import ShardedLatents
from aifs_peft.discovery.streaming.source import LatentSource

__all__ = [
    "Candidate",
    "Discovery",
    "DiscoveryConfig",
    "GateThresholds",
    "LatentBatches",
    "LatentSource",
    "ShardedLatents",
    "discover",
    "discover_stream",
    "embed_prompts",
]

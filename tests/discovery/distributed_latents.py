"""Run by `test_discovery_distributed.py`, alone or in two processes: discovery on shards, the results in a file."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from aifs_peft import AIFSClassifier
from aifs_peft.discovery import DiscoveryConfig, LatentBatches, ShardedLatents, discover
from aifs_peft.discovery.config import InputConfig
from aifs_peft.errors import InvalidConfigError, InvalidInputError

N, SAMPLED = 20_000, DiscoveryConfig(inputs=InputConfig(held_rows=9000))


def planted(n=N, d=24):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < 0.95, y, 1 - y)
    Z = rng.normal(size=(n, d)).astype(np.float32)
    Z[:, 0] += 5 * a
    Z[:, 1] += 2.5 * y
    return Z, y, a


def told(found):
    names = ("responsibilities_", "groups_", "labels_", "basis_", "displacements_", "class_displacements_")
    return {name: torch.as_tensor(getattr(found, name)) for name in names}


def main(out, processes):
    if processes > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if processes > 1 else 0
    Z, y, a = planted()
    # Shards of unequal length, whose ends lie within blocks.
    ends = [0, 7777, N] if processes > 1 else [0, N]
    own = slice(ends[rank], ends[rank + 1])
    results = {}
    for name, config in (("all", DiscoveryConfig()), ("sample", SAMPLED)):
        found = discover(ShardedLatents(Z[own]), y[own], random_state=0, config=config)
        results |= {f"{name}.{key}": value for key, value in told(found).items()}
        known = np.where(np.arange(N) % 7 == 0, a, -1)[own]
        hinted = discover(ShardedLatents(Z[own]), y[own], groups=known, random_state=0, config=config)
        results |= {f"{name}.hinted.{key}": value for key, value in told(hinted).items()}
    part = LatentBatches(lambda: ((Z[own][i : i + 500], y[own][i : i + 500]) for i in range(0, len(y[own]), 500)))
    found = discover(ShardedLatents(part), part.labels, random_state=0, config=SAMPLED)
    results |= {f"batches.{key}": value for key, value in told(found).items()}
    clf = AIFSClassifier(random_state=0).fit(ShardedLatents(Z[own]), y[own])
    results["coef"] = torch.as_tensor(clf.coef_)
    weights = np.where(np.arange(N) % 5 == 0, 0.0, 1.0)[own]
    clf = AIFSClassifier(random_state=0).fit(ShardedLatents(Z[own]), y[own], sample_weight=weights)
    results["weighted"] = torch.as_tensor(clf.coef_)

    # What one process alone can see is refused by all of them.
    spoilt = Z[own].copy()
    spoilt[0, 0] = np.nan if rank == processes - 1 else 0.0
    for given, labels in ((spoilt, y[own]), (Z[own], y[own][: -1 - rank])):
        with pytest.raises(InvalidInputError):
            discover(ShardedLatents(given), labels)
    if processes > 1:
        with pytest.raises(InvalidConfigError, match="trains on one process"):
            AIFSClassifier("jtt", random_state=0).fit(ShardedLatents(Z[own]), y[own])
    same = [None] * processes
    if processes > 1:
        dist.all_gather_object(same, {key: value.numpy().tobytes() for key, value in results.items()})
        assert same[0] == same[1], [key for key in same[0] if same[0][key] != same[1][key]]
    if rank == 0:
        torch.save(results, Path(out) / "results.pt")
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

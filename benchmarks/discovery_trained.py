"""Heads trained by gradient against the closed ones, and against the group-label oracle, on the same dominoes draws.

    python benchmarks/discovery_trained.py

`aifs` on frozen latents with a linear and with an MLP head, at the defaults of the method and of `LatentSchedule`;
`no_synthetic` is the same without them. ERM, the closed heads of `AIFSClassifier()` and the oracle (its
L2 penalty with hindsight) are those of `discovery_dominoes.json`, by `discovery_dominoes.py` on the same draws. Rows
that the output file already holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from discovery_dominoes import Split, dominoes, group_accuracies, summarise

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.experiments import provenance
from aifs_peft.training.latent_trainer import LatentSchedule

RESULTS = Path(__file__).parent / "results"
KEPT = ("erm", "oracle", "oracle_balanced", "aifs", "aifs_balanced")
VARIANTS = {"synthetic": {}, "no_synthetic": {"synthetic": 0.0}}


def evaluate(train: Split, test: Split, seed: int) -> dict[str, float]:
    """Worst group and mean over groups of every head on one draw."""
    row = {}
    for head in ("linear", "mlp"):
        for name, options in VARIANTS.items():
            clf = AIFSClassifier(
                "aifs", recipe_options=options, schedule=LatentSchedule(head=head), random_state=seed
            ).fit(train[0], train[1])
            scores = group_accuracies(np.asarray(clf.predict(test[0])), test, 2)
            row[f"{head}_{name}"], row[f"{head}_{name}_balanced"] = scores["worst"], scores["balanced"]
    return row


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.98, 0.99, 0.995])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "discovery_trained.json")
    options = parser.parse_args()
    closed = json.loads((RESULTS / "discovery_dominoes.json").read_text())["rows"]
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["provenance"] = provenance()
    for share in options.shares:
        for seed in range(options.seeds):
            key = f"dominoes/{share}/{seed}"
            if key in record["rows"]:
                continue
            row = {name: closed[key][name] for name in KEPT}
            record["rows"][key] = row | evaluate(*dominoes(share, seed), seed)
            record["summary"] = summarise(record["rows"])
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()

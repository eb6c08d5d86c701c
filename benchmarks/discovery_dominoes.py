"""Label-free discovery against the tuned group-label oracle on dominoes and Colored MNIST latents.

    python benchmarks/discovery_dominoes.py --seeds 5 --out benchmarks/results/discovery_dominoes.json
    python benchmarks/discovery_dominoes.py --colored-mnist CACHE_DIR --shares 0.95 --out ...

Rows that the output file already holds are not computed again; with `--again` AIFS is, ERM and the oracle are kept. The
oracle is logistic regression reweighted by the *true* groups on the same 256 principal components, its L2 penalty the
best of the grid *with hindsight on the test set* (a column that no method can honestly reach): `oracle` is its worst
group, `oracle_l2_1e-2` the same without hindsight.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.principal_components import principal_components

L2 = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
Split = tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64]]


def shared() -> Path:
    """The folder of real inputs."""
    return Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))


def dominoes(share: float, seed: int) -> tuple[Split, Split]:
    """Train at an aligned share, test on every image with both digits."""
    with np.load(shared() / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    a = np.where(np.random.default_rng(seed).random(len(y)) < share, y, 1 - y)
    train = (z[np.arange(len(y)), a].astype(np.float32), y, a)
    with np.load(shared() / "data" / "dominoes_latents" / "test.npz") as file:
        z, y = file["z"].astype(np.float32), file["y"].astype(np.int64)
    test = (np.concatenate([z[:, 0], z[:, 1]]), np.r_[y, y], np.repeat([0, 1], len(y)))
    return train, test


def few(seed: int, n: int = 300, conflicts: int = 10) -> tuple[Split, Split]:
    """Dominoes with few examples, of which exactly `conflicts` conflict."""
    _, test = dominoes(1.0, seed)
    with np.load(shared() / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    rows = np.random.default_rng(seed).permutation(len(y))[:n]
    a = np.where(np.arange(n) < conflicts, 1 - y[rows], y[rows])
    return (z[rows, a].astype(np.float32), y[rows], a), test


def group_accuracies(predicted: NDArray[np.int64], test: Split, n_classes: int) -> dict[str, float]:
    """Worst group and mean over groups (balanced accuracy)."""
    _, y, a = test
    cells = y * n_classes + a
    accuracy = [float(np.mean((predicted == y)[cells == c])) for c in np.unique(cells)]
    return {"worst": min(accuracy), "balanced": float(np.mean(accuracy))}


def oracle(train: Split, test: Split, n_classes: int, floor: float = 1.0) -> dict[float, dict[str, float]]:
    """Group-reweighted logistic regression at every penalty."""
    Z, y, a = train
    reduction = principal_components(Z, 256, rng=np.random.default_rng(0))
    X, X_test = reduction.transform(Z), reduction.transform(test[0])
    cells = y * n_classes + a
    counts = np.maximum(np.bincount(cells, minlength=n_classes**2), floor)
    head: LinearHead | None = None
    out = {}
    for l2 in L2:
        head = fit_logistic(X, y, n_classes, l2=l2, weights=1.0 / counts[cells], start=head)
        out[l2] = group_accuracies(head.logits(X_test).argmax(axis=1), test, n_classes)
    return out


BASELINES = ("erm", "erm_balanced", "oracle", "oracle_balanced", "oracle_l2_1e-2")


def baselines(train: Split, test: Split, n_classes: int) -> dict[str, float | bool | str]:
    """ERM and the oracle on one draw."""
    row: dict[str, float | bool | str] = {}
    erm = AIFSClassifier(recipe="erm", random_state=0).fit(train[0], train[1])
    scores = group_accuracies(np.asarray(erm.predict(test[0])), test, n_classes)
    row["erm"], row["erm_balanced"] = scores["worst"], scores["balanced"]
    tuned = oracle(train, test, n_classes, floor=1.0 if n_classes == 2 else 30.0)
    best = max(tuned.values(), key=lambda s: s["worst"])
    row["oracle"], row["oracle_balanced"] = best["worst"], max(s["balanced"] for s in tuned.values())
    row["oracle_l2_1e-2"] = tuned[0.01]["worst"]
    return row


def evaluate(train: Split, test: Split, n_classes: int) -> dict[str, float | bool | str]:
    """What a row holds of AIFS on one draw."""
    Z, y, a = train
    row: dict[str, float | bool | str] = {}
    start = time.perf_counter()
    clf = AIFSClassifier(random_state=0).fit(Z, y)
    row["fit_seconds"] = round(time.perf_counter() - start, 2)
    scores = group_accuracies(np.asarray(clf.predict(test[0])), test, n_classes)
    row["aifs"], row["aifs_balanced"] = scores["worst"], scores["balanced"]
    found = clf.discovery_
    called, true = found.groups_ != y, a != y
    hit = int(np.count_nonzero(called & (found.groups_ == a)))
    row["found"], row["evidence"] = bool(found.found), round(found.evidence_, 2)
    row["precision"], row["recall"] = hit / max(int(called.sum()), 1), hit / max(int(true.sum()), 1)
    row["head"] = clf.head_choice_.setting.describe() if clf.head_choice_ else "erm"
    return row


def colored_mnist(cache: Path, share: float, seed: int, n: int = 8000) -> tuple[Split, Split]:
    """Ten digits coloured by class, latents made by `benchmarks/discovery_encode_mnist.py`."""
    with np.load(cache / "aligned.npz") as file:
        aligned, y = file["z"], file["y"].astype(np.int64)
    with np.load(cache / "other.npz") as file:
        other, colour = file["z"], file["a"].astype(np.int64)
    rng = np.random.default_rng(seed)
    moved = rng.random(len(y)) >= share
    rows = rng.permutation(len(y))[:n]
    z = np.where(moved[:, None], other, aligned).astype(np.float32)
    a = np.where(moved, colour, y)
    with np.load(cache / "test.npz") as file:
        test = (file["z"].astype(np.float32), file["y"].astype(np.int64), file["a"].astype(np.int64))
    return (z[rows], y[rows], a[rows]), test


def summarise(rows: dict[str, dict[str, float | bool | str]]) -> dict[str, dict[str, float | int]]:
    """Mean and, of more than one, standard error over seeds of every number that all rows of a case have."""
    cases: dict[str, list[dict[str, float | bool | str]]] = {}
    for key, row in rows.items():
        cases.setdefault(key.rsplit("/", 1)[0], []).append(row)
    out: dict[str, dict[str, float | int]] = {}
    for case, drawn in cases.items():
        out[case] = {"seeds": len(drawn)}
        for name in (name for name in drawn[0] if all(name in row for row in drawn)):
            values = np.array([row[name] for row in drawn if not isinstance(row[name], str)], dtype=float)
            if len(values):
                out[case][name] = round(float(values.mean()), 4)
            if len(values) > 1:  # one draw has no standard error
                out[case][f"{name}_se"] = round(float(values.std(ddof=1) / np.sqrt(len(values))), 4)
    return out


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95, 0.98, 0.99])
    parser.add_argument("--colored-mnist", type=Path, default=None)
    parser.add_argument("--few", action="store_true", help="n = 300 with 10 conflicting examples instead of shares")
    parser.add_argument("--again", action="store_true", help="measure AIFS again in rows that are there")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["versions"] = {"python": platform.python_version(), "numpy": np.__version__, "sklearn": sklearn.__version__}
    name, n_classes = ("dominoes", 2) if options.colored_mnist is None else ("colored_mnist_10", 10)
    shares: list[Any] = ["n=300, 10 conflicting"] if options.few else options.shares
    for share in shares:
        for seed in range(options.seeds):
            key = f"{name}/{share}/{seed}"
            old = record["rows"].get(key)
            if old and not options.again:
                continue
            if options.few:
                draw = few(seed)
            elif n_classes == 2:
                draw = dominoes(share, seed)
            else:
                draw = colored_mnist(options.colored_mnist, share, seed)
            base = {name: old[name] for name in BASELINES} if old else baselines(*draw, n_classes)
            record["rows"][key] = {**base, **evaluate(*draw, n_classes)}
            record["summary"] = summarise(record["rows"])
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()

"""Discovery with three to twenty classes: subsets of Colored MNIST, composed pictures, planted latents.

    python benchmarks/discovery_many_classes.py --mnist DIR --composites DIR --baselines OLD.json --out NEW.json
    python benchmarks/discovery_many_classes.py --set colored_mnist_4 --n 2000 --mnist DIR
    python benchmarks/discovery_many_classes.py --set framed_4 --n 1600 --composites DIR
    python benchmarks/discovery_many_classes.py --set planted_20 --n 8000

Sets: `colored_mnist_K`, digits drawn at random per seed, coloured by class, conflicting examples in another one of the
colours (latents by `discovery_encode_mnist.py`); `unequal_mnist_K`, the same with classes of falling size, the last one
a quarter of the first; `framed_K` and `marked_K`, the first K classes of the composed pictures
(`discovery_encode_composites.py`); `scenes_4`, `bold_4` and `paired_4`, digits beside natural attributes
(`discovery_encode_scenes.py`, into the same folder); `planted_K`, Gaussians of 64 dimensions, classes 3 and values 5
standard deviations from the middle. Without `--set` all rows of the plan are computed, draw by draw; the first command,
again and again, measures AIFS by one version of the code and takes all else from rows that are there. Rows that the
output file holds already are not computed again; with `--again` AIFS is.

Two oracles, both logistic regression that weighs the true cells evenly. `oracle`: its penalty and its smallest cell
weight are the best of the grid *with hindsight on the test set*, which no user can reach. `oracle_chosen`: they are
chosen as a user with group labels would, by the worst true cell of held-out folds of the training set (of equal ones
by the mean of the cells). With `--oracles` only these are computed, in rows that are there. XRM: the recipe `xrm-gdro`
with its defaults. Seeds from 100 are for development: of the composed pictures they draw from the first half, the
others from the second; digits and planted latents have none of their own, only other draws.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from discovery_dominoes import L2, Split, group_accuracies, summarise
from sklearn.model_selection import StratifiedKFold

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.principal_components import principal_components

RESULT = Path(__file__).parent / "results" / "discovery_many_classes.json"
DEVELOPMENT = 100
FLOORS = (5.0, 30.0)
FOLDS = 5
PLAN = (
    ("colored_mnist_4", 2000), ("framed_4", 1600), ("colored_mnist_5", 2000), ("colored_mnist_10", 2000),
    ("framed_3", 1200), ("framed_6", 2400), ("unequal_mnist_4", 2000), ("planted_20", 8000),
    ("colored_mnist_4", 8000), ("colored_mnist_10", 8000), ("scenes_4", 1600), ("bold_4", 1600),
    ("paired_4", 1600),
)  # fmt: skip
Row = dict[str, float | bool | str]


def colored_mnist(
    cache: Path, n_classes: int, share: float, seed: int, n: int, unequal: bool = False
) -> tuple[Split, Split]:
    """Train on `n` images of `n_classes` random digits, test on those in one of their colours."""
    with np.load(cache / "aligned.npz") as file:
        aligned, y = file["z"], file["y"].astype(np.int64)
    with np.load(cache / "other.npz") as file:
        other, colour = file["z"], file["a"].astype(np.int64)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(10, n_classes, replace=False))
    inside = np.isin(y, chosen)
    movable = inside & np.isin(colour, chosen)
    # Every image has one other colour, which is one of the chosen only for some: those are drawn more often.
    probability = (1.0 - share) * np.count_nonzero(inside) / np.count_nonzero(movable)
    moved = movable & (rng.random(len(y)) < probability)
    rows = rng.permutation(np.flatnonzero(inside))
    if unequal:
        kept_share = 0.25 ** (np.searchsorted(chosen, y[rows]) / (n_classes - 1))
        rows = rows[rng.random(len(rows)) < kept_share]
    rows = rows[:n]
    z, a = np.where(moved[rows, None], other[rows], aligned[rows]).astype(np.float32), np.where(moved, colour, y)[rows]
    with np.load(cache / "test.npz") as file:
        test_z, test_y, test_a = file["z"].astype(np.float32), file["y"].astype(np.int64), file["a"].astype(np.int64)
    kept = np.isin(test_y, chosen) & np.isin(test_a, chosen)
    index = np.searchsorted
    train = (z, index(chosen, y[rows]), index(chosen, a))
    return train, (test_z[kept], index(chosen, test_y[kept]), index(chosen, test_a[kept]))


def composites(cache: Path, name: str, n_classes: int, share: float, seed: int, n: int) -> tuple[Split, Split]:
    """Train on `n / n_classes` pictures of each of the first classes, test on all cells evenly."""
    with np.load(cache / f"{name}_train.npz") as file:
        z, y, other = file["z"], file["y"].astype(np.int64), file["other"].astype(np.int64)
    rng, each = np.random.default_rng(seed), np.count_nonzero(y == 0)
    first = np.arange(len(y)) % each < each // 2
    ours = rng.permutation(np.flatnonzero((first if seed >= DEVELOPMENT else ~first) & (y < n_classes)))
    rows = rng.permutation(np.concatenate([ours[y[ours] == c][: n // n_classes] for c in range(n_classes)]))
    movable = other[rows] < n_classes
    moved = movable & (rng.random(len(rows)) < (1.0 - share) * len(rows) / np.count_nonzero(movable))
    train = (z[rows, moved.astype(int)].astype(np.float32), y[rows], np.where(moved, other[rows], y[rows]))
    with np.load(cache / f"{name}_test.npz") as file:
        kept = file["y"] < n_classes
        z, y = file["z"][kept][:, :n_classes].astype(np.float32), file["y"][kept].astype(np.int64)
    return train, (z.reshape(-1, z.shape[-1]), np.repeat(y, n_classes), np.tile(np.arange(n_classes), len(y)))


def planted(n_classes: int, share: float, seed: int, n: int, width: int = 64) -> tuple[Split, Split]:
    """Gaussians with one direction per class and one per attribute value."""
    rng = np.random.default_rng(seed)

    def draw(rows: int, aligned: float) -> Split:
        y = rng.integers(0, n_classes, rows)
        a = np.where(rng.random(rows) < aligned, y, (y + rng.integers(1, n_classes, rows)) % n_classes)
        Z = rng.normal(size=(rows, width)).astype(np.float32)
        Z[np.arange(rows), y] += 3.0
        Z[np.arange(rows), n_classes + a] += 5.0
        return Z, y, a

    return draw(n, share), draw(40 * n_classes**2, 1.0 / n_classes)


def grid(X: Array, y: IntArray, n_classes: int, cells: IntArray) -> Iterator[LinearHead]:
    """Cell-reweighted logistic regression at every smallest cell weight and every penalty."""
    counts = np.bincount(cells, minlength=n_classes**2)
    for floor in FLOORS:
        head: LinearHead | None = None
        for l2 in L2:
            weights = 1.0 / np.maximum(counts, floor)[cells]
            head = fit_logistic(X, y, n_classes, l2=l2, weights=weights, start=head)
            yield head


def oracles(train: Split, test: Split, n_classes: int) -> dict[str, float]:
    """Worst group and balanced accuracy of the best of the grid on the test set, and of the one that folds choose."""
    Z, y, a = train
    reduction = principal_components(Z, 256, rng=np.random.default_rng(0))
    X, X_test = reduction.transform(Z), reduction.transform(test[0])
    cells = y * n_classes + a
    found = [
        group_accuracies(head.logits(X_test).argmax(axis=1), test, n_classes) for head in grid(X, y, n_classes, cells)
    ]
    predicted = np.empty((len(found), len(y)), dtype=np.int64)
    for inside, out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y):
        for place, head in enumerate(grid(X[inside], y[inside], n_classes, cells[inside])):
            predicted[place, out] = head.logits(X[out]).argmax(axis=1)
    held_out = [group_accuracies(values, train, n_classes) for values in predicted]
    chosen = found[max(range(len(found)), key=lambda i: (held_out[i]["worst"], held_out[i]["balanced"]))]
    return {
        "oracle": max(f["worst"] for f in found),
        "oracle_balanced": max(f["balanced"] for f in found),
        "oracle_chosen": chosen["worst"],
        "oracle_chosen_balanced": chosen["balanced"],
    }


def baselines(train: Split, test: Split, n_classes: int) -> Row:
    """Plain training, the oracle, and XRM with group DRO."""
    row: Row = {}
    for name, recipe in (("erm", "erm"), ("xrm", "xrm-gdro")):
        fitted = AIFSClassifier(recipe=recipe, random_state=0).fit(train[0], train[1])
        scores = group_accuracies(np.asarray(fitted.predict(test[0])), test, n_classes)
        row[name], row[f"{name}_balanced"] = scores["worst"], scores["balanced"]
    return {**row, **oracles(train, test, n_classes)}


def evaluate(train: Split, test: Split, n_classes: int) -> Row:
    """What a row holds of AIFS."""
    Z, y, a = train
    start = time.perf_counter()
    fitted = AIFSClassifier(random_state=0).fit(Z, y)
    row: Row = {"fit_seconds": round(time.perf_counter() - start, 2)}
    scores = group_accuracies(np.asarray(fitted.predict(test[0])), test, n_classes)
    row["aifs"], row["aifs_balanced"] = scores["worst"], scores["balanced"]
    found, choice = fitted.discovery_, fitted.head_choice_
    assert found is not None
    groups = (found.parts_ or (found,))[0].groups_
    called, true = groups != y, a != y
    row["found"], row["attributes"], row["source"] = found.found, len(found.parts_) or int(found.found), found.source_
    for name, hits in (("any", called & true), ("exact", called & (groups == a))):
        count = int(np.count_nonzero(hits))
        row[f"precision_{name}"] = count / max(int(called.sum()), 1)
        row[f"recall_{name}"] = count / max(int(true.sum()), 1)
    row["head"] = choice.setting.describe() if choice else "plain"
    return row


def draw(name: str, n: int, share: float, seed: int, mnist: Path, pictures: Path) -> tuple[Split, Split, int]:
    """Training and test examples of a set, and its number of classes."""
    kind, _, number = name.rpartition("_")
    K = int(number)
    if kind in ("colored_mnist", "unequal_mnist"):
        return *colored_mnist(mnist, K, share, seed, n, unequal=kind == "unequal_mnist"), K
    if kind == "planted":
        return *planted(K, share, seed, n), K
    return *composites(pictures, kind, K, share, seed, n), K


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", help="colored_mnist_K, unequal_mnist_K, framed_K, marked_K, scenes_4, ...")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.9, 0.95])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--composites", type=Path)
    parser.add_argument("--again", action="store_true", help="measure AIFS again in rows that are there")
    parser.add_argument("--oracles", action="store_true", help="compute the oracles anew in rows that are there")
    parser.add_argument("--baselines", type=Path, help="a result file; of its rows only AIFS is computed anew")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further row after so long")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    plan = ((options.set, options.n),) if options.set else PLAN
    known = json.loads(options.baselines.read_text())["rows"] if options.baselines else {}
    start = time.monotonic()
    for seed, (name, n), share in itertools.product(options.seeds, plan, options.shares):
        record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
        key = f"{name}, n={n}/{share:g}/{seed}"
        old = record["rows"].get(key) or known.get(key)
        there = key in record["rows"]
        skipped = not there if options.oracles else there and not options.again
        if skipped or time.monotonic() - start > options.seconds:
            continue
        splits = draw(name, n, share, seed, options.mnist, options.composites)
        if options.oracles:
            record["rows"][key] |= oracles(*splits)
        else:
            ours = evaluate(*splits)
            base = {k: v for k, v in old.items() if k not in ours} if old else baselines(*splits)
            record["rows"][key] = {**base, **ours}
        record["summary"] = summarise(record["rows"])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()

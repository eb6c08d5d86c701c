"""Unlabelled examples for attributes that discovery alone does not find: a pool in which they go with the label less.

    python benchmarks/discovery_unlabelled.py --out benchmarks/results/discovery_unlabelled.json

Two families of attributes, as in discovery_hints.py. *planted*: Gaussian latents, 64 wide, with a class contrast of 1.5
and an attribute contrast of 2 to 3, n = 5,000. *dominoes*: the real latents, the difference that the digit makes scaled
down to 0.3; the pool is taken out of the 5,000 training images, so n = 4,600 with a pool of 400. A case is named by its
attribute, the aligned share in training, the aligned share in the pool (0.5: no association) and the pool's size.
`recovered` is `(pool - without) / (oracle - without)` in worst-group accuracy: `without` is the same classifier without
the pool, the oracle is tuned on the test set as in discovery_dominoes.py.

*Nulls* (`--nulls`): no attribute goes with the label (planted without one, dominoes with one digit for all or with the
digits drawn at random), and the pool is drawn like training, of another class share, moved, wider, wider along one
direction, with a cluster of its own, or noise. An alarm is a pool that is used; its cost is counted in worst-class
accuracy. *Three classes* (`--many`): planted, three to four classes. *Cars and trucks* (`--cars CACHE_DIR`, what
discovery_encode_cars.py wrote): real pictures with a weak mark, 5,000 as with dominoes. Rows that the output file
already holds are not computed again.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from discovery_dominoes import Split, group_accuracies, oracle
from numpy.typing import NDArray
from weak_attributes import dominoes_pairs, every_domino, moved_together, planted_draws

from aifs_peft.classifier import AIFSClassifier

ATTRIBUTES: dict[str, dict[str, float]] = {
    "planted, contrast 2": {"contrast": 2.0},
    "planted, contrast 2.5": {"contrast": 2.5},
    "planted, contrast 3": {"contrast": 3.0},
    "dominoes x 0.3": {"scale": 0.3},
}
# Aligned share in training, in the pool, and size of the pool.
SETTINGS = [(0.95, 0.5, 400), (0.95, 0.7, 400), (0.9, 0.5, 400), (0.9, 0.7, 400), (0.95, 0.5, 100), (0.95, 0.5, 2000)]
WITHOUT = ("planted", "one digit", "random digits")
POOLS = ("like training", "class share 0.3", "moved", "wider", "wider along one", "a cluster", "noise")
POOL = 400


def planted(
    seed: int, *, contrast: float, share: float, pool_share: float, pool: int, core: float = 1.5, d: int = 64
) -> tuple[Split, Split, Split]:
    """Training set of 5,000, pool and balanced test set of 8,000 with falling variances along random axes."""
    draw = planted_draws(seed, d=d, contrast=contrast, core=core)
    train, test = draw(5000, share), draw(8000, 0.5)
    return train, draw(pool, pool_share), test


def held_out_pool(
    rng: np.random.Generator, y: NDArray[np.int64], *, share: float, pool_share: float, pool: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on, rows of the pool, and each row's attribute at the share of its part."""
    order = rng.permutation(len(y))
    own, other = order[pool:], order[:pool]
    a = np.where(rng.random(len(y)) < share, y, 1 - y)
    a[other] = np.where(rng.random(pool) < pool_share, y[other], 1 - y[other])
    return own, other, a


def dominoes(seed: int, *, scale: float, share: float, pool_share: float, pool: int) -> tuple[Split, Split, Split]:
    """Dominoes whose two digits' latents are moved towards their mean; the pool is held out of the training images."""
    rng = np.random.default_rng(seed)
    z, y = dominoes_pairs("train")
    own, other, a = held_out_pool(rng, y, share=share, pool_share=pool_share, pool=pool)
    train, held = ((moved_together(z[rows], a[rows], scale), y[rows], a[rows]) for rows in (own, other))
    return train, held, every_domino(scale)


def cars(cache: Path, seed: int, *, share: float, pool_share: float, pool: int) -> tuple[Split, Split, Split]:
    """Cars and trucks with a weak mark or without; the pool is held out of the training pictures."""

    def load(name: str) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        with np.load(cache / f"{name}.npz") as file:
            return file["z"].astype(np.float32), file["y"]

    (z, y), (test_z, test_y) = load("train"), load("test")
    rng = np.random.default_rng(seed)
    own, other, a = held_out_pool(rng, y, share=share, pool_share=pool_share, pool=pool)
    test = (np.concatenate([test_z[:, 0], test_z[:, 1]]), np.r_[test_y, test_y], np.repeat([0, 1], len(test_y)))
    return (z[own, a[own]], y[own], a[own]), (z[other, a[other]], y[other], a[other]), test


def many_classes(seed: int, *, classes: int, contrast: float, core: float = 2.5) -> tuple[Split, Split, Split]:
    """Planted, 24 wide: training set of 3,000 at 0.92, a pool of 400 without association, test set."""
    d, rng = 24, np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, 2 * (classes - 1))))[0].T
    corners = np.linalg.svd(np.eye(classes) - 1.0 / classes)[0][:, : classes - 1] / np.sqrt(2.0)
    of_class, of_value = core * corners @ axes[: classes - 1], contrast * corners @ axes[classes - 1 :]

    def draw(n: int, aligned: float) -> Split:
        y = rng.integers(0, classes, n)
        a = np.where(rng.random(n) < aligned, y, (y + rng.integers(1, classes, n)) % classes)
        return rng.normal(size=(n, d)) + of_class[y] + of_value[a], y, a

    return draw(3000, 0.92), draw(POOL, 1.0 / classes), draw(6000, 1.0 / classes)


def evaluate(train: Split, pool: Split, test: Split, classes: int, known: dict[str, Any]) -> dict[str, Any]:
    """One row: plain training, the classifier without the pool and with it, and the oracle.

    `known` is a row of the same training and test set with another pool, whose other entries are the same, or empty.
    """
    Z, y, _ = train
    row: dict[str, Any] = {name: value for name, value in known.items() if not name.startswith("pool")}
    fits: dict[str, tuple[str, dict[str, Any]]] = {
        "erm": ("erm", {}),
        "without": ("discovery", {}),
        "pool": ("discovery", {"unlabelled": pool[0]}),
    }
    for name, (recipe, given) in fits.items():
        if name in row:
            continue
        start = time.process_time()
        clf = AIFSClassifier(recipe, random_state=0).fit(Z, y, **given)
        row[f"{name}_seconds"] = round(time.process_time() - start, 2)
        scores = group_accuracies(np.asarray(clf.predict(test[0])), test, classes)
        row[name], row[f"{name}_balanced"] = scores["worst"], scores["balanced"]
        if clf.discovery_ is not None:
            row[f"{name}_source"] = clf.discovery_.source_
            row[f"{name}_reason"] = _reason(clf)
    if "oracle" not in row:
        row["oracle"] = max(s["worst"] for s in oracle(train, test, classes).values())
    return row


def _reason(clf: AIFSClassifier) -> str:
    assert clf.discovery_ is not None
    verdicts = [c.reason for c in clf.discovery_.candidates_ if c.source == "hint:unlabelled"]
    return verdicts[0] if verdicts else ""


def changed(pool: Split, train: Split, kind: str, rng: np.random.Generator) -> NDArray[np.floating]:
    """The pool's latents, different from training in something that is no attribute."""
    Z = pool[0].astype(np.float64)
    if kind == "class share 0.3":
        return Z[(pool[1] == 0) | (rng.random(len(Z)) < 3.0 / 7.0)]
    if kind == "noise":
        return np.asarray(train[0].mean(axis=0) + rng.normal(size=Z.shape) * train[0].std(axis=0))
    covariance = np.cov(train[0].T)
    leading = np.linalg.eigh(covariance)[1][:, ::-1][:, :20]
    direction = leading @ rng.normal(size=20)
    direction /= np.linalg.norm(direction)
    size = float(np.sqrt(direction @ covariance @ direction))
    if kind == "moved":
        Z = Z + size * direction
    if kind == "wider":
        Z = Z.mean(axis=0) + 1.3 * (Z - Z.mean(axis=0))
    if kind == "wider along one":
        Z = Z + np.outer((Z - Z.mean(axis=0)) @ direction, direction)
    if kind == "a cluster":
        Z[rng.random(len(Z)) < 0.15] += 3.0 * size * direction
    return Z


@functools.lru_cache(maxsize=1)
def without_shortcut(base: str, seed: int) -> tuple[tuple[Split, Split, Split], AIFSClassifier]:
    """A draw without an attribute that goes with the label, and the classifier without a pool; all kinds share it."""
    if base == "planted":
        draw = planted(seed, contrast=0.0, share=0.5, pool_share=0.5, pool=POOL)
    else:
        draw = dominoes(seed, scale=0.0 if base == "one digit" else 0.3, share=0.5, pool_share=0.5, pool=POOL)
    return draw, AIFSClassifier(random_state=0).fit(*draw[0][:2])


def evaluate_null(base: str, kind: str, seed: int) -> dict[str, Any]:
    """One row without an attribute that goes with the label: whether the pool was used, and what that cost."""
    (train, pool, test), without = without_shortcut(base, seed)
    unlabelled = changed(pool, train, kind, np.random.default_rng(seed + 999))
    row: dict[str, Any] = {}
    fitted = {"without": without, "pool": AIFSClassifier(random_state=0).fit(*train[:2], unlabelled=unlabelled)}
    for name, clf in fitted.items():
        predicted = np.asarray(clf.predict(test[0]))
        row[name] = min(float(np.mean(predicted[test[1] == c] == c)) for c in (0, 1))
    row["alarm"] = fitted["pool"].discovery_.source_ == "hint:unlabelled"  # type: ignore[union-attr]
    row["reason"] = _reason(fitted["pool"])
    same = np.array_equal(fitted["pool"].coef_, without.coef_)
    row["equal"] = bool(same and np.array_equal(fitted["pool"].intercept_, without.intercept_))
    return row


def _drawn(
    draw: Callable[[], tuple[Split, Split, Split]], classes: int, same: re.Pattern[str], rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """A row; keys that match `same` have the same training and test set."""
    known = next((row for key, row in rows.items() if same.fullmatch(key)), {})
    return evaluate(*draw(), classes=classes, known=known)


def jobs(options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is to be computed, by the key of its row; `rows` are those that there are when it is."""
    out: dict[str, Callable[[], dict[str, Any]]] = {}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.nulls:
        for seed, base, kind in product(seeds, WITHOUT, POOLS):
            out[f"null, {base}, {kind}/{seed}"] = partial(evaluate_null, base, kind, seed)
    elif options.many:
        for seed, (classes, contrast) in product(seeds, ((3, 2.5), (3, 3.0), (4, 3.0))):
            draw = partial(many_classes, seed, classes=classes, contrast=contrast)
            key = f"{classes} classes, contrast {contrast:g}/{seed}"
            out[key] = partial(_drawn, draw, classes, re.compile(re.escape(key)), rows)
    elif options.cars:
        for pool_share, seed in product((0.5, 0.7), seeds):
            draw = partial(cars, options.cars, seed, share=0.95, pool_share=pool_share, pool=POOL)
            same = re.compile(rf"cars and trucks, weak mark; 0\.95; [\d.]+; {POOL}/{seed}")
            out[f"cars and trucks, weak mark; 0.95; {pool_share}; {POOL}/{seed}"] = partial(_drawn, draw, 2, same, rows)
    else:
        for (share, pool_share, size), seed, name in product(SETTINGS, seeds, ATTRIBUTES):
            attribute = ATTRIBUTES[name]
            build: Callable[..., Any] = dominoes if "scale" in attribute else planted
            draw = partial(build, seed, share=share, pool_share=pool_share, pool=size, **attribute)
            # Of planted draws the training set is the same for any pool, of dominoes for any pool of that size.
            sizes = size if "scale" in attribute else r"\d+"
            same = re.compile(rf"{re.escape(name)}; {share}; [\d.]+; {sizes}/{seed}")
            out[f"{name}; {share}; {pool_share}; {size}/{seed}"] = partial(_drawn, draw, 2, same, rows)
    return out


def summarise(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per case: means, standard errors, share of the gap recovered, draws in which the pool was used; the nulls."""
    out: dict[str, dict[str, float]] = {}
    cases: dict[str, list[dict[str, Any]]] = {}
    nulls: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        name = key.rsplit("/", 1)[0]
        (nulls if name.startswith("null") else cases).setdefault(name, []).append(row)
    for name, own in cases.items():
        columns = {c: np.array([float(row[c]) for row in own]) for c in ("erm", "without", "pool", "oracle")}
        gap = float(np.mean(columns["oracle"] - columns["without"]))
        columns["recovered"] = (columns["pool"] - columns["without"]) / gap
        out[name] = {"n": len(own), "used": sum(row["pool_source"] == "hint:unlabelled" for row in own)}
        for column, values in columns.items():
            out[name][column] = round(float(values.mean()), 4)
            if len(values) > 1:
                out[name][f"{column}_se"] = round(float(values.std(ddof=1) / np.sqrt(len(values))), 4)
    if nulls:
        every = [row for own in nulls.values() for row in own]
        cost = np.array([row["without"] - row["pool"] for row in every])
        out["nulls"] = {
            "n": len(every),
            "alarms": sum(row["alarm"] for row in every),
            "rate": round(float(np.mean([row["alarm"] for row in every])), 4),
            "cost": round(float(cost.mean()), 5),
            "largest_cost": round(float(cost.max()), 4),
            "equal": sum(row["equal"] for row in every),
        }
    return out


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="100 and above are for choosing, 0 to 4 for reporting"
    )
    parser.add_argument("--nulls", action="store_true")
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--cars", type=Path, metavar="CACHE_DIR", help="what discovery_encode_cars.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["versions"] = {"python": platform.python_version(), "numpy": np.__version__, "sklearn": sklearn.__version__}
    for key, job in jobs(options, record["rows"]).items():
        if key in record["rows"]:
            continue
        record["rows"][key] = job()
        record["summary"] = summarise(record["rows"])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()

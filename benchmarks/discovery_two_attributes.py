"""Two shortcuts at once: what AIFS makes of them, and whether it sees a second one where there is one.

    python benchmarks/discovery_two_attributes.py CACHE_DIR --out benchmarks/results/discovery_two_attributes.json

`digits`: MNIST 3 or 5, in one of two colours, on horizontal or vertical stripes, by frozen MobileNetV2 (encoded into
CACHE_DIR at the first run, about 4 minutes); `planted`: Gaussian latents, contrasts in standard deviations of the
noise. Colour and stripes, or both planted attributes, equal the label with the given probabilities, independently.
`one attribute` is AIFS that stops after the first. The oracle is logistic regression reweighted by the eight *true*
cells, its L2 penalty the best with hindsight on the test set; `worst` is over these cells, `balanced` their mean.
`hinted`: planted ones, with 10 known values per cell of the second attribute, or of both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from discovery_dominoes import L2, dominoes, shared
from discovery_encode_mnist import encode
from discovery_hints import known_values
from numpy.typing import NDArray
from transformers import AutoModel

from aifs_peft import AIFSClassifier
from aifs_peft.discovery import Discovery, discover
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import fit_head
from aifs_peft.discovery.linear_heads.logistic import fit_logistic
from aifs_peft.discovery.principal_components import principal_components

Latents = NDArray[np.floating]
Labels = NDArray[np.int64]
Part = tuple[Latents, Labels, Labels, Labels]
# Lower seeds, and those from 100, served development.
FIRST_SEED = 20
CORE = 2.0
COLOURS = (2, 3)
STRIPES = np.stack([index // 4 % 2 for index in np.indices((28, 28))]).astype(np.float32) * 0.35
DIGITS = ((0.9, 0.9), (0.95, 0.95), (0.98, 0.95), (0.98, 0.98), (0.95, 0.5))
CONTRASTS = ((5.0, 5.0), (6.0, 5.0), (8.0, 5.0))
HINTED = ((2.5, 2.5), (6.0, 2.5), (5.0, 5.0))


def encode_digits(cache: Path) -> None:
    """Pooled features `z (n, colour, stripes, 1280)` of 3 and 5, labels `y (n,)`, for both parts of MNIST."""
    model = AutoModel.from_pretrained(shared() / "models" / "mobilenet_v2_imagenet").eval()
    cache.mkdir(parents=True, exist_ok=True)
    for part, most in (("train", 5000), ("test", 1500)):
        with np.load(shared() / "data" / "mnist" / f"{part}.npz") as file:
            rows = np.flatnonzero(np.isin(file["y"], (3, 5)))[:most]
            x, y = file["x"][rows], (file["y"][rows] == 5).astype(np.int64)
        by_colour = [[encode(model, x, np.full(len(y), c), stripes) for stripes in STRIPES] for c in COLOURS]
        z = np.stack([np.stack(columns, axis=1) for columns in by_colour], axis=1)
        np.savez(cache / f"two_attributes_{part}.npz", z=z, y=y)


def digits(cache: Path, seed: int, shares: tuple[float, float]) -> tuple[Part, Part]:
    """Train with both attributes at their aligned shares, test on every digit in all four combinations."""
    with np.load(cache / "two_attributes_train.npz") as file:
        z, y = file["z"], file["y"]
    rng = np.random.default_rng(seed)
    first, second = (np.where(rng.random(len(y)) < share, y, 1 - y) for share in shares)
    train = (z[np.arange(len(y)), first, second].astype(np.float32), y, first, second)
    with np.load(cache / "two_attributes_test.npz") as file:
        z, y = file["z"], file["y"]
    both = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (len(y), 1))
    return train, (z.reshape(-1, z.shape[-1]).astype(np.float32), np.repeat(y, 4), both[:, 0], both[:, 1])


def planted(rng: np.random.Generator, share: float, contrasts: tuple[float, float], n: int) -> Part:
    """Latents `(n, 32)`, labels and both attributes, each equal to the label with probability `share`."""
    y = rng.integers(0, 2, n)
    first, second = (np.where(rng.random(n) < share, y, 1 - y) for _ in range(2))
    Z = rng.normal(size=(n, 32))
    Z[:, :3] += np.stack([CORE * y, contrasts[0] * first, contrasts[1] * second], axis=1)
    return Z.astype(np.float32), y, first, second


def cells(part: Part) -> Labels:
    """Label and both attributes as one number."""
    return np.asarray(4 * part[1] + 2 * part[2] + part[3])


def scores(predicted: Labels, test: Part) -> tuple[float, float]:
    """Accuracy of the worst cell and the mean over cells."""
    accuracy = [float(np.mean((predicted == test[1])[cells(test) == c])) for c in range(8)]
    return min(accuracy), float(np.mean(accuracy))


def oracle(train: Part, test: Part) -> dict[str, float | int]:
    """Logistic regression reweighted by the true cells, its penalty the best on the test set."""
    Z, y, *_ = train
    reduction = principal_components(Z, 256, rng=np.random.default_rng(0))
    X, X_test = reduction.transform(Z), reduction.transform(test[0])
    weights = (1.0 / np.maximum(np.bincount(cells(train), minlength=8), 1))[cells(train)]
    tuned = [scores(fit_logistic(X, y, 2, l2=l2, weights=weights).logits(X_test).argmax(axis=1), test) for l2 in L2]
    return {"oracle": max(s[0] for s in tuned), "oracle balanced": max(s[1] for s in tuned)}


def recovered(found: Discovery, attributes: Sequence[Labels]) -> dict[str, float | int]:
    """How many attributes were found, and of how many of the true ones a part agrees on nearly all examples."""
    parts = found.parts_ or ((found,) if found.found else ())
    agreement = [max((float(np.mean(p.groups_ == a)) for p in parts), default=0.0) for a in attributes]
    return {"found": len(parts), "recovered": sum(share > 0.99 for share in agreement)}


def hinted_row(train: Part, test: Part, rng: np.random.Generator) -> dict[str, float | int | str]:
    """One draw: AIFS alone, with a hint of the second attribute, and with hints of both."""
    Z, y, first, second = train
    known = {"first": known_values(y, first, rng), "second": known_values(y, second, rng)}
    missing = {name: np.where(values < 0, np.nan, values) for name, values in known.items()}
    fits: dict[str, dict[str, Any]] = {
        "erm": {},
        "aifs": {},
        "one hint": {"groups": known["second"]},
        "both hints": {"metadata": missing},
    }
    out: dict[str, float | int | str] = dict(oracle(train, test))
    for name, hints in fits.items():
        clf = AIFSClassifier("erm" if name == "erm" else "discovery", random_state=0).fit(Z, y, **hints)
        out[name], out[f"{name} balanced"] = scores(np.asarray(clf.predict(test[0])), test)
        if clf.discovery_ is not None:
            parts = clf.discovery_.parts_ or (clf.discovery_,)
            out[f"{name} used"] = ", ".join(part.source_ for part in parts if part.found)
    return out


def row(train: Part, test: Part) -> dict[str, float | int]:
    """One draw."""
    Z, y, *attributes = train
    reduction = principal_components(Z, 256, rng=np.random.default_rng(0))
    X, X_test = reduction.transform(Z), reduction.transform(test[0])
    clf = AIFSClassifier(random_state=0).fit(Z, y)
    one = discover(Z, y, random_state=0, max_attributes=1)
    predicted = {
        "erm": AIFSClassifier(recipe="erm", random_state=0).fit(Z, y).predict(test[0]),
        "aifs": clf.predict(test[0]),
        "trained": AIFSClassifier(recipe="aifs", random_state=0).fit(Z, y).predict(test[0]),
    }
    predicted["one attribute"] = predicted["erm"]
    if one.found:
        choice = choose_head(X, y, one.responsibilities_, rng=np.random.default_rng(0))
        head = fit_head(X, y, one.responsibilities_, choice.setting, rng=np.random.default_rng(0))
        predicted["one attribute"] = head.logits(X_test).argmax(axis=1)
    out = oracle(train, test)
    for name, labels in predicted.items():
        out[name], out[f"{name} balanced"] = scores(np.asarray(labels), test)
    out |= recovered(clf.discovery_, attributes)
    out["head"] = clf.head_choice_.setting.describe() if clf.head_choice_ else "erm"
    return out


def alarms(seed: int) -> dict[str, int]:
    """How many attributes are found where there is one: planted, and dominoes of two sizes at six shares."""
    Z, y, _, _ = planted(np.random.default_rng(seed), 0.95, (5.0, 0.0), 4000)
    draws = {"one planted": (Z, y)}
    for share in (0.6, 0.8, 0.9, 0.95, 0.98, 0.99):
        Z, y, _ = dominoes(share, seed)[0]
        few = np.random.default_rng(seed).permutation(len(y))[:2000]
        draws |= {f"dominoes/{share}": (Z, y), f"dominoes of 2000/{share}": (Z[few], y[few])}
    counts = {}
    for name, (latents, labels) in draws.items():
        result = discover(latents, labels, random_state=0)
        counts[f"{name}/{seed}"] = len(result.parts_) or int(result.found)
    return counts


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not (options.cache / "two_attributes_test.npz").is_file():
        encode_digits(options.cache)
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}, "one_shortcut": {}}
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        draws = {f"digits {a:g} and {b:g}/{seed}": digits(options.cache, seed, (a, b)) for a, b in DIGITS}
        for contrasts in CONTRASTS:
            rng = np.random.default_rng(seed)
            draws[f"planted {contrasts[0]:g} and {contrasts[1]:g}/{seed}"] = (
                planted(rng, 0.95, contrasts, 4000),
                planted(rng, 0.5, contrasts, 8000),
            )
        for name, (train, test) in draws.items():
            if name not in record["rows"]:
                record["rows"][name] = row(train, test)
                print(name, record["rows"][name], flush=True)
        for contrasts in HINTED:
            key = f"planted {contrasts[0]:g} and {contrasts[1]:g}/{seed}"
            if key not in record.setdefault("hinted", {}):
                rng = np.random.default_rng(seed)
                train, test = planted(rng, 0.95, contrasts, 5000), planted(rng, 0.5, contrasts, 8000)
                record["hinted"][key] = hinted_row(train, test, rng)
                print("hinted", key, record["hinted"][key], flush=True)
        if f"one planted/{seed}" not in record["one_shortcut"]:
            record["one_shortcut"] |= alarms(seed)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

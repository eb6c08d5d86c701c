"""Planted latents for audits: a mark that mostly goes with the class, with columns of metadata beside it."""

import numpy as np
import pandas as pd


def planted(n=1000, classes=2, aligned=0.95, contrast=8.0, core=2.0, width=24, seed=0):
    """Latents `(n, width)`, labels and marks `(n,)`; any two classes `core` and two marks `contrast` apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    mark = np.where(rng.random(n) < aligned, y, (y + rng.integers(1, classes, n)) % classes)
    Z = rng.normal(size=(n, width))
    Z[np.arange(n), y] += core / np.sqrt(2.0)
    Z[np.arange(n), classes + mark] += contrast / np.sqrt(2.0)
    return Z, y, mark


def table(mark, seed=0, noise=0):
    """Metadata: `scanner` is the mark, `dose` follows it, the others say nothing; and `noise` more columns of that."""
    rng = np.random.default_rng(seed)
    n = len(mark)
    columns = {
        "file": [f"scan_{i}.png" for i in range(n)],
        "scanner": np.array(["A", "B", "C", "D", "E"])[mark],
        "dose": mark + rng.normal(size=n),
        "site": rng.choice(["north", "south", "west"], n),
        "age": rng.normal(50, 10, n),
    }
    for i in range(noise):
        columns[f"noise_{i}"] = rng.normal(size=n) if i % 2 else rng.integers(0, 2 + i % 5, n).astype(str)
    return pd.DataFrame(columns)

"""Audits of planted latents, in which every part of an `Audit` is filled."""

from dataclasses import replace
from typing import Any

import numpy as np

from aifs_peft.audit import Audit, audit

CLASSES = ("cat", "dog")


def planted_latents(n: int = 600, aligned: float = 0.93, seed: int = 0) -> tuple[Any, Any, Any]:
    """Latents `(n, 12)`, labels and attribute."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < aligned, y, 1 - y)
    Z = rng.normal(size=(n, 12))
    Z[:, 0] += 5 * a
    Z[:, 1] += 2.5 * y
    return Z, y, a


def found_audit(inputs: Any = None, n: int = 600) -> Audit:
    """A shortcut was found; it goes with the scanner and with the word "ruler"; the given predictions lean on it."""
    Z, y, a = planted_latents(n)
    rng = np.random.default_rng(1)
    metadata = {
        "scanner": np.array(["A", "B"])[a], "age": rng.integers(40, 80, n), "site": rng.integers(0, 3, n).astype(str)
    }  # fmt: skip
    words = {"ruler": np.eye(12)[0], "fur": np.eye(12)[1], "grass": np.eye(12)[2], "sky": np.eye(12)[3]}
    made = audit(
        Z, y, metadata=metadata, inputs=inputs, predictions=a, vocabulary=words, class_names=list(CLASSES)
    )  # fmt: skip
    assert made.found
    return made


def null_audit(n: int = 300) -> Audit:
    """Nothing to find, and nothing found."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    Z = rng.normal(size=(n, 8))
    Z[:, 0] += 2 * y
    made = audit(Z, y, class_names=list(CLASSES), metadata={"site": rng.integers(0, 3, n).astype(str)})
    assert not made.found
    return made


def changed(of: Audit, **fields: Any) -> Audit:
    """The same audit with other fields."""
    return replace(of, **fields)

"""Latents with labels and true attribute values for `benchmarks/methods.py`: train, validation and test of one draw."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Latents `(n, d)`, labels `(n,)` and true attribute values `(n,)`."""

    Z: NDArray[np.floating]
    y: NDArray[np.int64]
    a: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Some of its rows."""
        return Split(self.Z[rows], self.y[rows], self.a[rows])


@dataclass(frozen=True)
class Draw:
    """One draw; validation is drawn like training, the test is balanced (COMPAS: as it is)."""

    train: Split
    validation: Split
    test: Split


def shared() -> Path:
    """The folder of real inputs."""
    return Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))


def split_off(whole: Split, share: float, seed: int) -> tuple[Split, Split]:
    """A random part of the rows as validation."""
    rows = np.random.default_rng([seed, 1]).permutation(len(whole.y))
    held = round(share * len(rows))
    return whole.take(np.sort(rows[held:])), whole.take(np.sort(rows[:held]))


def dominoes(seed: int, cache: Path) -> Draw:
    """MNIST-CIFAR dominoes, frozen MobileNetV2, 95 % aligned, n = 5,000."""
    del cache
    with np.load(shared() / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    a = np.where(np.random.default_rng(seed).random(len(y)) < 0.95, y, 1 - y)
    train, validation = split_off(Split(z[np.arange(len(y)), a].astype(np.float32), y, a), 0.2, seed)
    with np.load(shared() / "data" / "dominoes_latents" / "test.npz") as file:
        z, y = file["z"].astype(np.float32), file["y"].astype(np.int64)
    test = Split(np.concatenate([z[:, 0], z[:, 1]]), np.r_[y, y], np.repeat([0, 1], len(y)))
    return Draw(train, validation, test)


def colored_mnist(seed: int, cache: Path) -> Draw:
    """Ten digits coloured by class, frozen MobileNetV2, 95 % aligned, n = 5,000 (`discovery_encode_mnist.py`)."""
    with np.load(cache / "aligned.npz") as file:
        aligned, y = file["z"], file["y"].astype(np.int64)
    with np.load(cache / "other.npz") as file:
        other, colour = file["z"], file["a"].astype(np.int64)
    rng = np.random.default_rng(seed)
    moved = rng.random(len(y)) >= 0.95
    rows = rng.permutation(len(y))[:5000]
    z = np.where(moved[:, None], other, aligned).astype(np.float32)
    train, validation = split_off(Split(z, y, np.where(moved, colour, y)).take(rows), 0.2, seed)
    with np.load(cache / "test.npz") as file:
        test = Split(file["z"].astype(np.float32), file["y"].astype(np.int64), file["a"].astype(np.int64))
    return Draw(train, validation, test)


def compas(seed: int, cache: Path) -> Draw:
    """COMPAS, two races, features as latents; training and validation subsampled to 90 % aligned."""
    del cache
    from aifs_peft import data

    splits = data.load("compas", shared() / "data" / "compas", aligned=0.9, seed=seed)
    parts = {name: _table(splits[name]) for name in ("train", "validation", "test")}
    return Draw(**parts)


def _table(part: Any) -> Split:
    columns = part.with_format("numpy")
    return Split(
        np.asarray(columns["features"][:], dtype=np.float32),
        np.asarray(columns["label"][:], dtype=np.int64),
        np.asarray(columns["attribute"][:], dtype=np.int64),
    )


def spurious_scenes(seed: int, cache: Path) -> Draw:
    """SpuriousScenes, world `clinic` at its defaults, frozen MobileNetV2 at 96 px, n = 2,000."""
    file = cache / f"clinic_{seed}.npz"
    if not file.is_file():
        _encode_clinic(seed, file)
    with np.load(file) as saved:
        parts = {
            name: Split(saved[f"{name}_z"].astype(np.float32), saved[f"{name}_y"], saved[f"{name}_a"])
            for name in ("train", "validation", "test")
        }
    return Draw(**parts)


def _encode_clinic(seed: int, file: Path) -> None:
    from scenes_difficulty import features
    from transformers import AutoModel

    from aifs_peft.data import group_array, load

    splits = load("spurious_scenes", world="clinic", seed=seed, n_train=2000, n_validation=500, n_test=1000)
    model = AutoModel.from_pretrained(shared() / "models" / "mobilenet_v2_imagenet").eval()
    arrays = {}
    for name, part in splits.items():
        arrays[f"{name}_z"] = features(model, part).astype(np.float16)
        arrays[f"{name}_y"] = np.asarray(part["label"][:], dtype=np.int64)
        arrays[f"{name}_a"] = group_array(part) - arrays[f"{name}_y"] * 2
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays)


DATA = {
    "dominoes": dominoes,
    "colored_mnist": colored_mnist,
    "compas": compas,
    "spurious_scenes": spurious_scenes,
}

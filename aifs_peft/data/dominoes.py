"""Dominoes: two pictures stacked; the lower one is the class, the upper one the shortcut.

After Shah et al., "The Pitfalls of Simplicity Bias in Neural Networks" (2020): by default an MNIST 0 or 1 over a
CIFAR-10 automobile or truck, or any two image sources the caller passes. `dominoes_latents` is the same task as
features of a frozen encoder, computed once for both values of the shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.sampling import aligned_attribute, check_count, check_share, exact_flips
from aifs_peft.data.sources import (
    MNIST_LAYOUT,
    MNIST_MD5,
    MNIST_SOURCE,
    DataCard,
    load_hub,
    read_mnist,
    read_npz,
    require_dir,
    require_file,
)
from aifs_peft.data.tables import assemble, build_split, encode_png, group_features, image_column, vector_column
from aifs_peft.errors import InvalidInputError

Source = Mapping[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CARD = DataCard(
    name="dominoes",
    title="an MNIST digit over a CIFAR-10 picture, or any two image sources",
    inputs=("image",),
    groups="class of the lower picture x class of the upper one",
    source=f"{MNIST_SOURCE} and https://www.cs.toronto.edu/~kriz/cifar.html (binary version)",
    layout=(
        "data_dir/mnist/ and data_dir/cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin; "
        f"MNIST as: {MNIST_LAYOUT}"
    ),
    terms="MNIST: MIT or CC BY-SA 3.0; CIFAR-10: none stated",
    md5=MNIST_MD5,
)
LATENTS_CARD = DataCard(
    name="dominoes_latents",
    title="features of a frozen MobileNetV2 on MNIST-CIFAR dominoes",
    inputs=("features",),
    groups="automobile or truck x digit (4)",
    source="the project's folder of inputs, shared/data/dominoes_latents",
    layout="data_dir/train.npz and data_dir/test.npz with z (n, 2, 1280) float16 and y (n,)",
    terms="derived from MNIST (MIT) and CIFAR-10 (none stated)",
)


def load_dominoes(
    data_dir: str | Path | None = None,
    *,
    top: Source | None = None,
    bottom: Source | None = None,
    top_classes: Sequence[int] = (0, 1),
    bottom_classes: Sequence[int] = (1, 9),
    top_names: Sequence[str] | None = None,
    bottom_names: Sequence[str] | None = None,
    aligned: float = 0.95,
    aligned_test: float | None = None,
    validation_share: float = 0.2,
    n_train: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    verify: bool = True,
) -> Any:
    """Load Dominoes.

    Columns: `image` (upper over lower picture, RGB), `label`, `attribute`, `group`. Every lower picture is used
    once; upper pictures are drawn without repetition while they last, and no split shares one with another.

    Args:
        data_dir: folder with MNIST and CIFAR-10; None for the Hub. Not read when both sources are passed.
        top: upper pictures, `{"train": (images, labels), "test": ...}`, images uint8 `(n, h, w)` or `(n, h, w, 3)`.
        bottom: lower pictures in the same form.
        top_classes: labels of the upper source that are used, one per attribute value.
        bottom_classes: labels of the lower source that are used, one per class; as many as `top_classes`.
        top_names: names of the attribute values; None for the digit.
        bottom_names: names of the classes; None for the CIFAR class, or the label of a passed source.
        aligned: share of training and validation examples whose upper picture follows the class.
        aligned_test: the same in the test; None for independence, `1 / number of classes`.
        validation_share: share of the training pictures for validation.
        n_train: pictures for training and validation together; None for all.
        n_test: test pictures; None for all.
        seed: seed of every draw.
        verify: compare original MNIST files with their published MD5.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: a file is missing.
        InvalidInputError: a source or an option does not fit.
    """
    k = len(bottom_classes)
    if len(top_classes) != k or k < 2 or len(set(top_classes)) != k or len(set(bottom_classes)) != k:
        raise InvalidInputError(
            f"top_classes and bottom_classes must each name the same number of different labels, at least two; got "
            f"{tuple(top_classes)} and {tuple(bottom_classes)}"
        )
    if not 0 < validation_share < 1:
        raise InvalidInputError(f"validation_share must lie in (0, 1); got {validation_share}")
    own = bottom is not None
    upper = _chosen(read_mnist(data_dir, CARD, verify=verify) if top is None else top, top_classes, "top")
    lower = _chosen(_read_cifar(data_dir) if bottom is None else bottom, bottom_classes, "bottom")
    if bottom_names is None:
        bottom_names = [str(c) if own else CIFAR_CLASSES[c] for c in bottom_classes]
    values = tuple(top_names) if top_names is not None else tuple(f"top {c}" for c in top_classes)
    spec = GroupSpec("dominoes: lower x upper picture", tuple(bottom_names), values)
    follow = check_share("aligned", aligned)
    shares = {"train": follow, "validation": follow, "test": 1 / k if aligned_test is None else aligned_test}
    rng = np.random.default_rng(seed)
    lower_parts = _parts(lower, validation_share, (n_train, n_test), rng)
    upper_parts = _parts(upper, validation_share, (None, None), rng)
    splits = {
        s: _stack(upper_parts[s], lower_parts[s], check_share(f"aligned {s}", shares[s]), spec, rng) for s in shares
    }
    return assemble(splits, spec, f"Dominoes, aligned {shares}, seed {seed}.")


def _chosen(source: Source, classes: Sequence[int], name: str) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
    """Only the wanted labels, renumbered; every picture with three channels."""
    if not {"train", "test"} <= set(source):
        raise InvalidInputError(f"{name} must hold 'train' and 'test'; it holds {sorted(source)}")
    parts = {}
    for split in ("train", "test"):
        images, labels = (np.asarray(array) for array in source[split])
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
            raise InvalidInputError(
                f"{name}[{split!r}] must be uint8 images (n, h, w) or (n, h, w, 3) with a label each; got "
                f"{images.dtype} {images.shape} and {labels.shape}"
            )
        rows = np.flatnonzero(np.isin(labels, classes))
        found = np.full(int(max(labels.max(initial=0), *classes)) + 1, -1, dtype=np.int64)
        found[list(classes)] = np.arange(len(classes))
        index = found[labels[rows]]
        if len(np.unique(index)) < len(classes):
            raise InvalidInputError(f"{name}[{split!r}] lacks one of the labels {tuple(classes)}")
        kept = images[rows]
        parts[split] = (np.repeat(kept[..., None], 3, axis=-1) if kept.ndim == 3 else kept, index)
    return parts


def _parts(
    source: dict[str, tuple[NDArray[Any], NDArray[np.int64]]],
    validation: float,
    limits: tuple[int | None, int | None],
    rng: np.random.Generator,
) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
    rows = {}
    for split, limit in zip(("train", "test"), limits, strict=True):
        n = len(source[split][1])
        rows[split] = rng.permutation(n)[: check_count(f"n_{split}", limit, n)]
    images, labels = source["train"]
    cut = exact_flips(labels[rows["train"]], validation, rng)
    train, held = rows["train"][~cut], rows["train"][cut]
    test_images, test_labels = source["test"]
    return {
        "train": (images[train], labels[train]),
        "validation": (images[held], labels[held]),
        "test": (test_images[rows["test"]], test_labels[rows["test"]]),
    }


def _stack(upper: Any, lower: Any, share: float, spec: GroupSpec, rng: np.random.Generator) -> Any:
    from datasets import Features, Image

    images, label = lower
    if not len(label) or not len(upper[1]):
        raise InvalidInputError("a split of Dominoes would be empty: give more pictures or another validation_share")
    attribute = aligned_attribute(label, share, len(spec.classes), rng)
    above = np.empty(len(label), dtype=np.int64)
    for value in range(len(spec.attributes)):
        rows, pool = np.flatnonzero(attribute == value), rng.permutation(np.flatnonzero(upper[1] == value))
        if len(rows) and not len(pool):
            raise InvalidInputError(f"no upper picture of {spec.attributes[value]!r} is left for a split: give more")
        above[rows] = np.resize(pool, len(rows))
    width = max(images.shape[2], upper[0].shape[2])
    both = np.concatenate([_widen(upper[0][above], width), _widen(images, width)], axis=1)
    columns = {
        "image": image_column(files=encode_png(both)),
        "label": label,
        "attribute": attribute,
        "group": spec.encode(label, attribute),
    }
    return build_split(columns, Features({"image": Image(), **group_features(spec)}))


def _widen(images: NDArray[Any], width: int) -> NDArray[Any]:
    """Pad with black on both sides; a picture that is padded is padded above and below as well."""
    missing_pixels = width - images.shape[2]
    pad = (missing_pixels // 2, missing_pixels - missing_pixels // 2)
    return np.pad(images, ((0, 0), pad, pad, (0, 0)))


def _read_cifar(data_dir: str | Path | None) -> Source:
    """CIFAR-10 in its binary version (the Python version is a pickle, which could run code when read)."""
    if data_dir is None:
        hub = load_hub("uoft-cs/cifar10", "main", CARD)
        return {s: (np.stack([np.asarray(i) for i in hub[s]["img"]]), np.asarray(hub[s]["label"][:])) for s in hub}
    folder = require_dir(data_dir, CARD) / "cifar-10-batches-bin"
    names = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    parts = {}
    for split, files in names.items():
        raw = b"".join(require_file(folder, (name,), CARD).read_bytes() for name in files)
        if not raw or len(raw) % 3073:
            raise InvalidInputError(f"dominoes: {folder}: the {split} files do not hold records of 3,073 bytes")
        records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3073)
        if records[:, 0].max() > 9:
            raise InvalidInputError(f"dominoes: {folder}: a record of the {split} files begins with no class 0 to 9")
        parts[split] = (records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64))
    return parts


def load_dominoes_latents(
    data_dir: str | Path | None = None,
    *,
    aligned: float = 0.95,
    aligned_test: float = 0.5,
    validation_share: float = 0.2,
    seed: int = 0,
) -> Any:
    """Load precomputed features of dominoes and pick the shortcut's value per example.

    Columns: `features` (float32, 1280), `label`, `attribute`, `group`.

    Args:
        data_dir: folder with `train.npz` and `test.npz`.
        aligned: share of training and validation examples whose digit follows the class.
        aligned_test: the same in the test; 0.5 is independence.
        validation_share: share of the training examples for validation, in (0, 1).
        seed: seed of the draw.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: a file is missing.
        InvalidInputError: a file or an option does not fit.
    """
    from datasets import Features, List, Value

    if not 0 < validation_share < 1:
        raise InvalidInputError(f"validation_share must lie in (0, 1); got {validation_share}")
    check_share("aligned", aligned)
    folder = require_dir(data_dir, LATENTS_CARD)
    spec = GroupSpec("dominoes_latents: picture x digit", ("automobile", "truck"), ("digit 0", "digit 1"))
    arrays = {}
    for split in ("train", "test"):
        path = require_file(folder, (f"{split}.npz",), LATENTS_CARD)
        file = read_npz(path, "dominoes_latents")
        if not {"z", "y"} <= set(file) or file["z"].ndim != 3 or file["z"].shape[:2] != (file["y"].size, 2):
            raise InvalidInputError(f"dominoes_latents: {path} needs z (n, 2, d) and y (n,)")
        if file["z"].dtype.kind != "f" or not np.isfinite(file["z"]).all() or not np.isin(file["y"], (0, 1)).all():
            raise InvalidInputError(f"dominoes_latents: {path} needs finite real numbers in z and 0 or 1 in y")
        arrays[split] = file["z"], file["y"].astype(np.int64).ravel()
    rng = np.random.default_rng(seed)
    held = exact_flips(arrays["train"][1], validation_share, rng)
    everything = np.ones(len(arrays["test"][1]), dtype=bool)
    rows = {"train": ("train", ~held), "validation": ("train", held), "test": ("test", everything)}
    splits = {}
    for split, (name, index) in rows.items():
        z, label = arrays[name][0][index], arrays[name][1][index]
        attribute = aligned_attribute(
            label, check_share("aligned_test", aligned_test) if split == "test" else aligned, 2, rng
        )
        features = Features({"features": List(Value("float32"), length=z.shape[2]), **group_features(spec)})
        columns = {
            "features": vector_column(z[np.arange(len(z)), attribute].astype(np.float32)),
            "label": label,
            "attribute": attribute,
            "group": spec.encode(label, attribute),
        }
        splits[split] = build_split(columns, features)
    return assemble(splits, spec, f"Dominoes latents, aligned {aligned}, seed {seed}.")

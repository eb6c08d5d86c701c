"""Colored MNIST: handwritten digits whose colour gives the label away.

Two versions. `ten` has the ten digits as classes and ten colours. `binary` is the setting of Arjovsky et al.,
"Invariant Risk Minimization" (2019), section 5.1: label `digit >= 5`, a quarter of the labels flipped,
and the colour equal to the (noisy) label except for a share that depends on the environment, 0.1 and 0.2 in
training, 0.9 in the test. Unlike the original, images keep 28 x 28 pixels and three channels, and the test environment
is made of the test digits; validation digits follow the training distribution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.sampling import aligned_attribute, check_count, check_share, noisy_labels
from aifs_peft.data.sources import MNIST_LAYOUT, MNIST_MD5, MNIST_SOURCE, DataCard, Digits, read_mnist
from aifs_peft.data.tables import assemble, build_split, encode_png, group_features, image_column
from aifs_peft.errors import InvalidInputError

CARD = DataCard(
    name="colored_mnist",
    title="handwritten digits in colours that follow the label; ten classes, or binary as in IRM",
    inputs=("image",),
    groups="digit x colour (100), or label x colour (4) for variant='binary'",
    source=MNIST_SOURCE,
    layout=MNIST_LAYOUT,
    terms="MNIST: MIT or CC BY-SA 3.0, depending on the copy",
    md5=MNIST_MD5,
)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 25, 25),
    "green": (40, 200, 40),
    "blue": (40, 70, 250),
    "yellow": (240, 230, 30),
    "magenta": (240, 50, 230),
    "cyan": (60, 230, 240),
    "orange": (250, 140, 20),
    "purple": (140, 40, 200),
    "white": (245, 245, 245),
    "brown": (150, 90, 40),
}


def load_colored_mnist(
    data_dir: str | Path | None = None,
    *,
    variant: str = "ten",
    aligned: float = 0.95,
    aligned_validation: float | None = None,
    aligned_test: float | None = None,
    train_flips: tuple[float, ...] = (0.1, 0.2),
    test_flip: float = 0.9,
    label_noise: float | None = None,
    n_train: int | None = None,
    n_validation: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    revision: str = "main",
    verify: bool = True,
) -> Any:
    """Load Colored MNIST.

    Columns: `image` (28 x 28 RGB), `label`, `attribute` (the colour), `group`, and the metadata `digit`,
    `clean_label`, `environment`. Shares hold exactly, in every split (see `sampling`).

    Args:
        data_dir: folder of MNIST files; None for `ylecun/mnist` from the Hub.
        variant: `ten` or `binary`.
        aligned: `ten`: share of training examples whose colour belongs to their label; 0.1 is independence.
        aligned_validation: `ten`: the same for validation; None for the training value.
        aligned_test: `ten`: the same for the test; None for 0.1, every colour equally often in every class.
        train_flips: `binary`: share of colours unequal to the label, one per training environment.
        test_flip: `binary`: the same in the test.
        label_noise: share of flipped labels; None for 0 (`ten`) or 0.25 (`binary`).
        n_train: training examples; None for 50,000 of 60,000.
        n_validation: validation examples, from the rest of the training digits; None for that rest.
        n_test: test examples; None for all.
        seed: seed of every draw.
        revision: Hub revision.
        verify: compare original IDX files with their published MD5.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        InvalidInputError: an option is out of range.
        DataNotFoundError: MNIST is not there.
    """
    if variant not in ("ten", "binary"):
        raise InvalidInputError(f"variant must be 'ten' or 'binary'; got {variant!r}")
    noise = check_share("label_noise", (0.25 if variant == "binary" else 0.0) if label_noise is None else label_noise)
    parts = _cut(read_mnist(data_dir, CARD, revision, verify), n_train, n_validation, n_test, seed)
    shares: dict[str, tuple[float, ...]]
    if variant == "binary":
        if not train_flips:
            raise InvalidInputError("train_flips needs at least one environment, for example (0.1, 0.2)")
        kept = tuple(1.0 - check_share("train_flips", flip) for flip in train_flips)
        shares = {"train": kept, "validation": kept, "test": (1.0 - check_share("test_flip", test_flip),)}
        spec = GroupSpec("colored_mnist binary: label x colour", ("digit 0-4", "digit 5-9"), ("red", "green"))
    else:
        follow = aligned if aligned_validation is None else aligned_validation
        shares = {
            "train": (check_share("aligned", aligned),),
            "validation": (check_share("aligned_validation", follow),),
            "test": (check_share("aligned_test", 0.1 if aligned_test is None else aligned_test),),
        }
        spec = GroupSpec("colored_mnist ten: digit x colour", tuple(map(str, range(10))), tuple(COLOURS))
    environments = list(dict.fromkeys(share for values in shares.values() for share in values))
    splits = {
        split: _colour(parts[split], shares[split], noise, spec, environments, np.random.default_rng([seed, i]))
        for i, split in enumerate(("train", "validation", "test"))
    }
    text = f"Colored MNIST, variant {variant}, aligned shares {shares}, label noise {noise}, seed {seed}."
    return assemble(splits, spec, text)


def _cut(
    mnist: dict[str, Digits], n_train: int | None, n_validation: int | None, n_test: int | None, seed: int
) -> dict[str, Digits]:
    """Disjoint training, validation and test digits; which ones is decided by the seed."""
    rng = np.random.default_rng([seed, 1000])
    available = len(mnist["train"][1])
    train = check_count("n_train", available * 5 // 6 if n_train is None else n_train, available - 1)
    validation = check_count("n_validation", n_validation, available - train)
    test = check_count("n_test", n_test, len(mnist["test"][1]))
    order, test_order = rng.permutation(available), rng.permutation(len(mnist["test"][1]))
    rows = {
        "train": ("train", order[:train]),
        "validation": ("train", order[train : train + validation]),
        "test": ("test", test_order[:test]),
    }
    return {split: (mnist[part][0][index], mnist[part][1][index]) for split, (part, index) in rows.items()}


def _colour(
    digits: Digits,
    shares: tuple[float, ...],
    noise: float,
    spec: GroupSpec,
    environments: list[float],
    rng: np.random.Generator,
) -> Any:
    from datasets import ClassLabel, Features, Image

    images, digit = digits
    clean = digit if len(spec.classes) == 10 else (digit >= 5).astype(np.int64)
    label, colour = np.empty_like(clean), np.empty_like(clean)
    environment = np.empty_like(clean)
    for part, share in enumerate(shares):
        # The digits are shuffled already, so every len(shares)-th one is a random part.
        rows = np.arange(part, len(clean), len(shares))
        label[rows] = noisy_labels(clean[rows], noise, len(spec.classes), rng)
        colour[rows] = aligned_attribute(label[rows], share, len(spec.classes), rng)
        environment[rows] = environments.index(share)
    features = Features(
        {
            "image": Image(),
            **group_features(spec),
            "digit": ClassLabel(names=list(map(str, range(10)))),
            "clean_label": ClassLabel(names=list(spec.classes)),
            "environment": ClassLabel(
                names=[f"environment {i}: aligned {share:.6g}" for i, share in enumerate(environments)]
            ),
        }
    )
    columns = {
        "image": image_column(files=encode_png(paint(images, colour))),
        "label": label,
        "attribute": colour,
        "group": spec.encode(label, colour),
        "digit": digit,
        "clean_label": clean,
        "environment": environment,
    }
    return build_split(columns, features)


def paint(images: NDArray[np.uint8], colours: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give grey digits on black a colour.

    Args:
        images: uint8, shape `(n, height, width)`.
        colours: index into `COLOURS`, shape `(n,)`.

    Returns:
        uint8, shape `(n, height, width, 3)`: brightness times colour.

    Example:
        >>> paint(np.full((1, 1, 1), 255, dtype=np.uint8), np.array([0])).ravel().tolist()
        [230, 25, 25]
    """
    palette = np.array(list(COLOURS.values()), dtype=np.uint16)
    product = images[..., None].astype(np.uint16) * palette[colours][:, None, None, :]
    return ((product + 127) // 255).astype(np.uint8)

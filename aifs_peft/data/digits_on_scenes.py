"""Digits on scenes: scikit-learn's handwritten digits over photographs, embedded, without a download.

The label is a property of the digit, the shortcut is the photograph behind it. Both are real data and both come
with scikit-learn: the 1,797 digits of `load_digits` (8 x 8 pixels, Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI, 1998, CC BY 4.0) and the two photographs of `load_sample_images` (CC BY 2.0, credited in
scikit-learn). The design is Waterbirds' (Sagawa et al., "Distributionally Robust Neural Networks", 2020): in
training and validation the background follows the label for most examples, in the test it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.sampling import aligned_attribute, check_share
from aifs_peft.data.sources import DataCard
from aifs_peft.data.tables import assemble, build_split, encode_png, group_features, image_column
from aifs_peft.errors import InvalidInputError

SIZE = 32
"""Side of an image, pixels."""
PHOTOS = ("china", "flower")
SCALES = (7, 8)
"""How many times the photographs are shrunk: a crop shows 224 or 256 of their 427 x 640 pixels."""
TASKS: dict[str, tuple[str, str]] = {"high": ("digit 0-4", "digit 5-9"), "odd": ("even digit", "odd digit")}
GROUP_NAMES = tuple(f"{c} x {p}" for c in TASKS["high"] for p in PHOTOS)
"""Names of the four groups of the default task, in the order of the `group` column."""
PER_CLASS = {"train": 600, "validation": 120, "test": 170}
"""Handwritten digits per class and split; every test digit is shown on both photographs."""

CARD = DataCard(
    name="digits_on_scenes",
    title="scikit-learn's handwritten digits over its two photographs; the photograph follows the label",
    inputs=("image",),
    groups="label (digit 0-4 or 5-9) x photograph (china, flower): 4",
    source="embedded: sklearn.datasets.load_digits and load_sample_images",
    layout="no files; data_dir must be None",
    terms="digits: CC BY 4.0 (UCI); photographs: CC BY 2.0, as stated by scikit-learn",
)


def load_digits_on_scenes(
    data_dir: str | Path | None = None,
    *,
    seed: int = 0,
    aligned_share: float = 0.95,
    task: str = "high",
    contrast: float = 0.4,
) -> Any:
    """Load Digits on scenes.

    Columns: `image` (32 x 32 RGB), `label`, `attribute` (the photograph), `group`, and the metadata `digit` and
    `source` (row of the handwritten digit in `load_digits`). 1,200 training, 240 validation and 680 test images;
    the splits share no handwritten digit. Shares hold exactly: in training and validation `aligned_share` of each
    class is on its own photograph, in the test half (each digit is shown once on each).

    Args:
        data_dir: must be None; the data are embedded.
        seed: seed of every draw.
        aligned_share: share of training and validation examples whose photograph follows the label; 0.5 is none.
        task: `high` (0-4 against 5-9) or `odd` (even against odd).
        contrast: how much the photograph is dimmed under the white digit, in [0, 1]; 0 leaves it as it is.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        InvalidInputError: an option is out of range, or a `data_dir` was given.

    Example:
        >>> splits = load_digits_on_scenes(seed=1)
        >>> {name: len(part) for name, part in splits.items()}
        {'train': 1200, 'validation': 240, 'test': 680}
        >>> splits["test"].features["group"].names[0]
        'digit 0-4 x china'
    """
    if data_dir is not None:
        raise InvalidInputError(
            f"digits_on_scenes is embedded and reads no files; got data_dir={data_dir}: leave it out"
        )
    if task not in TASKS:
        raise InvalidInputError(f"task must be one of {tuple(TASKS)}; got {task!r}")
    share, dimming = check_share("aligned_share", aligned_share), check_share("contrast", contrast)
    digits, values = _handwritten()
    labels = (values >= 5).astype(np.int64) if task == "high" else values % 2
    rows = split_rows(labels, np.random.default_rng([seed, 0]))
    spec = GroupSpec(f"digits_on_scenes {task}: label x photograph", TASKS[task], PHOTOS)
    photos = _photographs()
    splits = {}
    for i, (name, source) in enumerate(rows.items(), start=1):
        rng = np.random.default_rng([seed, i])
        if name == "test":
            source = np.repeat(source, 2)
            photo = np.tile(np.arange(2), len(source) // 2)
        else:
            photo = aligned_attribute(labels[source], share, 2, rng)
        images = compose(digits[source], photos, photo, rng, contrast=dimming)
        columns = {"label": labels[source], "attribute": photo, "digit": values[source], "source": source}
        splits[name] = _split(images, columns, spec)
    text = f"Digits on scenes, task {task}, aligned share {share}, contrast {dimming}, seed {seed}."
    return assemble(splits, spec, text)


load = load_digits_on_scenes


def split_rows(labels: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Disjoint rows for training, validation and test, with equally many of each class.

    Args:
        labels: class of every handwritten digit, 0 or 1, shape `(n,)`.
        rng: decides which rows go where.

    Returns:
        Split name to shuffled row numbers, `2 * PER_CLASS[split]` each.

    Raises:
        InvalidInputError: a class has too few digits.
    """
    need = sum(PER_CLASS.values())
    counts = np.bincount(labels, minlength=2)
    if counts.min() < need:
        raise InvalidInputError(f"need {need} handwritten digits of each class; got {counts.tolist()}")
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in range(2)]
    rows, start = {}, 0
    for name, size in PER_CLASS.items():
        rows[name] = rng.permutation(np.concatenate([order[start : start + size] for order in shuffled]))
        start += size
    return rows


def _handwritten() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits (1797, 8, 8) in [0, 1] and their values (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


def _photographs() -> list[list[NDArray[np.float32]]]:
    """Each photograph at three scales, RGB in [0, 1]; names in the order of `PHOTOS`."""
    from sklearn.datasets import load_sample_image

    return [[_shrink(load_sample_image(f"{name}.jpg"), k) for k in SCALES] for name in PHOTOS]


def _shrink(photo: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Average over blocks of `factor` x `factor` pixels; what does not fill a block is cut off."""
    height, width = photo.shape[0] // factor, photo.shape[1] // factor
    blocks = photo[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.asarray(blocks.mean(axis=(1, 3)) / 255, dtype=np.float32)


def compose(
    digits: NDArray[np.float32],
    photos: list[list[NDArray[np.float32]]],
    photo: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    contrast: float,
) -> NDArray[np.uint8]:
    """Put handwritten digits on random crops of photographs.

    Size, place, angle and opacity of the digit and the crop's scale, place and mirroring are drawn independently
    of each other, of the digit and of the photograph.

    Args:
        digits: ink in [0, 1], shape `(n, 8, 8)`.
        photos: per photograph its scales, each `(height, width, 3)` in [0, 1].
        photo: which photograph, shape `(n,)`.
        rng: generator.
        contrast: how much the photograph is dimmed, in [0, 1].

    Returns:
        uint8, shape `(n, 32, 32, 3)`.
    """
    scene = (1 - contrast) * _crops(photos, photo, rng)
    ink = place(digits, rng)[..., None] * rng.uniform(0.85, 1.0, (len(digits), 1, 1, 1))
    return np.rint((scene * (1 - ink) + ink) * 255).astype(np.uint8)


def _crops(
    photos: list[list[NDArray[np.float32]]], photo: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Random 32 x 32 windows, mirrored half of the time: (n, 32, 32, 3)."""
    n = len(photo)
    scale, mirrored = rng.integers(len(photos[0]), size=n), rng.random(n) < 0.5
    corner = rng.random((2, n))
    result = np.empty((n, SIZE, SIZE, 3), dtype=np.float32)
    for i, scales in enumerate(photos):
        for j, image in enumerate(scales):
            rows = np.flatnonzero((photo == i) & (scale == j))
            top = (corner[0, rows] * (image.shape[0] - SIZE + 1)).astype(np.int64)
            left = (corner[1, rows] * (image.shape[1] - SIZE + 1)).astype(np.int64)
            axis = np.arange(SIZE)
            result[rows] = image[(top[:, None] + axis)[:, :, None], (left[:, None] + axis)[:, None, :]]
    result[mirrored] = result[mirrored, :, ::-1]
    return result


def place(digits: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Enlarge, turn and move digits, by bilinear interpolation of the 8 x 8 ink.

    Args:
        digits: ink in [0, 1], shape `(n, 8, 8)`.
        rng: draws size (2.6 to 3.2 times), angle (up to 0.2 radians) and place (up to 2.5 pixels off the middle).

    Returns:
        Ink in [0, 1], shape `(n, 32, 32)`; every digit lies inside the image.
    """
    n, side = len(digits), digits.shape[1]
    zoom = rng.uniform(2.6, 3.2, (n, 1, 1))
    angle = rng.uniform(-0.2, 0.2, (n, 1, 1))
    shift = rng.uniform(-2.5, 2.5, (2, n, 1, 1))
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    y, x = axis[None, :, None] - shift[0], axis[None, None, :] - shift[1]
    # One pixel of margin: what lies outside the 8 x 8 ink is empty.
    row = np.clip((y * np.cos(angle) - x * np.sin(angle)) / zoom + (side - 1) / 2 + 1, 0, side + 0.999)
    column = np.clip((y * np.sin(angle) + x * np.cos(angle)) / zoom + (side - 1) / 2 + 1, 0, side + 0.999)
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    r, c = row.astype(np.int64), column.astype(np.int64)
    fr, fc = row - r, column - c
    i = np.arange(n)[:, None, None]
    upper = padded[i, r, c] * (1 - fc) + padded[i, r, c + 1] * fc
    lower = padded[i, r + 1, c] * (1 - fc) + padded[i, r + 1, c + 1] * fc
    return np.asarray(upper * (1 - fr) + lower * fr, dtype=np.float32)


def _split(images: NDArray[np.uint8], columns: dict[str, NDArray[np.int64]], spec: GroupSpec) -> Any:
    from datasets import ClassLabel, Features, Image, Value

    features = Features(
        {
            "image": Image(),
            **group_features(spec),
            "digit": ClassLabel(names=list(map(str, range(10)))),
            "source": Value("int64"),
        }
    )
    group = spec.encode(columns["label"], columns["attribute"])
    return build_split({"image": image_column(files=encode_png(images)), "group": group, **columns}, features)

"""Inferred attribute values of examples that discovery has not seen, from their latents and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft.discovery import Discovery
from aifs_peft.discovery.held_out import held_out_values
from aifs_peft.discovery.inputs import as_latents
from aifs_peft.errors import InvalidInputError

IntArray = NDArray[np.integer]


def label_indices(y: ArrayLike, classes: NDArray[Any]) -> IntArray:
    """Position of each label among the sorted `classes`, `(n,)`.

    Args:
        y: labels, `(n,)`.
        classes: sorted distinct labels, `(K,)`.

    Raises:
        InvalidInputError: For a label that is none of them.

    Example:
        >>> label_indices(["dog", "cat"], np.array(["cat", "dog"])).tolist()
        [1, 0]
    """
    labels = np.asarray(y)
    known = {label: i for i, label in enumerate(classes.tolist())}
    unknown = sorted({str(label) for label in labels.tolist() if label not in known})
    if unknown:
        raise InvalidInputError(
            f"labels {', '.join(unknown[:5])} are none of the {len(classes)} classes {classes.tolist()[:10]}; give "
            "labels in the form that discovery was given."
        )
    return np.array([known[label] for label in labels.tolist()], dtype=np.int64)


def infer_groups(discovery: Discovery, Z: ArrayLike, y: ArrayLike) -> IntArray:
    """Which attribute value each held-out example carries, by the offsets that discovery has found.

    Labels are read, true groups never; data of another bias than the training set's are read rightly, too: see
    `aifs_peft.discovery.held_out`.

    Args:
        discovery: found on other latents of the same encoder.
        Z: latents, `(n, d)`; at least some dozens.
        y: labels, `(n,)`, as given to discovery.

    Returns:
        `(n,)` int64 in `[0, A)`, equal to the label's index where aligned; everywhere when nothing was found.

    Raises:
        InvalidInputError: For latents of another width, or unknown labels.

    Example:
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(2000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> found = discover(Z[:1000], y[:1000], random_state=0)
        >>> bool(np.mean(infer_groups(found, Z[1000:], y[1000:]) == a[1000:]) > 0.99)
        True
    """
    latents = as_latents(Z)
    labels = label_indices(np.asarray(y), discovery.classes_)
    if len(labels) != len(latents):
        raise InvalidInputError(f"{len(labels)} labels were given for {len(latents)} latents; needed is one each.")
    if latents.shape[1] != discovery.displacements_.shape[1]:
        raise InvalidInputError(
            f"latents of width {latents.shape[1]} were given; discovery was done on width "
            f"{discovery.displacements_.shape[1]}. Take latents of the same encoder, before any further step."
        )
    if not discovery.found:
        return labels
    return held_out_values(latents, labels, discovery.displacements_, discovery.class_displacements_)

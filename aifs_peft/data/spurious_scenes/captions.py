"""Captions of SpuriousScenes, for retrieval: what they say of a scene, and of which scenes they are true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._checks import check_number
from aifs_peft.data.spurious_scenes.worlds import WORLDS
from aifs_peft.errors import InvalidInputError

TEMPLATES = ("a picture of a {core}, {other}{first}", "{other}{first}: a {core}", "this shows a {core}{first}, {other}")
UNNAMED = -1


@dataclass(frozen=True)
class Captions:
    """Captions and what they say.

    Args:
        texts: `m` captions.
        core: the class that each names, `(m,)`.
        other: the value of the second visible factor that each names, `(m,)`.
        first: the value of the first factor, the usual shortcut, `(m,)`; -1 where it is not named.
    """

    texts: list[str]
    core: NDArray[np.int64]
    other: NDArray[np.int64]
    first: NDArray[np.int64]

    def true_of(self, dataset: Any) -> NDArray[np.bool_]:
        """Which captions are true of which scenes of a split, `(scenes, m)`; the clean label counts.

        Args:
            dataset: a split of the same world.
        """
        core, other, first = _facts(dataset)
        named = self.first != UNNAMED
        return np.asarray(
            (core[:, None] == self.core) & (other[:, None] == self.other) & (~named | (first[:, None] == self.first)),
            dtype=bool,
        )


def captions(dataset: Any, *, named: float = 0.5, seed: int = 0) -> Captions:
    """One true caption for each scene of a split: its class, the second visible factor and, in a share, the first.

    Args:
        dataset: a split of `load("spurious_scenes")`.
        named: share of captions that name the first factor.
        seed: of wording and of what is named.

    Returns:
        Captions in the order of the rows.

    Raises:
        InvalidInputError: for another data set, or a share outside 0 to 1.

    Example:
        >>> from aifs_peft.data import load
        >>> scenes = load("spurious_scenes", world="factory", n_train=4, n_validation=2, n_test=2, image_size=16)
        >>> captions(scenes["train"], named=1.0).texts[0]
        'this shows a stain, line 1, lit from right'
    """
    share = check_number("named", named, 0, 1, error=InvalidInputError)
    core, other, first = _facts(dataset)
    rng = np.random.default_rng(seed)
    template = rng.integers(0, len(TEMPLATES), len(core))
    told = np.where(rng.random(len(core)) < share, first, UNNAMED)
    return _written(_world(dataset), core, other, told, template)


def caption_gallery(dataset: Any) -> Captions:
    """Every caption of a world once: each class, each value of the second factor, the first unnamed or named.

    Args:
        dataset: a split, for its world.
    """
    grid = np.array([
        (core, other, first, template)
        for core in (0, 1) for other in (0, 1) for first in (UNNAMED, 0, 1) for template in range(len(TEMPLATES))
    ])  # fmt: skip
    return _written(_world(dataset), *grid.T)


def _world(dataset: Any) -> str:
    from aifs_peft.data.spurious_scenes import scene_config

    return str(scene_config(dataset).world)


def _facts(dataset: Any) -> tuple[NDArray[np.int64], ...]:
    first, other = WORLDS[_world(dataset)].visible
    names = ("clean_label", f"factor_{other.name}", f"factor_{first.name}")
    return tuple(np.asarray(dataset[name][:], dtype=np.int64) for name in names)


def _written(
    world: str,
    core: NDArray[np.int64],
    other: NDArray[np.int64],
    first: NDArray[np.int64],
    template: NDArray[np.int64],
) -> Captions:
    place = WORLDS[world]
    shortcut, second = place.visible
    texts = [
        TEMPLATES[t].format(
            core=place.classes[c], other=second.values[o], first="" if f == UNNAMED else f", {shortcut.values[f]}"
        )
        for c, o, f, t in zip(core.tolist(), other.tolist(), first.tolist(), template.tolist(), strict=True)
    ]
    return Captions(texts, core, other, first)

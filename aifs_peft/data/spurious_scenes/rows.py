"""From planted factors to the rows of a split: drawn at once into a table, or as they are read in a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.spurious_scenes import drawing
from aifs_peft.data.spurious_scenes.worlds import WORLDS, World
from aifs_peft.data.tables import build_split, encode_png, group_features, image_column, vector_column

_BATCH = 16  # small enough that a batch of canvases stays in the second-level cache
_CHUNK = 256  # rows drawn at a time in a stream


@dataclass(frozen=True)
class SceneConfig:
    """What is needed to draw a row again: the world, the side of the images and the two strengths."""

    world: str
    image_size: int
    core_strength: float
    shortcut_strength: float


def render(
    config: SceneConfig, core: NDArray[np.int64], visible: NDArray[np.int64], seeds: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Draw scenes.

    Args:
        config: world, size and strengths.
        core: core value, 0 or 1, shape `(n,)`.
        visible: values of the visible factors, 0 or 1, shape `(n, 2)`, in the world's order.
        seeds: scene seeds, shape `(n,)`; a scene is a pure function of its row, whatever the batch.

    Returns:
        uint8, shape `(n, image_size, image_size, 3)`.
    """
    images = np.empty((len(core), config.image_size, config.image_size, 3), dtype=np.uint8)
    draw = WORLDS[config.world].draw
    for start in range(0, len(core), _BATCH):
        rows = slice(start, start + _BATCH)
        images[rows] = draw(
            core[rows], visible[rows], seeds[rows], config.image_size, config.core_strength, config.shortcut_strength
        )
    return images


def draw_table(world: World, config: SceneConfig, planted: dict[str, NDArray[Any]], spec: GroupSpec) -> Any:
    """A split with all its images drawn, as PNG in memory.

    Args:
        world: the world of `config`.
        config: how to draw.
        planted: label, clean label, factors, `numeric` and `scene_seed` of every row, each `(n,)`.
        spec: the groups.
    """
    from datasets import ClassLabel, Features, Image, List, Value

    group_by = spec.definition.split("class x ")[1].split(" x ")
    attribute = np.zeros_like(planted["label"])
    for name in group_by:
        attribute = attribute * 2 + planted[name]
    hidden = next(s for s in world.shortcuts if not s.visible)
    field, low, high = world.numeric
    features = {
        "image": Image(),
        "features": List(Value("float32"), length=3),
        **group_features(spec),
        "clean_label": ClassLabel(names=list(world.classes)),
        **{f"factor_{s.name}": ClassLabel(names=list(s.values)) for s in world.shortcuts},
        hidden.name: Value("string"),
        field: Value("float32"),
        "nuisance_x": Value("float32"),
        "nuisance_y": Value("float32"),
        "scene_seed": Value("int64"),
    }
    visible = np.stack([planted[s.name] for s in world.visible], axis=1)
    images = render(config, planted["clean_label"], visible, planted["scene_seed"])
    vector = np.column_stack([1 - planted[hidden.name], planted[hidden.name], planted["numeric"]]).astype(np.float32)
    where = drawing.uniform(planted["scene_seed"], 2, 1) * 2 - 1
    columns = {
        "image": image_column(files=encode_png(images)),
        "features": vector_column(vector),
        "label": planted["label"],
        "attribute": attribute,
        "group": spec.encode(planted["label"], attribute),
        "clean_label": planted["clean_label"],
        **{f"factor_{s.name}": planted[s.name] for s in world.shortcuts},
        hidden.name: [hidden.values[v] for v in planted[hidden.name]],
        field: (low + (high - low) * planted["numeric"]).astype(np.float32),
        "nuisance_x": where[:, 0],
        "nuisance_y": where[:, 1],
        "scene_seed": planted["scene_seed"],
    }
    return build_split(columns, Features(features))


def draw_stream(world: World, config: SceneConfig, planted: dict[str, NDArray[Any]], spec: GroupSpec) -> Any:
    """The same rows in the same order, but images are drawn when they are read: a few numbers per row stay in memory.

    Args and columns as for `draw_table`; returns a `datasets.IterableDataset`.
    """
    from datasets import Dataset, Image

    def draw(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        part = draw_table(world, config, {name: np.asarray(values) for name, values in rows.items()}, spec)
        encoded: dict[str, list[Any]] = part.cast_column("image", Image(decode=False))[:]
        return encoded

    features = draw_table(world, config, {name: values[:1] for name, values in planted.items()}, spec).features
    plan = Dataset.from_dict(planted)
    shards = -(-len(plan) // _CHUNK)
    return (
        plan.to_iterable_dataset(num_shards=shards)
        .map(draw, batched=True, batch_size=_CHUNK, remove_columns=list(planted))
        .cast(features)
    )

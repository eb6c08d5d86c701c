"""Three worlds: what is drawn for the class (the core) and for each shortcut.

A world's `draw` gets the core value, one column per visible shortcut, both in {0, 1}, the scene seeds and the
two strengths, and returns images. A strength of 0 removes what it scales, 1 is the default. The core is kept weak
on purpose, so that a frozen ImageNet encoder prefers the shortcut; strength 2 makes it plain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.spurious_scenes import drawing as d

Ints = NDArray[np.int64]
Draw = Callable[[Ints, Ints, Ints, int, float, float], NDArray[np.uint8]]


@dataclass(frozen=True)
class Shortcut:
    """A factor that can follow the label: its name, its two values, and whether the image shows it."""

    name: str
    values: tuple[str, str]
    visible: bool


@dataclass(frozen=True)
class World:
    """Classes, shortcuts (the visible ones first), the numeric metadata field that means nothing, and `draw`."""

    name: str
    core: str
    classes: tuple[str, str]
    shortcuts: tuple[Shortcut, ...]
    numeric: tuple[str, float, float]
    draw: Draw

    @property
    def visible(self) -> tuple[Shortcut, ...]:
        """The shortcuts that the image shows, in the order of `draw`'s columns."""
        return tuple(s for s in self.shortcuts if s.visible)


def _placed(seeds: Ints, spread: float, radius: tuple[float, float]) -> tuple[d.Plane, d.Plane, d.Plane, d.Plane]:
    """Random centre, radius and angle of the core object, each `(n, 1, 1)`."""
    u = d.uniform(seeds, 4, 1)
    size = radius[0] + (radius[1] - radius[0]) * u[:, 2]
    return (
        d.column((u[:, 0] * 2 - 1) * spread),
        d.column((u[:, 1] * 2 - 1) * spread),
        d.column(size),
        d.column(u[:, 3] * (2 * np.pi)),
    )


def _sign(values: Ints) -> d.Plane:
    return d.column(values.astype(np.float32) * 2 - 1)


def _clinic(core: Ints, shortcuts: Ints, seeds: Ints, size: int, core_by: float, by: float) -> NDArray[np.uint8]:
    """A body in a dark field with a lesion: round border (benign) or spiculated (malignant)."""
    x, y = d.grid(size)
    u = d.uniform(seeds, 8, 2)
    tilt = _sign(shortcuts[:, 1]) * np.float32(0.45 * by) + d.column((u[:, 0] - 0.5) * 0.3)
    bx, by_ = d.rotated(x, y, d.column((u[:, 1] - 0.5) * 0.2), d.column((u[:, 2] - 0.5) * 0.2), tilt)
    body = d.soft(1 - np.sqrt((bx / np.float32(0.66)) ** 2 + (by_ / np.float32(0.9)) ** 2), size)
    tissue = d.column(105 + 30 * u[:, 3]) + 22 * d.smooth_field(seeds, size, 7, 3)
    grey = np.float32(22) + body * (tissue - np.float32(22))

    cx, cy, radius, angle = _placed(seeds, 0.22, (0.26, 0.34))
    lx, ly = d.rotated(x, y, cx, cy, angle)
    r = np.sqrt(lx * lx + ly * ly) + np.float32(1e-4)
    c2 = (lx / r) ** 2
    spikes = ((32 * c2 - 48) * c2 + 18) * c2 - 1  # cos(6 angle), Chebyshev in cos^2
    depth = np.float32(0.1 * core_by) * d.column(core)
    # Dividing by the root mean square keeps the area equal: size must not give the class away.
    border = radius * (1 + depth * spikes) / np.sqrt(1 + depth * depth / 2)
    lesion = d.soft(border - r, size) * d.column(0.3 + 0.4 * u[:, 4])
    grey = grey + lesion * (np.float32(225) - grey)

    canvas = np.repeat(grey[..., None], 3, axis=-1)
    mx, my = x - d.column(-0.78 + 0.08 * u[:, 5]), y - d.column(-0.78 + 0.08 * u[:, 6])
    ring = d.soft(np.float32(0.045) - np.abs(np.sqrt(mx * mx + my * my) - np.float32(0.12)), size)
    cross = d.soft(np.maximum(0.05 - np.minimum(np.abs(mx), np.abs(my)), -1), size) * d.soft(
        np.float32(0.16) - np.maximum(np.abs(mx), np.abs(my)), size
    )
    mark = np.where(d.column(shortcuts[:, 0]) > 0, cross, ring) * np.float32(min(1.0, by))
    d.blend(canvas, mark, np.array([250, 240, 160]))
    return d.finish(canvas, seeds, 14)


def _factory(core: Ints, shortcuts: Ints, seeds: Ints, size: int, core_by: float, by: float) -> NDArray[np.uint8]:
    """A metal plate on a belt: with a stain (ok) or with a crack of the same darkness and area (defect)."""
    x, y = d.grid(size)
    u = d.uniform(seeds, 8, 2)
    canvas = np.empty((len(seeds), size, size, 3), dtype=np.float32)
    canvas[:] = (78 + 10 * d.smooth_field(seeds, size, 6, 3))[..., None]
    line = np.array([[60, 90, 215], [225, 130, 40]], dtype=np.float32)[shortcuts[:, 0]]
    rails = d.soft(np.abs(y) - np.float32(0.84), size) + np.zeros((len(seeds), 1, 1), np.float32)
    d.blend(canvas, rails * np.float32(min(1.0, by)), line)

    px, py = d.rotated(
        x, y, d.column((u[:, 0] - 0.5) * 0.2), d.column((u[:, 1] - 0.5) * 0.2), d.column((u[:, 2] - 0.5) * 0.8)
    )
    plate = d.soft(np.float32(0.58) - np.maximum(np.abs(px), np.abs(py)), size)
    d.blend(canvas, plate, np.repeat((165 + 40 * u[:, 3])[:, None], 3, axis=1))

    cx, cy, radius, angle = _placed(seeds, 0.16, (0.15, 0.21))
    lx, ly = d.rotated(x, y, cx, cy, angle)
    stain = radius - np.sqrt(lx * lx + ly * ly)
    # A crack of half length l and half width w has area 4 l w; with l = 0.42 that equals the stain's pi r^2.
    bend = np.float32(0.07) * np.sin(lx * 14)
    width = radius * radius * np.float32(np.pi / (4 * 0.42))
    crack = np.minimum(np.float32(0.42) - np.abs(lx), width - np.abs(ly + bend))
    share = d.column(core) * np.float32(min(1.0, 0.5 * core_by))
    flaw = (1 - share) * d.soft(stain, size) + share * d.soft(crack, size)
    d.blend(canvas, flaw * d.column(0.15 + 0.35 * u[:, 4]), np.array([45, 40, 38]))

    side = _sign(shortcuts[:, 1]) * np.float32(by)
    light = 1 + np.float32(0.28) * side * x + d.column((u[:, 5] - 0.5) * 0.2)
    tint = np.array([1.0, 0.0, -1.0], dtype=np.float32) * np.float32(0.07)
    canvas *= light[..., None] * (1 - side[..., None] * tint)
    return d.finish(canvas, seeds, 14)


def _shapes(core: Ints, shortcuts: Ints, seeds: Ints, size: int, core_by: float, by: float) -> NDArray[np.uint8]:
    """A disc or a triangle of equal area, in one of two colours, on stripes of one of two directions."""
    x, y = d.grid(size)
    u = d.uniform(seeds, 8, 2)
    canvas = np.empty((len(seeds), size, size, 3), dtype=np.float32)
    canvas[:] = (118 + 25 * d.smooth_field(seeds, size, 7, 3))[..., None]
    along = np.where(d.column(shortcuts[:, 1]) > 0, x, y)
    stripes = np.sin(along * d.column(11 + 6 * u[:, 0]) + d.column(u[:, 1] * 6.28))
    canvas += (np.float32(26 * by) * stripes)[..., None]

    cx, cy, radius, angle = _placed(seeds, 0.35, (0.34, 0.46))
    lx, ly = d.rotated(x, y, cx, cy, angle)
    disc = radius - np.sqrt(lx * lx + ly * ly)
    # Equilateral triangle: the largest of three projections; inradius r_t has area 3 sqrt(3) r_t^2 = pi r^2.
    inradius = radius * np.float32(np.sqrt(np.pi / (3 * np.sqrt(3))))
    slant = np.float32(np.sqrt(3) / 2) * np.abs(lx) + np.float32(0.5) * ly
    triangle = inradius - np.maximum(slant, -ly)
    share = d.column(core) * np.float32(min(1.0, 0.6 * core_by))
    mask = d.soft((1 - share) * disc + share * triangle, size)
    middle = np.array([150.0, 130.0, 120.0], dtype=np.float32)
    hue = np.array([[-70, 40, 50], [70, -40, -50]], dtype=np.float32)[shortcuts[:, 0]]
    colour = middle + hue * np.float32(by) + ((u[:, 2:5] - 0.5) * 50)
    d.blend(canvas, mask * d.column(0.75 + 0.25 * u[:, 5]), colour)
    return d.finish(canvas, seeds, 14)


WORLDS: dict[str, World] = {
    "clinic": World(
        "clinic",
        "border of the lesion",
        ("benign", "malignant"),
        (
            Shortcut("scanner_mark", ("ring mark", "cross mark"), True),
            Shortcut("position", ("tilted left", "tilted right"), True),
            Shortcut("site", ("site A", "site B"), False),
        ),
        ("age", 20.0, 90.0),
        _clinic,
    ),
    "factory": World(
        "factory",
        "flaw on the plate",
        ("stain", "crack"),
        (
            Shortcut("line", ("line 1", "line 2"), True),
            Shortcut("lighting", ("lit from left", "lit from right"), True),
            Shortcut("shift", ("day shift", "night shift"), False),
        ),
        ("temperature", 15.0, 35.0),
        _factory,
    ),
    "shapes": World(
        "shapes",
        "outline of the object",
        ("disc", "triangle"),
        (
            Shortcut("colour", ("teal", "coral"), True),
            Shortcut("background", ("horizontal stripes", "vertical stripes"), True),
            Shortcut("tag", ("tag 0", "tag 1"), False),
        ),
        ("weight", 0.0, 10.0),
        _shapes,
    ),
}

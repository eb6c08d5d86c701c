"""A Matplotlib figure as an SVG element that takes the page's colours and font, with a text for those who see none."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from aifs_peft.report.plots.theme import SETTINGS, VARIABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.5
"""Inches; one inch is 72 units of the SVG: on a phone, 324 pixels wide, a point of text is a pixel."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_PAINTED = ("style", "fill", "stroke")


@contextmanager
def _look() -> Iterator[None]:
    """The theme, for a while; other figures of the process keep their look."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own: what DejaVu lacks is no loss.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support", category=UserWarning)
        yield


@contextmanager
def figure(height: float, width: float = WIDTH, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A new figure in the report's theme; it belongs to no window and no global list.

    Args:
        height: in inches.
        width: in inches.
        **subplots: as for `Figure.subplots`.

    Yields:
        The figure and what `Figure.subplots` gives.
    """
    from matplotlib.figure import Figure

    with _look():
        made = Figure(figsize=(width, height), layout="constrained")
        yield made, made.subplots(**subplots)


def to_svg(made: Figure, title: str, description: str) -> str:
    """The figure as one `<svg>` element for a page: scalable, with the page's colours, named and described.

    The same figure gives the same text. Element names are its own, so that several can stand on one page.

    Args:
        made: within `figure(...)`.
        title: what it shows, in a few words.
        description: the same for a reader who sees no figure; the numbers, where they are few.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    salt = sha256(f"{title}|{description}".encode()).hexdigest()[:12]
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": salt, "svg.id": f"f{salt}"}):
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - Matplotlib's own output  # nosec B314
    for element in root.iter():
        _repaint(element)
        if element.get("id"):
            _rename(element, "id", salt)
        for name in (f"{{{_XLINK}}}href", "clip-path"):
            _rename(element, name, salt)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for name in ("width", "height", "version", "id"):
        root.attrib.pop(name, None)
    # On a wide page a point of text is not more than one and a half pixels.
    root.set("style", f"max-width:{108 * made.get_figwidth():.0f}px")
    root.attrib |= {"role": "img", "aria-labelledby": f"t{salt} d{salt}", "preserveAspectRatio": "xMidYMid meet"}
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{tag[0]}{salt}"})
        child.text = text
        root.insert(place, child)
    return ET.tostring(root, encoding="unicode")


def _repaint(element: ET.Element) -> None:
    for name in _PAINTED:
        value = element.get(name)
        if value is None:
            continue
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, variable)
        element.set(name, value.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit"))


def _rename(element: ET.Element, name: str, salt: str) -> None:
    """Give a name, or a reference to one, the figure's own ending."""
    value = element.get(name)
    if value is None or value.startswith("data:"):
        return
    if value.startswith("url(#"):
        element.set(name, f"{value[:-1]}-{salt})")
    elif name == "id" or value.startswith("#"):
        element.set(name, f"{value}-{salt}")


def clean_axes(ax: Axes, grid: str = "") -> None:
    """Less ink: no ticks on a category axis, a grid along one axis only."""
    if grid:
        ax.grid(visible=True, axis=grid)  # type: ignore[arg-type]
        ax.set_axisbelow(True)
    ax.tick_params(length=0)

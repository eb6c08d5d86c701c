"""What `model.explain(...)` returns: why each decision was made, and what it would be without the attribute."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aifs_peft.explain.render import data_uri, levels, marked_html, overlay
from aifs_peft.explain.share import shares

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_SHOWN = 12
_SIZE = 160
_ALONG, _REST = "#d9622b", "#12907e"


@dataclass(frozen=True)
class Highlight:
    """What the attribute's score reads in one example.

    Attributes:
        patches: what each patch of the picture adds to the score of the inferred value, `(rows, columns)`, signed;
            None for a text.
        picture: the picture as the model sees it, `(height, width, 3)` uint8; None for a text.
        words: pieces of the text in order with what each adds to the score; empty for a picture.
    """

    patches: NDArray[np.float32] | None = None
    picture: NDArray[np.uint8] | None = None
    words: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Why a model decides as it does, for a batch of `n` examples and `K` classes.

    Attributes:
        label_names: of the classes.
        value_names: of the attribute's values: the class, or classes, that each goes with in the training set.
        predicted: classes, `(n,)` int64.
        probabilities: `(n, K)`.
        along: part of the predicted class's lead over the runner-up, in logits, that runs along the spurious
            directions, counted from the middle between the classes, `(n,)`. Negative where it speaks against.
        rest: the part that runs along everything else, `(n,)`.
        inferred: attribute values read off the latents, `(n,)` int64.
        confidence: of those, as if all values were equally frequent, `(n,)`.
        toggled_to: another attribute value, `(n,)` int64: of several the one that lowers the prediction's probability
            most.
        predicted_toggled: classes with that value in the latents and nothing else changed, `(n,)` int64.
        probabilities_toggled: `(n, K)`.
        highlights: what the attribute's score reads in each example; empty where it was not asked for, or cannot be
            shown (latents, tables).
    """

    label_names: tuple[str, ...]
    value_names: tuple[str, ...]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    along: NDArray[np.float64]
    rest: NDArray[np.float64]
    inferred: NDArray[np.int64]
    confidence: NDArray[np.float64]
    toggled_to: NDArray[np.int64]
    predicted_toggled: NDArray[np.int64]
    probabilities_toggled: NDArray[np.float64]
    highlights: tuple[Highlight, ...] = ()

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of each decision that runs along the spurious directions, `(n,)` in [0, 1]."""
        return shares(self.along, self.rest)

    @property
    def changes(self) -> NDArray[np.bool_]:
        """Whether the prediction changes with the attribute, `(n,)`."""
        return np.asarray(self.predicted != self.predicted_toggled)

    def __repr__(self) -> str:
        shown = ", highlights" if self.highlights else ""
        return (
            f"Explanation({len(self):,} examples, {int(self.changes.sum()):,} predictions change with the attribute, "
            f"{100 * float(self.share.mean()):.0f} % of the decisions run along it{shown})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per example.

        Returns:
            Columns `predicted`, `probability`, `share` (of the decision along the spurious directions), `along`,
            `rest`, `inferred`, `confidence`, `toggled_to`, `predicted_toggled`, `probability_toggled` (of the class
            predicted before) and `changes`.
        """
        import pandas as pd

        at = np.arange(len(self)), self.predicted
        classes, values = np.array(self.label_names, dtype=object), np.array(self.value_names, dtype=object)
        return pd.DataFrame(
            {
                "predicted": classes[self.predicted],
                "probability": self.probabilities[at],
                "share": self.share,
                "along": self.along,
                "rest": self.rest,
                "inferred": values[self.inferred],
                "confidence": self.confidence,
                "toggled_to": values[self.toggled_to],
                "predicted_toggled": classes[self.predicted_toggled],
                "probability_toggled": self.probabilities_toggled[at],
                "changes": self.changes,
            }
        )

    def plot(self, most: int = MOST_SHOWN) -> Figure:
        """Draw the two parts of each decision, beside the picture where there is one.

        Args:
            most: examples to draw, from the first.

        Returns:
            A Matplotlib figure, which a notebook shows.
        """
        from matplotlib.figure import Figure

        n = min(len(self), most)
        pictures = [h for h in self.highlights[:n] if h.picture is not None and h.patches is not None]
        height = max(1.6, 0.62 * n + 0.9)
        made = Figure(figsize=(7.2 if pictures else 6.0, height), layout="constrained")
        grid = made.add_gridspec(n, 2 if pictures else 1, width_ratios=[1, 7] if pictures else None, hspace=0.06)
        for row, highlight in enumerate(pictures):
            assert highlight.picture is not None  # noqa: S101 - chosen above
            ax = made.add_subplot(grid[row, 0])
            ax.imshow(np.asarray(overlay(highlight.picture, highlight.patches, _SIZE)))
            ax.set_axis_off()
        ax = made.add_subplot(grid[:, -1])
        place = np.arange(n)
        ax.barh(place + 0.19, self.rest[:n], height=0.36, color=_REST, label="everything else")
        ax.barh(place - 0.19, self.along[:n], height=0.36, color=_ALONG, label="along the attribute")
        ax.axvline(0, color="#7d8894", linewidth=0.8)
        ax.set_yticks(place, [self._line(i) for i in range(n)])
        ax.set_ylim(n - 0.5, -0.5)
        ax.set_xlabel("lead of the predicted class, logits")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(length=0)
        made.legend(loc="outside upper right", ncols=2, frameon=False)
        return made

    def _line(self, i: int) -> str:
        told = self.label_names[self.predicted[i]]
        other = self.label_names[self.predicted_toggled[i]]
        return f"{told} \u2192 {other}" if self.changes[i] else str(told)

    def _repr_html_(self) -> str:
        """A table of the first examples, with pictures or marked words, for a notebook."""
        header = ["", "predicted", "along the attribute", "inferred value", "with another value"]
        rows = []
        for i in range(min(len(self), MOST_SHOWN)):
            p, q = self.probabilities[i].max(), self.probabilities_toggled[i].max()
            told = [
                f"{self.label_names[self.predicted[i]]} ({100 * p:.0f} %)",
                f"{100 * self.share[i]:.0f} % of the decision",
                f"{self.value_names[self.inferred[i]]} ({100 * self.confidence[i]:.0f} %)",
                f"{self.label_names[self.predicted_toggled[i]]} ({100 * q:.0f} %)",
            ]
            rows.append([self._shown(i), *(html.escape(text) for text in told)])
        left = "style='text-align:left'"
        head = "".join(f"<th {left}>{name}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td {left}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        more = f"<p>{len(self) - len(rows):,} more.</p>" if len(self) > len(rows) else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{html.escape(repr(self))}</p>{table}{more}"

    def _shown(self, i: int) -> str:
        """Picture or text of an example as HTML; its number where there is neither."""
        if not self.highlights:
            return str(i)
        highlight = self.highlights[i]
        if highlight.picture is not None and highlight.patches is not None:
            image = data_uri(overlay(highlight.picture, highlight.patches, 112))
            return f'<img src="{image}" alt="example {i}, what the attribute\'s score reads in it" height="112">'
        return marked_html(highlight.words)

    def words(self, i: int) -> list[str]:
        """The words of a text that the attribute's score reads most, strongest first; empty for pictures.

        Args:
            i: which example.
        """
        pieces = self.highlights[i].words if self.highlights else ()
        strong = levels([score for _, score in pieces])
        order = sorted(range(len(pieces)), key=lambda k: -pieces[k][1])
        return [pieces[k][0] for k in order if strong[k] > 0]

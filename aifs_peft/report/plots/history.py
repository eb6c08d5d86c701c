"""What training did, epoch by epoch: losses, figures of the evaluation set, and what the method itself measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifs_peft.report.numbers import value_of
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import PLAIN, SERIES, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, Any]]

# Of transformers' log: times and bookkeeping, which say nothing about what was learnt.
_NOT_SHOWN = {"epoch", "step", "loss", "learning_rate", "total_flos", "train_loss", "num_input_tokens_seen"}
_SCHEDULE = ("runtime", "per_second")
ALONG = "spurious_attribution"
"""Share of the head's decisions that runs along the spurious directions, measured at epochs' ends."""


@dataclass(frozen=True)
class Panel:
    """One figure of the training section.

    Attributes:
        title: what it shows.
        series: name of each line with its points `(epoch, value)`.
        share: whether values are shares, shown from 0 to 1.
        beside: name and value of a dashed line to compare with; None for none.
    """

    title: str
    series: dict[str, list[tuple[float, float]]]
    share: bool = False
    beside: tuple[str, float] | None = None

    def draw(self, ax: Axes) -> None:
        """Lines over epochs; a series of one point is a dot."""
        for (name, points), colour in zip(self.series.items(), SERIES, strict=False):
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=colour, marker="o", markersize=4 if len(points) > 1 else 7, label=short(name))
        if self.beside is not None:
            ax.axhline(self.beside[1], color=PLAIN, linestyle="--", linewidth=1.4, label=short(self.beside[0]))
        ax.set_xlabel("epoch")
        if self.share:
            ax.set_ylim(-0.03, 1.03)
        elif min(y for points in self.series.values() for _, y in points) >= 0:
            ax.set_ylim(bottom=0)
        ax.locator_params(axis="x", integer=True, nbins=8)
        clean_axes(ax, grid="y")
        ax.figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)

    def words(self) -> str:
        """First and last value of every line."""
        told = [f"{name}: {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in self.series.items()]
        beside = "" if self.beside is None else f" {self.beside[0]}: {self.beside[1]:.3g}."
        return f"By epoch, from first to last. {'; '.join(told)}.{beside}"


def panels(history: Log, plain_share: float | None = None) -> list[Panel]:
    """The figures that a log has data for: losses, evaluation, the method's own numbers; each at most seven lines.

    Args:
        history: `trainer.state.log_history`, or `LatentFit.history`.
        plain_share: share of the decisions of plain training that runs along the attribute; None where unknown.

    Example:
        >>> log = [{"epoch": 1.0, "loss": 0.5, "invariance": 0.1}, {"epoch": 1.0, "eval_accuracy": 0.8}]
        >>> [panel.title for panel in panels(log)]
        ['Loss and its terms', 'Accuracy on the evaluation set']
    """
    training = [e for e in history if "train_runtime" not in e and not any(k.startswith("eval_") for k in e)]
    with_loss = [e for e in training if "loss" in e]
    own = [e for e in training if "loss" not in e]
    terms = _names(with_loss, but={"grad_norm"})
    figures = sorted(k for k in _names(history) if k.startswith("eval_") and k.endswith("accuracy"))
    evaluated = {k.removeprefix("eval_").removesuffix("_accuracy"): v for k, v in _series(history, figures).items()}
    evaluated = {"average" if k == "accuracy" else k: v for k, v in evaluated.items()}
    out = [
        Panel("Loss and its terms", _worded(_series(with_loss, ["loss", *terms]))),
        Panel("Accuracy on the evaluation set", _worded(evaluated), share=True),
    ]
    along = _series(own, [ALONG]).get(ALONG)
    beside = None if plain_share is None else ("plain training", plain_share)
    out.append(
        Panel("Decisions along the attribute", {"share, this model": along} if along else {}, share=True, beside=beside)
    )
    # A number that never changes is no news.
    measured = {k: v for k, v in _series(own, _names(own, but={ALONG})).items() if len({y for _, y in v}) > 1}
    shares = {k: v for k, v in measured.items() if all(0 <= y <= 1 for _, y in v)}
    larger = {k: v for k, v in measured.items() if k not in shares}
    out += [
        Panel("What the method measured", _worded(shares), share=True),
        Panel("What the method measured, larger numbers", _worded(larger)),
    ]
    return [panel for panel in out if panel.series]


def _names(entries: Log, but: Iterable[str] = ()) -> list[str]:
    """Names of the numbers in a log, in order of appearance, at most six."""
    found: dict[str, None] = {}
    for entry in entries:
        found.update(dict.fromkeys(k for k, v in entry.items() if value_of(v) is not None))
    skip = {*_NOT_SHOWN, *but}
    return [k for k in found if k not in skip and not k.endswith(_SCHEDULE)]


def _series(entries: Log, names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    out: dict[str, list[tuple[float, float]]] = {}
    for name in names[: len(SERIES)]:
        points = [(value_of(e.get("epoch")), value_of(e.get(name))) for e in entries if name in e]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        if known:
            out[name] = known
    return out


def _worded(series: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    return {name.replace("_", " "): points for name, points in series.items()}

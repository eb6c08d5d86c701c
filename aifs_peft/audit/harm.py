"""Who is hurt: how often predictions are right on examples that go against the shortcut, and what their mistakes say.

Two questions, both asked within each class, whose difficulties differ. Are conflicting examples wrong more often than
aligned ones? And do mistakes go where the shortcut points, to the class whose attribute value the example carries? The
null of both is that of inferred values permuted within each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.metrics import clopper_pearson

IntArray = NDArray[np.integer]

# Plain training is judged on at most this many examples, a random sample.
MAX_ROWS = 20_000
DRAWS = 9_999
LEVEL = 0.05
PLAIN = "plain training"
GIVEN = "the given predictions"


@dataclass(frozen=True)
class Rate:
    """How often predictions are right.

    Args:
        n: number of examples.
        correct: of them right.
        accuracy: their share, `None` without examples.
        low: lower end of the exact 95 % interval (Clopper and Pearson), `None` without examples.
        high: upper end.
    """

    n: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Rate:
        """The rate of `hits (n,)`.

        Example:
            >>> Rate.of(np.array([True, True, False])).correct
            2
        """
        n, correct = len(hits), int(np.count_nonzero(hits))
        if not n:
            return cls(0, 0, None, None, None)
        low, high = (float(bound) for bound in clopper_pearson(correct, n))
        return cls(n, correct, correct / n, low, high)


@dataclass(frozen=True, eq=False)
class Harm:
    """Whether predictions lean on the inferred shortcut.

    Args:
        source: `"plain training"` or `"the given predictions"`.
        aligned: on examples that carry their own class's attribute value.
        conflicting: on the others.
        cells: one row per label and inferred value that occur: `label`, `inferred`, `conflicting`, and the fields of a
            `Rate`.
        p_value: one-sided, of conflicting examples being wrong more often than aligned ones of their class; `None`
            where one of the two is empty.
        mistakes: number of wrong predictions.
        to_inferred: share of them that name a class whose attribute value the example carries.
        to_inferred_chance: that share if inferred values meant nothing, given each class's mistakes.
        to_inferred_p_value: one-sided; `None` without mistakes, as are the two above.
        leans: whether `p_value` is below 0.05.
        sentence: the same for people.
    """

    source: str
    aligned: Rate
    conflicting: Rate
    cells: pd.DataFrame = field(repr=False)
    p_value: float | None
    mistakes: int
    to_inferred: float | None
    to_inferred_chance: float | None
    to_inferred_p_value: float | None
    leans: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not defined is `None`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "cells"}
        values |= {"aligned": asdict(self.aligned), "conflicting": asdict(self.conflicting)}
        values["cells"] = [
            {name: _plain(value) for name, value in row.items()} for row in self.cells.to_dict(orient="records")
        ]
        return values


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def measure_harm(
    predicted: IntArray,
    y: IntArray,
    inferred: IntArray,
    carries: NDArray[np.bool_],
    names: tuple[Sequence[Any], Sequence[Any]],
    *,
    source: str,
    rng: np.random.Generator,
) -> Harm:
    """Compare predictions on aligned and on conflicting examples.

    Args:
        predicted: class of each prediction, `(n,)`; -1 for a class that does not occur among the labels.
        y: class of each example, `(n,)`, in `0..K-1`.
        inferred: attribute value of each, `(n,)`, in `0..A-1`.
        carries: which classes an attribute value goes with, `(A, K)`.
        names: of the classes, and of the attribute's values.
        source: `PLAIN` or `GIVEN`.
        rng: source of the permutations.
    """
    hits, moved = predicted == y, inferred != y
    aligned, conflicting = Rate.of(hits[~moved]), Rate.of(hits[moved])
    p_value = _gap_p_value(hits, moved, y, rng)
    mistakes = int(np.count_nonzero(~hits))
    share, chance, p_mistakes = _pointed(predicted, y, inferred, carries, rng)
    leans = p_value is not None and p_value < LEVEL
    harm = Harm(
        source, aligned, conflicting, _cells(hits, y, inferred, names), p_value, mistakes, share, chance, p_mistakes,
        leans, "",
    )  # fmt: skip
    return replace(harm, sentence=_sentence(harm))


def _cells(
    hits: NDArray[np.bool_], y: IntArray, inferred: IntArray, names: tuple[Sequence[Any], Sequence[Any]]
) -> pd.DataFrame:
    rows = []
    for c, a in sorted(set(zip(y.tolist(), inferred.tolist(), strict=True))):
        rate = Rate.of(hits[(y == c) & (inferred == a)])
        rows.append({"label": names[0][c], "inferred": names[1][a], "conflicting": c != a, **asdict(rate)})
    return pd.DataFrame(rows)


def _gap_p_value(
    hits: NDArray[np.bool_], moved: NDArray[np.bool_], y: IntArray, rng: np.random.Generator
) -> float | None:
    """Probability of as many mistakes among conflicting examples if they were drawn at random from their class."""
    if not moved.any() or moved.all():
        return None
    observed, null = 0, np.zeros(DRAWS)
    for c in np.unique(y):
        own = y == c
        wrong, conflicting = int(np.count_nonzero(own & ~hits)), int(np.count_nonzero(own & moved))
        observed += int(np.count_nonzero(own & moved & ~hits))
        null += rng.hypergeometric(wrong, int(np.count_nonzero(own)) - wrong, conflicting, DRAWS)
    return float((1 + np.count_nonzero(null >= observed)) / (1 + DRAWS))


def _pointed(
    predicted: IntArray, y: IntArray, inferred: IntArray, carries: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    """Share of mistakes that name a class whose value the example carries, its expectation by chance, and a p-value.

    Within a class, the table of predictions against inferred values has its margins fixed, and is drawn at random.
    """
    mistakes = int(np.count_nonzero(predicted != y))
    if not mistakes:
        return None, None, None
    n_values, n_classes = carries.shape
    # A prediction of no known class never points anywhere: it is one more column.
    points = np.vstack([carries.T, np.zeros((1, n_values), dtype=bool)])
    observed, expected, null = 0.0, 0.0, np.zeros(DRAWS)
    for c in np.unique(y):
        own = y == c
        table = np.zeros((n_classes + 1, n_values), dtype=np.int64)
        np.add.at(table, (np.where(predicted[own] < 0, n_classes, predicted[own]), inferred[own]), 1)
        counted = points & (np.arange(n_classes + 1) != c)[:, None]
        rows, columns = np.flatnonzero(table.sum(axis=1)), np.flatnonzero(table.sum(axis=0))
        table, counted = table[np.ix_(rows, columns)], counted[np.ix_(rows, columns)]
        observed += float(table[counted].sum())
        margins = table.sum(axis=1), table.sum(axis=0)
        expected += float((np.outer(*margins) / table.sum())[counted].sum())
        if min(table.shape) > 1:
            drawn = stats.random_table(*margins, seed=rng).rvs(DRAWS)
            null += drawn[:, counted].sum(axis=1)
        else:
            null += float(table[counted].sum())
    p_value = float((1 + np.count_nonzero(null >= observed)) / (1 + DRAWS))
    return observed / mistakes, expected / mistakes, p_value


def _sentence(harm: Harm) -> str:
    """What the numbers say, for people."""
    plain = harm.source == PLAIN
    if harm.p_value is None:
        return f"{'Plain training' if plain else 'The given predictions'}: no conflicting example to judge by."
    subject = "Plain training, judged on held-out folds, is" if plain else "The given predictions are"
    conflicting, aligned = _words(harm.conflicting, "conflicting examples"), _words(harm.aligned, "aligned ones")
    text = f"{subject} right on {conflicting} and on {aligned}"
    if harm.leans:
        text += f": conflicting ones are wrong more often than chance allows (p = {harm.p_value:.2g})."
    else:
        text += f": no more mistakes on conflicting ones than chance allows (p = {harm.p_value:.2g})."
    if harm.leans and harm.to_inferred is not None and harm.to_inferred_chance is not None:
        text += (
            f" Of {harm.mistakes:,} mistakes {percent(harm.to_inferred)} % name a class whose attribute value the "
            f"example carries; {percent(harm.to_inferred_chance)} % would by chance."
        )
    return text


def _words(rate: Rate, what: str) -> str:
    if rate.accuracy is None or rate.low is None or rate.high is None:
        return f"no {what}"
    interval = f"95 % interval {percent(rate.low)} to {percent(rate.high)} %"
    return f"{percent(rate.accuracy)} % of {rate.n:,} {what} ({interval})"


def percent(share: float) -> str:
    """A share in percent; 0 and 100 are said of nothing else.

    Example:
        >>> percent(0.123), percent(0.996), percent(0.99999), percent(1.0)
        ('12', '99.6', 'over 99.9', '100')
    """
    whole = f"{100 * share:.0f}"
    if whole not in ("0", "100") or share in (0.0, 1.0):
        return whole
    tenths = f"{100 * share:.1f}"
    return {"0.0": "under 0.1", "100.0": "over 99.9"}.get(tenths, tenths)


def plain_predictions(Z: Any, y: IntArray, inferred: IntArray, *, folds: int, seed: int) -> tuple[IntArray, IntArray]:
    """What plain logistic regression predicts for examples that it was not trained on.

    Args:
        Z: latents `(n, d)`, whatever `discover` takes.
        y: classes `(n,)`.
        inferred: attribute values `(n,)`; every fold gets its share of each cell of class and value.
        folds: how many, fewer where a class has fewer examples.
        seed: of folds, sample and fits.

    Returns:
        Rows that were looked at, `(m,)`, and the class predicted for each, `(m,)`.
    """
    from aifs_peft.classifier import AIFSClassifier

    rng = np.random.default_rng(seed)
    rows = np.arange(len(y)) if len(y) <= MAX_ROWS else np.sort(rng.choice(len(y), MAX_ROWS, replace=False))
    width = int(max(y.max(), inferred.max())) + 1
    cells = y[rows] * width + inferred[rows]
    # A cell with fewer examples than folds cannot be dealt over them: it is dealt with the aligned ones of its class.
    small = np.bincount(cells)[cells] < folds
    cells = np.where(small, y[rows] * width + y[rows], cells)
    folds = max(2, min(folds, int(np.unique(cells, return_counts=True)[1].min())))
    latents = np.asarray(as_source(Z).take(rows))
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, cells))
    predicted = cross_val_predict(AIFSClassifier("erm", random_state=seed), latents, y[rows], cv=splits)
    return rows, np.asarray(predicted, dtype=np.int64)

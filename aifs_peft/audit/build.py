"""The steps of an audit in their order: discover, list what conflicts, compare with metadata, words and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from aifs_peft.audit.associations import associations
from aifs_peft.audit.columns import Column, as_frame, read_columns
from aifs_peft.audit.evidence import evidence_words
from aifs_peft.audit.harm import GIVEN, PLAIN, measure_harm, plain_predictions
from aifs_peft.audit.names import score_words
from aifs_peft.audit.power import class_contrast, detectable, power_sentence
from aifs_peft.audit.projection import axes, projection_frame
from aifs_peft.audit.reading import (
    Data,
    check_discovery,
    check_same_order,
    input_text,
    noun_of,
    read_data,
    read_inputs,
    read_predictions,
)
from aifs_peft.audit.result import Audit
from aifs_peft.discovery import Discovery, discover
from aifs_peft.discovery.inputs import as_latents
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.errors import InvalidConfigError

IntArray = NDArray[np.integer]
# Classes (n,), inferred values (n,), names of the values and a source of draws, to the table of words.
WordScores = Callable[[IntArray, IntArray, Sequence[Any], np.random.Generator], pd.DataFrame]

RESERVED = ("row", "input", "label", "inferred", "confidence")
WEAK = "the evidence is weak: of such finds in simulated data a good part was wrong; look at the conflicting examples"
ROUGH = "the partition is rough: part of the conflicting examples is missed or takes a wrong value"
UNUSED = "predictions were given, and no shortcut was found to judge them by"


def build_audit(
    Z: Any,
    y: Any,
    *,
    metadata: Any,
    inputs: Any,
    predictions: Any,
    word_scores: WordScores | None,
    discovery: Discovery | None,
    class_names: Any,
    random_state: int | np.random.RandomState | None,
    harm: bool,
    folds: int,
) -> Audit:
    """See `audit`."""
    if folds < 2:
        raise InvalidConfigError(f"folds={folds} was given; needed are at least 2 (5 by default)")
    data = read_data(Z, y, class_names)
    n = len(data.y)
    check_same_order(Z, metadata, "metadata")
    frame, held = as_frame(metadata, n), read_inputs(inputs, Z, n)
    predicted = None if predictions is None else read_predictions(predictions, data)
    seed = int(check_random_state(random_state).randint(2**31))
    if discovery is None:
        discovery = discover(data.Z, data.classes[data.y], random_state=random_state)
    check_discovery(discovery, data)
    inferred, moved = discovery.groups_, discovery.conflicting_
    values = data.value_names(discovery.responsibilities_.shape[1])
    columns = read_columns(frame)
    rngs = np.random.default_rng(seed).spawn(4)
    reduction = principal_components(data.Z, rng=rngs[0])
    X = reduction.transform(data.Z)
    along = axes(X, reduction, data.y, discovery)
    table = associations(columns, data.y, inferred, [str(v) for v in values], rng=rngs[1])
    names = None
    if word_scores is not None and discovery.found:
        names = word_scores(data.y, inferred, values, rngs[2])
    plain = given = None
    if discovery.found:
        carries, both = data.carries(len(values)), (data.names, values)
        if harm:
            rows, guessed = plain_predictions(data.Z, data.y, inferred, folds=folds, seed=seed)
            plain = measure_harm(guessed, data.y[rows], inferred[rows], carries, both, source=PLAIN, rng=rngs[3])
        if predicted is not None:
            given = measure_harm(predicted, data.y, inferred, carries, both, source=GIVEN, rng=rngs[3])
    label_names, inferred_names = [data.names[i] for i in data.y], [values[a] for a in inferred]
    looked = _looked_at(data, discovery, class_contrast(X, data.y, len(data.classes)), columns)
    looked["warnings"] += [UNUSED] if predicted is not None and not discovery.found else []
    words = evidence_words(discovery)
    return Audit(
        found=bool(discovery.found),
        sentence=_sentence(int(moved.sum()), n, noun_of(held), words, table, names) if discovery.found else (
            _nothing(discovery, n, noun_of(held))
        ),
        evidence=float(discovery.evidence_),
        evidence_words=words,
        discovery=discovery,
        conflicting=_conflicting(discovery, moved, along, (label_names, inferred_names), held, frame),
        groups=_groups(data.y, inferred, data.names, values),
        associations=table,
        names=names,
        harm=plain,
        model_harm=given,
        looked_at=looked,
        projection=projection_frame(along, moved, label_names, inferred_names, rngs[3]),
        inputs=held,
    )  # fmt: skip


def scores_in(Z: Any, vocabulary: Mapping[str, Any]) -> WordScores:
    """Word scores by a vocabulary in the space of the latents.

    Args:
        Z: latents, `(n, d)`.
        vocabulary: words and their embeddings, `(d,)` each.
    """

    def scores(y: IntArray, inferred: IntArray, values: Sequence[Any], rng: np.random.Generator) -> pd.DataFrame:
        return score_words(np.asarray(as_latents(Z), dtype=np.float32), y, inferred, vocabulary, values, rng=rng)

    return scores


def _conflicting(
    discovery: Discovery,
    moved: NDArray[np.bool_],
    along: NDArray[np.floating],
    names: tuple[Sequence[Any], Sequence[Any]],
    inputs: Any,
    frame: pd.DataFrame,
) -> pd.DataFrame:
    """Conflicting examples, most certain first; where the posterior is one, those farthest out along the attribute."""
    confidence = discovery.responsibilities_[np.arange(len(moved)), discovery.groups_].astype(np.float64)
    rows = np.flatnonzero(moved)
    rows = rows[np.lexsort((rows, -np.abs(along[rows, 1]), -confidence[rows]))]
    table = pd.DataFrame(
        {
            "row": rows,
            "input": pd.Series(
                [None if inputs is None else input_text(inputs[i]) for i in rows.tolist()], dtype=object
            ),
            "label": [names[0][i] for i in rows.tolist()],
            "inferred": [names[1][i] for i in rows.tolist()],
            "confidence": confidence[rows],
        }
    )
    extra = frame.iloc[rows].reset_index(drop=True)
    extra.columns = [f"metadata_{name}" if name in RESERVED else name for name in extra.columns]
    return pd.concat([table, extra], axis=1)


def _groups(y: IntArray, inferred: IntArray, names: Sequence[Any], values: Sequence[Any]) -> pd.DataFrame:
    counts = np.bincount(y, minlength=len(names))
    cells, sizes = np.unique(np.stack([y, inferred], axis=1), axis=0, return_counts=True)
    rows = [
        {"label": names[c], "inferred": values[a], "n": int(size), "share": size / counts[c], "conflicting": c != a}
        for (c, a), size in zip(cells.tolist(), sizes, strict=True)
    ]
    return pd.DataFrame(rows)


def _looked_at(data: Data, discovery: Discovery, contrast: float, columns: Sequence[Column]) -> dict[str, Any]:
    n, d = data.Z.shape
    counts = np.bincount(data.y)
    seen = detectable(n, d, len(counts), int(counts.min()))
    warnings = []
    if discovery.found:
        warnings += [WEAK] if evidence_words(discovery) == "weak" else []
        warnings += [ROUGH] if discovery.rough_ else []
    return {
        "n": n,
        "d": d,
        "classes": {str(name): int(count) for name, count in zip(data.names, counts, strict=True)},
        "smallest_class": int(counts.min()),
        "candidates": len(discovery.candidates_),
        "class_contrast": contrast,
        "detectable": [asdict(entry) for entry in seen],
        "detectable_sentence": power_sentence(seen, contrast, n, int(counts.min())),
        "metadata": {
            "tested": [column.name for column in columns if column.testable],
            "skipped": {column.name: column.note for column in columns if not column.testable},
        },
        "warnings": warnings,
    }


def _sentence(conflicting: int, n: int, noun: str, words: str, table: pd.DataFrame, names: pd.DataFrame | None) -> str:
    """What was found, for people."""
    text = (
        f"{conflicting:,} of {n:,} {noun} go against the shortcut: their latents carry what usually goes with another "
        f"class (evidence: {words})."
    )
    beyond = table[table["significant"]]
    if len(beyond):
        first = beyond.iloc[0]
        text += f" Of the metadata, {first['column']!r} goes with it most (association {first['strength']:.2f})."
    told = [] if names is None else names[names["significant"]]["word"].tolist()[:3]
    if told:
        text += f" Words that go with it: {', '.join(told)}."
    return text


def _nothing(discovery: Discovery, n: int, noun: str) -> str:
    """That nothing was found, for people; discovery says why."""
    tried = len(discovery.candidates_)
    if not tried:
        return f"No shortcut was looked for in these {n:,} {noun}. {discovery.message_}"
    return (
        f"No shortcut was found in the latents of {n:,} {noun}: {tried} candidate partitions were looked at, and none "
        "is an attribute that goes with the label and is clearer than the class."
    )

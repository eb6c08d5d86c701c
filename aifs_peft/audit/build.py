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
from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.audit.even import even_classes
from aifs_peft.audit.evidence import evidence_words
from aifs_peft.audit.harm import GIVEN, PLAIN, Harm, measure_harm, plain_predictions
from aifs_peft.audit.names import score_words
from aifs_peft.audit.power import class_contrast, detectable, power_sentence
from aifs_peft.audit.projection import axes, projection_frame
from aifs_peft.audit.reading import (
    Data,
    check_discovery,
    check_same_order,
    noun_of,
    read_data,
    read_inputs,
    read_predictions,
)
from aifs_peft.audit.result import Audit
from aifs_peft.audit.tables import conflicting_table, groups_table
from aifs_peft.audit.text import found_sentence, nothing_sentence, unlabelled_text
from aifs_peft.discovery import Discovery, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import check_finite
from aifs_peft.discovery.unlabelled.words import rests_on_unlabelled
from aifs_peft.errors import InvalidConfigError

IntArray = NDArray[np.integer]
# Classes (n,), inferred values (n,), names of the values and a source of draws, to the tables of words and, where there
# are any, of attributes.
WordScores = Callable[
    [IntArray, IntArray, Sequence[Any], np.random.Generator], tuple[pd.DataFrame, pd.DataFrame | None]
]

STEPS = ("reduction", "associations", "names", "harm", "predictions", "projection", "even")
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
    unlabelled: Any = None,
    discovery: Discovery | None,
    class_names: Any,
    random_state: int | np.random.RandomState | None,
    harm: bool,
    folds: int,
) -> Audit:
    """See `audit`."""
    if folds < 2:
        raise InvalidConfigError(f"folds={folds} was given; needed are at least 2 (5 by default)")
    if unlabelled is not None and discovery is not None:
        raise InvalidConfigError(
            "both unlabelled and discovery were given, and discovery is not made again; pass "
            "discovery=discover(Z, y, unlabelled=...) alone, or leave it out"
        )
    data = read_data(Z, y, class_names)
    check_same_order(Z, metadata, "metadata")
    frame, held = as_frame(metadata, len(data.y)), read_inputs(inputs, Z, len(data.y))
    predicted = None if predictions is None else read_predictions(predictions, data)
    # One source of draws for each step, so that none depends on which others run.
    seed = int(check_random_state(random_state).randint(2**31))
    rngs = dict(zip(STEPS, np.random.default_rng(seed).spawn(len(STEPS)), strict=True))
    if discovery is None:
        discovery = discover(data.source, data.classes[data.y], unlabelled=unlabelled, random_state=random_state)
    else:
        check_finite(data.source)
    check_discovery(discovery, data)
    values, columns = data.value_names(discovery.responsibilities_.shape[1]), read_columns(frame)
    coordinates = Coordinates.of(data.source, data.y, len(data.classes), rng=rngs["reduction"])
    along = axes(coordinates, discovery)
    table = associations(columns, data.y, discovery.groups_, [str(v) for v in values], rng=rngs["associations"])
    words = word_scores if discovery.found else None
    names, alike = (None, None) if words is None else words(data.y, discovery.groups_, values, rngs["names"])
    plain, given = _harms(data, discovery, values, predicted, harm=harm, folds=folds, seed=seed, rngs=rngs)
    looked = _looked_at(data, discovery, class_contrast(coordinates), columns)
    looked["warnings"] += [UNUSED] if predicted is not None and not discovery.found else []
    each = [data.names[i] for i in data.y.tolist()], [values[a] for a in discovery.groups_.tolist()]
    word, noun, n = evidence_words(discovery), noun_of(held), len(data.y)
    conflicting = conflicting_table(discovery, along, each, held, frame)
    if discovery.found:
        sentence = found_sentence(len(conflicting), n, noun, word, table, names, alike)
    else:
        sentence = nothing_sentence(discovery, n, noun)
        even = even_classes(coordinates, rng=rngs["even"]) if harm and discovery.candidates_ else None
        if even is not None:
            looked["even_classes"], sentence = even.to_dict(), f"{sentence} {even.sentence}"
    count = None if unlabelled is None else len(unlabelled)
    sentence += unlabelled_text(discovery, count)
    if count is not None:
        looked["unlabelled"] = {"n": count, "rests_on": rests_on_unlabelled(discovery)}
    return Audit(
        found=bool(discovery.found),
        sentence=sentence,
        evidence=float(discovery.evidence_),
        evidence_words=word,
        discovery=discovery,
        conflicting=conflicting,
        groups=groups_table(data.y, discovery.groups_, data.names, values),
        associations=table,
        names=names,
        harm=plain,
        model_harm=given,
        looked_at=looked,
        projection=projection_frame(along, discovery.conflicting_, *each, rngs["projection"]),
        inputs=held,
        looks_like=alike,
    )


def _harms(
    data: Data,
    discovery: Discovery,
    values: Sequence[Any],
    predicted: IntArray | None,
    *,
    harm: bool,
    folds: int,
    seed: int,
    rngs: Mapping[str, np.random.Generator],
) -> tuple[Harm | None, Harm | None]:
    """What plain training and the given predictions do on conflicting examples, where there are any."""
    if not discovery.found:
        return None, None
    inferred, carries, names = discovery.groups_, data.carries(len(values)), (data.names, values)
    plain = given = None
    if harm:
        rows, guessed = plain_predictions(data.source, data.y, inferred, folds=folds, seed=seed)
        plain = measure_harm(guessed, data.y[rows], inferred[rows], carries, names, source=PLAIN, rng=rngs["harm"])
    if predicted is not None:
        given = measure_harm(predicted, data.y, inferred, carries, names, source=GIVEN, rng=rngs["predictions"])
    return plain, given


def scores_in(Z: Any, vocabulary: Mapping[str, Any]) -> WordScores:
    """Word scores by a vocabulary in the space of the latents.

    Args:
        Z: latents, `(n, d)`, whatever `discover` takes.
        vocabulary: words and their embeddings, `(d,)` each.
    """

    def scores(
        y: IntArray, inferred: IntArray, values: Sequence[Any], rng: np.random.Generator
    ) -> tuple[pd.DataFrame, None]:
        source = as_source(Z)
        many = len(source) > DEFAULT_CONFIG.inputs.held_rows
        latents = source if many else np.asarray(source.take(np.arange(len(source))), dtype=np.float32)
        return score_words(latents, y, inferred, vocabulary, values, rng=rng), None

    return scores


def _looked_at(data: Data, discovery: Discovery, contrast: float, columns: Sequence[Column]) -> dict[str, Any]:
    n, d = data.source.shape
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

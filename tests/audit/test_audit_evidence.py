"""Evidence in words and what would have been seen: cut points, the packaged table, and its record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_audit import planted

from aifs_peft import audit, discover
from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.audit.evidence import BINARY_CUTS, HINT_CUTS, MIXTURE_CUTS, REFINED_CUTS, ROUGH_CUTS, evidence_words
from aifs_peft.audit.power import class_contrast, detectable, power_sentence, power_table
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.reading import as_source

RECORD = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "audit_power.json").read_text())


@pytest.fixture(scope="module")
def found():
    Z, y, _ = planted()
    return discover(Z, y, random_state=0)


@pytest.mark.parametrize(
    ("changes", "cuts"),
    [
        ({}, BINARY_CUTS),
        ({"source_": "hint:groups"}, HINT_CUTS),
        ({"classes_": np.arange(3)}, MIXTURE_CUTS),
        ({"classes_": np.arange(3), "rough_": True}, ROUGH_CUTS),
        ({"classes_": np.arange(3), "rough_": True, "source_": "pairs+refined"}, REFINED_CUTS),
    ],
)
def test_words_follow_the_cut_points_of_their_source(found, changes, cuts):
    def word(evidence, **more):
        return evidence_words(replace(found, evidence_=evidence, **changes, **more))

    assert word(0.99 * cuts[0]) == "weak"
    assert word(cuts[0]) == "clear"
    assert word(cuts[1]) == "strong"
    few = {"groups_": found.groups_[:200]}
    assert word(cuts[1], **few) == "clear"
    assert word(0.5 * cuts[0], **few) == "weak"
    assert evidence_words(replace(found, found=False)) == "none"


def test_of_several_attributes_the_weakest_counts(found):
    weak = replace(found, evidence_=1.0)
    assert evidence_words(replace(found, parts_=(found, weak))) == "weak"


def test_weak_evidence_is_a_warning(found):
    Z, y, _ = planted()
    result = audit(Z, y, discovery=replace(found, evidence_=1.0), harm=False)
    assert result.evidence_words == "weak"
    assert any("evidence is weak" in text for text in result.looked_at["warnings"])


def test_words_were_worth_what_they_say():
    for kind, words in RECORD["words"].items():
        for word, least in (("clear", 0.9), ("strong", 0.99)):
            if words[word]["finds"]:
                assert words[word]["right"] >= least * words[word]["finds"], (kind, word)
    assert RECORD["null"]["draws"] >= 200
    assert RECORD["null"]["alarms"] <= 0.05 * RECORD["null"]["draws"]


def test_the_packaged_table_is_the_record():
    assert power_table() == {name: RECORD[name] for name in ("class_contrast", "draws", "table")}


def test_detectable_is_no_easier_than_the_data():
    for n, width, classes, smallest in ((700, 100, 2, 300), (5000, 768, 2, 2400), (3000, 20, 10, 280)):
        for entry in detectable(n, width, classes, smallest):
            assert entry.n <= n
            assert entry.width >= min(width, 256)
            assert 0.8 * entry.n / entry.classes <= smallest
            if entry.contrast is not None:
                row = next(
                    r for r in power_table()["table"]
                    if (r["classes"], r["n"], r["width"], r["share"])
                    == (entry.classes, entry.n, entry.width, entry.share)
                )  # fmt: skip
                assert all(seen >= 9 for c, seen in row["seen"].items() if float(c) >= entry.contrast)
    # A small class makes large data small.
    assert detectable(5000, 32, 2, 200)[0].n < detectable(5000, 32, 2, 2400)[0].n
    assert detectable(5000, 32, 2, 20) == []


def test_what_is_said_to_be_seen_is_seen():
    entry = detectable(700, 24, 2, 330)[0]
    seen = 0
    for seed in range(100, 110):
        Z, y, mark = planted(n=700, aligned=entry.share, contrast=entry.contrast, seed=seed)
        moved = discover(Z, y, random_state=seed).groups_ != y
        seen += np.sum(moved & (mark != y)) >= 0.5 * np.sum(moved | (mark != y))
    assert seen >= 8


def test_sentences_are_true_of_their_numbers():
    entries = detectable(600, 32, 2, 290)
    assert f"moves latents by {entries[0].contrast:g} standard deviations" in power_sentence(entries, 1.0, 600, 290)
    assert "1.5 times as strong as what tells the classes apart (6.0)" in power_sentence(entries, 6.0, 600, 290)
    assert "found by luck if at all" in power_sentence([], 1.0, 90, 45)
    hopeless = detectable(300, 256, 5, 50)
    assert all(entry.contrast is None for entry in hopeless)
    assert "no mark of up to 8 standard deviations was seen in 9 of 10 draws" in power_sentence(hopeless, 1, 300, 50)


@pytest.mark.parametrize("classes", [2, 4])
def test_class_contrast_is_the_distance_of_the_means(classes):
    Z, y, _ = planted(n=6000, classes=classes, aligned=1 / classes, contrast=0.0, core=3.0)
    shuffled = np.random.default_rng(0).permutation(y)
    as_they_are = Reduction(np.zeros(Z.shape[1]), np.eye(Z.shape[1]), np.ones(Z.shape[1]))
    own, other = (Coordinates(as_source(Z), as_they_are, labels, classes, Z) for labels in (y, shuffled))
    assert class_contrast(own) == pytest.approx(3.0, abs=0.15)
    assert class_contrast(other) < 0.3

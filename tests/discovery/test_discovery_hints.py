"""Hints: an attribute too weak to be found is found with one, whatever form it is given in."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hinted_latents import by_source, ten_per_cell, two_attributes, weak

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG, HintConfig
from aifs_peft.discovery.hints.gain import KnownHeads, Score
from aifs_peft.discovery.hints.in_classes import to_classes
from aifs_peft.discovery.hints.known import groups_hint
from aifs_peft.discovery.hints.sampler import Whitened, sample_attribute


def worst_group(clf, Z, y, a):
    hit = clf.predict(Z) == y
    return min(hit[(y == c) & (a == b)].mean() for c in (0, 1) for b in (0, 1))


def test_ten_known_values_per_cell_find_what_discovery_does_not():
    Z, y, a, axes = weak()
    rng = np.random.default_rng(1)
    ty, ta = rng.integers(0, 2, 8000), rng.integers(0, 2, 8000)
    test_Z = rng.normal(size=(8000, 32)) + 1.5 * (ty[:, None] - 0.5) * axes[0] + 2.5 * (ta[:, None] - 0.5) * axes[1]
    alone = AIFSClassifier(random_state=0).fit(Z, y)
    hinted = AIFSClassifier(random_state=0).fit(Z, y, groups=ten_per_cell(y, a))
    assert not alone.discovery_.found
    assert hinted.discovery_.source_ == "hint:groups"
    assert "Used: hint:groups." in hinted.discovery_.summary()
    erm, best = worst_group(alone, test_Z, ty, ta), 0.773  # the normal distribution's share beyond half the contrast
    assert erm < 0.4
    assert worst_group(hinted, test_Z, ty, ta) > erm + 0.7 * (best - erm)
    direction = hinted.discovery_.basis_[:, 0]
    assert abs(direction @ axes[1]) > 0.85
    assert abs(direction @ axes[0]) < 0.4


def test_known_values_are_kept_and_the_same_for_any_numbering():
    Z, y, a, _ = weak()
    known = ten_per_cell(y, a)
    result = discover(Z, y, groups=known, random_state=0)
    rows = known >= 0
    np.testing.assert_array_equal(result.groups_[rows], known[rows])
    # Values 7 and 3 instead of 0 and 1, as a float tensor: each value goes to the class it is tied to.
    other = torch.tensor(np.where(rows, np.where(known == 1, 3, 7), -1), dtype=torch.float32)
    renumbered = discover(Z, y, groups=other, random_state=0)
    np.testing.assert_array_equal(renumbered.groups_[rows], known[rows])
    assert np.mean(renumbered.groups_ == result.groups_) > 0.98


def test_metadata_columns_categorical_numeric_and_missing():
    Z, y, a, _ = weak(contrast=2.0)
    rng = np.random.default_rng(2)
    site = np.array(["north", "south"], dtype=object)[a]
    site[rng.random(len(y)) < 0.3] = None
    table = pd.DataFrame(
        {"weekday": rng.integers(0, 7, len(y)), "site": site, "dose": a + 0.1 * rng.normal(size=len(y))}
    )
    result = discover(Z, y, metadata=table, random_state=0)
    assert result.found
    assert by_source(result, "hint:metadata:site").accepted
    assert by_source(result, "hint:metadata:dose").accepted  # quartiles of a numeric column
    assert not by_source(result, "hint:metadata:weekday").accepted
    assert result.source_ in ("hint:metadata:site", "hint:metadata:dose")
    assert np.mean(result.groups_ == a) > 0.95


def test_a_stronger_attribute_that_was_found_goes_before_a_weaker_hint():
    rng = np.random.default_rng(0)
    Z, y, _, _ = weak(contrast=7.0)
    minor = np.where(rng.random(len(y)) < 0.7, y, 1 - y)
    Z = np.column_stack([Z, rng.normal(size=len(y)) + 2.0 * minor])
    result = discover(Z, y, metadata={"minor": minor}, random_state=0, max_attributes=1)
    assert by_source(result, "hint:metadata:minor").accepted
    assert not result.source_.startswith("hint:")
    assert "hint:metadata:minor was not used: weaker than what was found." in result.message_
    both = discover(Z, y, metadata={"minor": minor}, random_state=0)
    assert [part.source_ for part in both.parts_] == [result.source_, "hint:metadata:minor"]


def test_more_values_than_classes_and_four_classes():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 4000)
    a = np.where(rng.random(4000) < 0.9, y, rng.integers(0, 4, 4000))
    Z = rng.normal(size=(4000, 20))
    Z[np.arange(4000), y] += 2.0
    Z[np.arange(4000), 8 + a] += 2.5
    fine = 2 * a + rng.integers(0, 2, 4000)  # eight values, two of which go with each class
    result = discover(Z, y, groups=np.where(rng.random(4000) < 0.5, fine, -1), random_state=0)
    assert result.source_ == "hint:groups"
    assert result.basis_.shape == (20, 3)
    assert np.mean(result.groups_ == a) > 0.9


@pytest.mark.parametrize(
    ("axis", "found"), [("attribute", True), ("class", False), ("random", False)], ids=["attribute", "class", "random"]
)
def test_a_named_direction(axis, found):
    Z, y, a, axes = weak(contrast=3.0)
    chosen = {"attribute": axes[1], "class": axes[0], "random": np.random.default_rng(5).normal(size=32)}[axis]
    result = discover(Z, y, attributes={"place": 0.3 * chosen}, random_state=0)
    assert by_source(result, "hint:attribute:place").accepted == found
    assert result.found == found
    if found:
        assert result.source_ == "hint:attribute:place"
        assert np.mean(result.groups_[a != y] != y[a != y]) > 0.5


def test_values_of_a_named_attribute_count_by_their_differences():
    Z, y, _, axes = weak(contrast=3.0)
    common = 20.0 * axes[0]
    one = discover(Z, y, attributes=[axes[1]], random_state=0)
    two = discover(Z, y, attributes={"place": np.stack([common, common + axes[1]])}, random_state=0)
    assert one.source_ == "hint:attribute:0"
    np.testing.assert_array_equal(one.groups_, two.groups_)


def test_hints_are_deterministic_and_do_not_depend_on_rotation_and_scale():
    Z, y, a, _ = weak()
    known = ten_per_cell(y, a)
    first = discover(Z, y, groups=known, random_state=0)
    second = discover(Z, y, groups=known, random_state=0)
    np.testing.assert_array_equal(first.responsibilities_, second.responsibilities_)
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(32, 32)))[0]
    turned = discover(5.0 * Z @ rotation, y, groups=known, random_state=0)
    assert np.mean(turned.groups_ == first.groups_) > 0.98


def test_sampled_rows_keep_the_known_ones():
    Z, y, a, _ = weak(n=6000)
    result = discover(Z, y, groups=ten_per_cell(y, a), random_state=0, max_fit_rows=2000)
    assert result.source_ == "hint:groups"
    assert result.groups_.shape == (6000,)


def test_sampler_gives_offsets_and_shares():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    a = np.where(rng.random(4000) < np.where(y == 1, 0.9, 0.7), y, 1 - y)
    X = rng.normal(size=(4000, 6))
    X[:, 0] += 3.0 * a
    X[:, 1] += 2.0 * y
    data = Whitened.of(X, y, 2, DEFAULT_CONFIG.hints)
    np.testing.assert_allclose(data.V.T @ data.V / 4000, np.eye(6), atol=0.02)
    known = np.where(rng.random(4000) < 0.1, a, -1)
    fit = sample_attribute(data, known, 2, rng=rng, config=DEFAULT_CONFIG.hints, tied=False)
    np.testing.assert_allclose(np.diag(fit.prior), [0.7, 0.9], atol=0.04)
    np.testing.assert_allclose(np.diff(fit.offsets, axis=0)[0] @ data.factor.T, [3, 0, 0, 0, 0, 0], atol=0.25)
    R = fit.responsibilities(data, known)
    assert np.mean(R.argmax(axis=1) == a) > 0.94
    np.testing.assert_array_equal(R[known >= 0].argmax(axis=1), known[known >= 0])


def test_values_go_to_the_class_where_they_are_over_represented():
    prior = np.array([[0.6, 0.3, 0.1], [0.55, 0.1, 0.35]])
    assert to_classes(prior).argmax(axis=1).tolist() == [0, 0, 1]


def test_known_values_may_be_strings_and_missing_ones_are_unknown():
    values = np.arange(60) % 3
    expected = groups_hint(np.where(values == 2, -1, values), 60)
    names = np.array(["land", "water", None], dtype=object)[values]
    for given in (
        names,
        list(names),
        pd.Series(names),
        np.where(values == 2, "", names).astype(str),
        np.where(values == 2, np.nan, values),
        np.array(["land", "water", -1])[values],  # NumPy makes strings of it
    ):
        hint = groups_hint(given, 60)
        np.testing.assert_array_equal(hint.values, expected.values)
        assert not hint.problem
    assert "0 value(s) known" in groups_hint(np.full(60, np.nan), 60).problem


def test_a_hint_in_strings_is_that_in_numbers():
    Z, y, a, _ = weak(n=2000)
    known = ten_per_cell(y, a)
    named = np.array(["night", "day", None], dtype=object)[known]
    result, numbers = discover(Z, y, groups=named, random_state=0), discover(Z, y, groups=known, random_state=0)
    assert result.source_ == numbers.source_ == "hint:groups"
    # Strings are numbered in their order: "day" (1) comes first, which changes the random draws but not the values.
    rows = known >= 0
    np.testing.assert_array_equal(result.groups_[rows], known[rows])
    assert np.mean(result.groups_ == numbers.groups_) > 0.97


def test_two_hinted_attributes_are_both_used():
    Z, y, a, b = two_attributes((2.5, 2.5))
    columns = {"first": ten_per_cell(y, a), "second": ten_per_cell(y, b, seed=1)}
    missing = {name: np.where(known < 0, np.nan, known) for name, known in columns.items()}
    alone, hinted = discover(Z, y, random_state=0), discover(Z, y, metadata=missing, random_state=0)
    assert not alone.found
    assert {part.source_ for part in hinted.parts_} == {"hint:metadata:first", "hint:metadata:second"}
    for part in hinted.parts_:
        truth, axis = (a, 1) if part.source_.endswith("first") else (b, 2)
        assert np.mean(part.groups_ == truth) > 0.94
        assert np.abs(part.basis_[axis, 0]) > 0.8


def test_a_hinted_attribute_joins_a_stronger_one_that_was_found():
    Z, y, a, b = two_attributes((6.0, 2.5))
    result = discover(Z, y, groups=ten_per_cell(y, b), random_state=0)
    strong, weaker = result.parts_
    assert not strong.source_.startswith("hint:")
    assert np.mean(strong.groups_ == a) > 0.98
    assert weaker.source_ == "hint:groups"
    assert np.mean(weaker.groups_ == b) > 0.94
    assert "not used" not in result.message_


def test_a_stronger_attribute_is_found_beside_a_hint():
    """Two equally strong ones hide each other; a hint about one must not hide the other."""
    Z, y, a, b = two_attributes((5.0, 5.0))
    result = discover(Z, y, groups=ten_per_cell(y, b), random_state=0)
    hinted, found = result.parts_
    assert hinted.source_ == "hint:groups"
    assert np.mean(hinted.groups_ == b) > 0.98
    assert np.mean(found.groups_ == a) > 0.98


def test_a_column_that_repeats_an_attribute_does_not_hide_another():
    Z, y, a, b = two_attributes((4.0, 2.5))
    again = np.where(np.random.default_rng(1).random(len(y)) < 0.98, a, 1 - a)
    result = discover(Z, y, metadata={"a": a, "again": again, "b": b}, random_state=0)
    assert [part.source_ for part in result.parts_] == ["hint:metadata:a", "hint:metadata:b"]
    assert "hint:metadata:again was not used: known examples, held out, are not predicted" in result.message_


def test_a_named_direction_is_the_same_beside_another_attribute():
    Z, y, a, b = two_attributes((6.0, 4.0))
    result = discover(Z, y, attributes={"second": np.eye(48)[2]}, random_state=0)
    assert [part.source_ for part in result.parts_][1:] == ["hint:attribute:second"]
    assert np.mean(result.parts_[1].groups_ == b) > 0.95
    assert np.mean(result.parts_[0].groups_ == a) > 0.98


@pytest.mark.parametrize("errors", [0.05, 0.15])
def test_a_column_with_wrong_values_is_corrected(errors):
    Z, y, a, _ = weak()
    column = np.where(np.random.default_rng(7).random(len(a)) < errors, 1 - a, a)
    result = discover(Z, y, metadata={"site": column}, random_state=0)
    assert result.source_ == "hint:metadata:site"
    wrong = np.mean(column != a)
    assert np.mean(result.groups_ != a) < 0.5 * wrong
    # Offsets as from the true values, not washed out by the wrong ones.
    clean = discover(Z, y, metadata={"site": a}, random_state=0)
    np.testing.assert_array_equal(clean.groups_, a)  # a column without errors is taken as it is
    lengths = [np.linalg.norm(np.diff(found.displacements_, axis=0)) for found in (result, clean)]
    assert 0.8 < lengths[0] / lengths[1] < 1.2


def test_the_share_of_wrong_values_is_estimated():
    Z, y, a, _ = weak(contrast=2.0)
    data = Whitened.of(Z, y, 2, HintConfig())
    for errors in (0.0, 0.1):
        column = np.where(np.random.default_rng(7).random(len(a)) < errors, 1 - a, a)
        fit = sample_attribute(
            data, column, 2, rng=np.random.default_rng(0), config=HintConfig(), tied=False, sweeps=150, with_errors=True
        )
        assert abs(fit.errors - np.mean(column != a)) < 0.02


def test_a_refitted_head_is_taken_for_clear_gains_only():
    config, none = DEFAULT_CONFIG.heads, np.zeros(0, dtype=int)
    low, middle, high = (Score(worst, 0.08) for worst in (0.35, 0.42, 0.7))
    heads = KnownHeads(none, np.zeros((2, 1)), plain=low, hinted=middle, refitted=high, gap=(0.5, 0.1))
    assert heads.better(config)
    assert heads.useful(config)
    # Refitting on an even sample helps whatever its values are: plain training must lean on the attribute.
    assert not replace(heads, gap=(0.2, 0.1)).useful(config)
    assert not replace(heads, refitted=Score(0.45, 0.08)).useful(config)
    assert not replace(heads, hinted=Score(0.6, 0.08)).better(config)

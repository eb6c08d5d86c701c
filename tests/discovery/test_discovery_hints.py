"""Hints: an attribute too weak to be found is found with one, and a bad hint changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.hints.judge import to_classes
from aifs_peft.discovery.hints.known import groups_hint, metadata_hints
from aifs_peft.discovery.hints.sampler import Whitened, sample_attribute
from aifs_peft.errors import InvalidInputError


def weak(seed=0, *, n=3000, d=32, rho=0.95, contrast=2.5, core=1.5):
    """An attribute below the gate of discovery, its direction orthogonal to the class's."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    axes = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    Z = rng.normal(size=(n, d)) + core * (y[:, None] - 0.5) * axes[0] + contrast * (a[:, None] - 0.5) * axes[1]
    return Z, y, a, axes


def ten_per_cell(y, a, seed=0):
    rng = np.random.default_rng(seed)
    known = np.full(len(y), -1)
    for cell in range(4):
        rows = rng.permutation(np.flatnonzero(2 * y + a == cell))[:10]
        known[rows] = a[rows]
    return known


def worst_group(clf, Z, y, a):
    hit = clf.predict(Z) == y
    return min(hit[(y == c) & (a == b)].mean() for c in (0, 1) for b in (0, 1))


def by_source(result, source):
    return next(c for c in result.candidates_ if c.source == source)


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


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_values_change_nothing(seed):
    Z, y, a, _ = weak(seed)
    known = ten_per_cell(y, a)
    rows = known >= 0
    known[rows] = np.random.default_rng(seed).permutation(known[rows])
    plain = AIFSClassifier(random_state=0).fit(Z, y)
    clf = AIFSClassifier(random_state=0).fit(Z, y, groups=known)
    assert not clf.discovery_.found
    assert "hint:groups was not used" in clf.discovery_.message_
    np.testing.assert_array_equal(clf.coef_, plain.coef_)
    np.testing.assert_array_equal(clf.intercept_, plain.intercept_)


def test_a_failed_hint_leaves_what_discovery_finds():
    Z, y, _, _ = weak(contrast=6.0)
    noise = np.random.default_rng(3).integers(0, 3, len(y))
    plain = discover(Z, y, random_state=0)
    hinted = discover(Z, y, metadata={"weekday": noise}, random_state=0)
    assert plain.found
    np.testing.assert_array_equal(hinted.responsibilities_, plain.responsibilities_)
    assert hinted.source_ == plain.source_
    assert "hint:metadata:weekday was not used" in hinted.message_


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


def test_a_column_tied_to_the_label_but_not_in_the_latents_is_refused():
    Z, y, a, _ = weak(contrast=0.0)
    result = discover(Z, y, metadata={"site": a}, random_state=0)
    assert not result.found
    assert "not predicted" in by_source(result, "hint:metadata:site").reason


def test_a_column_in_the_latents_but_not_tied_to_the_label_is_refused():
    Z, y, a, _ = weak(rho=0.5, contrast=4.0)
    result = discover(Z, y, metadata={"site": a}, random_state=0)
    assert not result.found
    assert "not tied to the label" in by_source(result, "hint:metadata:site").reason


def test_the_label_itself_and_cells_instead_of_values_are_refused():
    Z, y, a, _ = weak()
    label = by_source(discover(Z, y, groups=y, random_state=0), "hint:groups")
    cells = by_source(discover(Z, y, groups=2 * y + a, random_state=0), "hint:groups")
    assert "each value occurs in one class only" in label.reason
    assert "not (label, attribute) cells" in cells.reason


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


@pytest.mark.parametrize(
    ("hint", "match"),
    [
        ({"groups": np.zeros(10)}, r"groups of shape \(10,\) were given for 100 examples"),
        ({"groups": np.full(100, 0.5)}, "needed are attribute values: whole numbers 0, 1"),
        ({"groups": np.full(100, -2)}, "-1 where unknown"),
        ({"groups": ["a", 1] * 50}, "or strings with None where unknown"),
        ({"metadata": [1, 2]}, "needed is a pandas DataFrame"),
        ({"metadata": {"site": [1, 2]}}, "column 'site' has 2 values for 100 examples"),
        ({"attributes": {"place": np.ones(7)}}, r"attributes\['place'\] has shape \(7,\)"),
        ({"attributes": {"place": np.ones((2, 6))}}, "no two that differ"),
        ({"attributes": [np.full(6, np.nan)]}, "not finite"),
    ],
)
def test_bad_hints_are_refused(hint, match):
    Z = np.random.default_rng(0).normal(size=(100, 6))
    with pytest.raises(InvalidInputError, match=match):
        discover(Z, np.arange(100) % 2, random_state=0, **hint)


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


def test_unusable_columns_say_why():
    few, constant, names = metadata_hints({"few": ["a"] * 4 + ["b"] * 96, "one": ["a"] * 100, "id": range(100)}, 100)
    assert "1 value(s) known" in few.problem
    assert "1 value(s) known" in constant.problem
    assert names.n_values == 4  # quartiles
    assert "merge them" in groups_hint(np.repeat(np.arange(25), 5), 125).problem


def two_attributes(contrasts, seed=0, n=3000, d=48):
    """Two attributes beside a class contrast of 2, each equal to the label for 95 %."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a, b = (np.where(rng.random(n) < 0.95, y, 1 - y) for _ in contrasts)
    Z = rng.normal(size=(n, d))
    Z[:, :3] += np.stack([2.0 * y, contrasts[0] * a, contrasts[1] * b], axis=1)
    return Z, y, a, b


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


@pytest.mark.parametrize("core", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_column_that_repeats_the_label_with_errors_is_refused(core, seed):
    """Nearly all its values lie where the label alone would put them: that must not count as predicting them."""
    Z, y, _, _ = weak(seed, contrast=0.0, core=core)
    wrong = np.random.default_rng(seed + 100).random(len(y)) < 0.02
    result = discover(Z, y, metadata={"second annotator": np.where(wrong, 1 - y, y)}, random_state=0)
    assert not result.found
    assert "not predicted" in by_source(result, "hint:metadata:second annotator").reason


@pytest.mark.parametrize("seed", [50, 52])
def test_a_column_of_corrected_labels_is_refused(seed):
    """The only structure is the true class: nothing of the label is left beside it but its errors."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, 1500)
    y = np.where(rng.random(1500) < 0.05, rng.integers(0, 4, 1500), true)
    Z = rng.normal(size=(1500, 64))
    Z[np.arange(1500), true] += 4.0
    plain = AIFSClassifier(random_state=0).fit(Z, y)
    hinted = AIFSClassifier(random_state=0).fit(Z, y, metadata={"corrected": true})
    assert "nothing of the class beside it" in by_source(hinted.discovery_, "hint:metadata:corrected").reason
    np.testing.assert_array_equal(hinted.coef_, plain.coef_)


def test_one_known_value_per_cell_of_nothing_is_refused():
    passed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 5, 1000)
        known = np.full(1000, -1)
        for label in range(5):
            for value in range(2):
                known[rng.choice(np.flatnonzero((y == label) & (known < 0)))] = value
        Z = rng.normal(size=(1000, 10)) + 2.0 * np.eye(5, 10)[y]
        verdict = by_source(discover(Z, y, groups=known, random_state=0), "hint:groups")
        passed += "not predicted" not in verdict.reason
    assert passed <= 1


def test_a_direction_outside_the_latents_is_refused():
    Z, y, _, _ = weak()
    Z[:, 0] = 1.0
    verdict = by_source(
        discover(Z, y, attributes={"constant": np.eye(32)[0]}, random_state=0), "hint:attribute:constant"
    )
    assert verdict.reason.startswith("nothing of the direction is left")


def test_a_column_given_twice_says_why_it_was_not_used():
    Z, y, a, _ = weak(contrast=5.0)
    result = discover(Z, y, groups=a, metadata={"again": a}, random_state=0)
    unused = {"hint:groups", "hint:metadata:again"} - {result.source_}
    last = [c for c in result.candidates_ if c.source in unused][-1]
    assert not last.accepted
    assert f"{last.source} was not used: {last.reason}." in result.message_
    assert "weaker" not in result.message_
